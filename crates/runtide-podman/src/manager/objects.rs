//! The service's objects, as those of a create are found by their label.

use runtide_engine::create::Objects;

/// Containers, running or not, which are removed at once, with their anonymous volumes.
pub(super) const CONTAINERS: Objects = Objects {
    list: "/containers/json?all=true",
    key: "Id",
    labels: "Labels",
    path: "/containers/",
    options: "?force=true&volumes=true&timeout=0",
};

/// Networks. One that is removed by its id is removed from under the containers that use it: Podman looks for them by its name.
pub(super) const NETWORKS: Objects =
    Objects { list: "/networks/json", key: "name", labels: "labels", path: "/networks/", options: "" };

/// Volumes.
pub(super) const VOLUMES: Objects =
    Objects { list: "/volumes/json", key: "Name", labels: "Labels", path: "/volumes/", options: "" };

/// Images, with those that have no name. Forced, a removal would take the containers of an image with it.
pub(super) const IMAGES: Objects =
    Objects { list: "/images/json?all=true", key: "Id", labels: "Labels", path: "/images/", options: "" };
