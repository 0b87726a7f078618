//! [`Helper`]: a container that is made and never started, through which the contents of a volume are reached.
//!
//! The Engine has no export of volumes. Its archive endpoints mount the volumes of a container that was only created, so that
//! nothing runs. The container has no image, which the Engine allows since a build can be `FROM scratch`: nothing else has to be made
//! and removed again, no image of the user's is in use, and none has files that would be copied into an empty volume.
//!
//! A volume that was removed as the transfer began is made again by the daemon, for the helper: with the helper's labels, so that it is
//! told from the caller's, and removed with the helper.
//!
//! It has a label `runtide.operation` of its own, by which it is found and removed, also if the answer to the create never came; and
//! `runtide.owner`, with the volume's own owner or else `runtide`: a helper whose process was killed is an orphan of that owner.

use runtide_core::{Result, backend::CreateGuard};
use runtide_engine::{Request, create::Creation, late::LATEST_ANSWER, segment, volume::Volume};
use serde::Deserialize;
use serde_json::json;

use super::On;
use crate::{
    client::{Client, Docker},
    manager::objects::{CONTAINERS, VOLUMES},
};

const OWNER: &str = "runtide.owner";
const OPERATION: &str = "runtide.operation";

/// Path at which the helper has the volume.
const TARGET: &str = "/volume";

/// The same, as the name of an entry of an archive for the helper's root.
pub(super) const ENTRY: &str = "volume/";

/// The container, and the guard that removes it.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) container: String,
    pub(super) guard: CreateGuard,
}

impl Helper {
    /// Makes the helper of a volume that exists.
    ///
    /// # Cancel safety
    /// A dropped future removes in a task what was made, also by a request whose answer comes later.
    pub(super) async fn make(on: On<'_>, volume: &Volume) -> Result<Self> {
        let own = volume.labels.as_ref().and_then(|labels| labels.get(OWNER));
        let operation = format!("volume-transfer-{}", uuid::Uuid::new_v4().simple());
        let labels = json!({ OWNER: own.map_or("runtide", String::as_str), OPERATION: operation });
        // The volumes after the container, which holds them.
        let creation = Creation::new(on.client, on.operation, &operation, &[CONTAINERS, VOLUMES]);
        let creation = creation.with_label(OPERATION, operation.as_str());
        let made = Self::made(on.client.clone(), on.operation, creation.clone(), on.name.to_owned(), labels);
        let made = on.bounded(creation.run(made)).await;
        made.map_err(|error| on.located(error))
    }

    async fn made(
        client: Client,
        call: &'static str,
        creation: Creation<Docker>,
        volume: String,
        labels: serde_json::Value,
    ) -> Result<Self> {
        // The volume may have been made though the container was refused.
        let guard = creation.guard();
        let on = On { client: &client, operation: call, name: &volume };
        match make(on, creation.label().1, &labels).await {
            Ok(container) => Ok(Self { container, guard }),
            Err(error) => guard.settle(Err(error)).await,
        }
    }

    /// The endpoint for the volume's contents. `/.` is the folder's content, and not the folder under its name.
    pub(super) fn archive(&self) -> String {
        format!("/containers/{}/archive?path={}", self.container, segment(&format!("{TARGET}/.")))
    }

    /// The endpoint for the folder above.
    pub(super) fn above(&self) -> String {
        format!("/containers/{}/archive?path=%2F", self.container)
    }
}

async fn make(on: On<'_>, operation: &str, labels: &serde_json::Value) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Made {
        id: String,
    }
    let On { client, operation: call, name } = on;
    let body = json!({
        // Never run; the daemon refuses a container without one.
        "Cmd": ["/"],
        "Labels": labels,
        "NetworkDisabled": true,
        "HostConfig": {
            "NetworkMode": "none",
            "LogConfig": { "Type": "none" },
            "Mounts": [{
                "Type": "volume",
                "Source": name,
                "Target": TARGET,
                // The daemon gives the labels to a volume that it has to make, and to no other.
                "VolumeOptions": { "NoCopy": true, "Labels": labels },
            }],
        },
    });
    let request =
        Request::post("/containers/create").with_query("name", format!("runtide-{operation}")).with_json(&body);
    let made = client.call(call, request, LATEST_ANSWER).await?;
    let Made { id } = serde_json::from_slice(&made).map_err(|error| client.site(call).undecodable(error))?;
    Ok(id)
}
