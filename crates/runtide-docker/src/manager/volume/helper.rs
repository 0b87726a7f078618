//! [`Helper`]: a container that is made and never started, through which the contents of a volume are reached.
//!
//! The Engine has no export of volumes. Its archive endpoints mount the volumes of a container that was only created, so that
//! nothing runs. A container needs an image, and the daemon may have none: an empty one is made for each transfer, without a name. To keep one would leave something behind; to take an image of the user's would hold it in use, and
//! copy its files into an empty volume. The image is removed as soon as the container exists, which keeps what it needs of it.
//!
//! A volume that was removed as the transfer began is made again by the daemon, for the helper: with the helper's labels, so that it is
//! told from the caller's, and removed with the helper.
//!
//! Both have a label `runtide.operation` of their own, by which they are found and removed, also if the answer to a request never
//! came. They have `runtide.owner` as well, with the volume's own owner or else `runtide`: what a process that was killed leaves is
//! an orphan of that owner. The image has no owner that a line of a Dockerfile would need quotes for; it takes a kilobyte, and
//! `docker image prune` removes it.

use runtide_core::{ErrorKind, Result, backend::CreateGuard};
use runtide_engine::{Request, create::Creation, late::LATEST_ANSWER, segment, volume::Volume};
use serde::Deserialize;
use serde_json::json;

use super::On;
use crate::{
    client::{Client, Docker},
    manager::objects::{CONTAINERS, IMAGES, VOLUMES},
};

const OWNER: &str = "runtide.owner";
const OPERATION: &str = "runtide.operation";

/// Path at which the helper has the volume.
const TARGET: &str = "/volume";

/// The same, as the name of an entry of an archive for the helper's root.
pub(super) const ENTRY: &str = "volume/";

/// A tar archive without an entry.
const EMPTY: [u8; 1024] = [0; 1024];

/// The container, and the guard that removes it with its image.
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
        let creation = Creation::new(on.client, on.operation, &operation, &[CONTAINERS, VOLUMES, IMAGES]);
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
        // The image may be there though the container is refused.
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
    let owner = labels.get(OWNER).and_then(serde_json::Value::as_str).filter(|owner| is_plain(owner));
    let image = image(client, call, operation, owner).await?;
    let body = json!({
        "Image": image,
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
    // The container keeps what it needs of it. What is refused here, the guard removes.
    let removal = Request::delete(format!("/images/{image}?force=1"));
    let _ = client.call(call, removal, client.deadline()).await;
    Ok(id)
}

/// True for a word that a Dockerfile takes as it is.
fn is_plain(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/' | b'@');
    !word.is_empty() && word.bytes().all(is_plain)
}

/// Makes the empty image, and returns its id.
async fn image(client: &Client, call: &'static str, operation: &str, owner: Option<&str>) -> Result<String> {
    /// One item of the progress. The last one has the id.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Progress {
        status: Option<String>,
        error: Option<String>,
    }
    // A line of a Dockerfile, in which only a plain word of the volume's may stand.
    let owner = owner.map(|owner| format!(" {OWNER}={owner}")).unwrap_or_default();
    let label = format!("LABEL {OPERATION}={operation}{owner}");
    let empty = futures_util::stream::iter([Ok(bytes::Bytes::from_static(&EMPTY))]);
    let request = Request::post("/images/create?fromSrc=-").with_query("changes", label);
    let request = request.with_body(empty, "application/x-tar");
    let progress = client.call(call, request, LATEST_ANSWER).await?;
    let mut id = None;
    for progress in serde_json::Deserializer::from_slice(&progress).into_iter::<Progress>() {
        let progress = progress.map_err(|error| client.site(call).undecodable(error))?;
        if let Some(error) = progress.error {
            return Err(client.site(call).error(ErrorKind::Unexpected, error));
        }
        id = progress.status.filter(|status| status.starts_with("sha256:")).or(id);
    }
    id.ok_or_else(|| client.site(call).error(ErrorKind::Protocol, "the daemon does not report the image that it made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_dockerfile_gets_plain_words_alone() {
        assert!(is_plain("shop-1.eu/a@b:c_d"));
        for hostile in ["", "a b", "a\nRUN x", "a\"", "a'", "$HOME", "a\\", "a=b", "é", "#"] {
            assert!(!is_plain(hostile), "{hostile}");
        }
    }
}
