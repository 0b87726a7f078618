//! The daemon's objects, as those of a create are found by their label.

use runtide_engine::create::Objects;

/// Containers, running or not, which are removed with their anonymous volumes.
pub(super) const CONTAINERS: Objects = Objects {
    list: "/containers/json?all=1",
    key: "Id",
    labels: "Labels",
    path: "/containers/",
    options: "?force=1&v=1",
};

/// Networks.
pub(super) const NETWORKS: Objects =
    Objects { list: "/networks", key: "Id", labels: "Labels", path: "/networks/", options: "" };

/// Volumes.
pub(super) const VOLUMES: Objects =
    Objects { list: "/volumes", key: "Name", labels: "Labels", path: "/volumes/", options: "" };
