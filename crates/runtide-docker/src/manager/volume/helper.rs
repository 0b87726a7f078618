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
//! came. The container has `runtide.owner` as well, with the volume's own owner or else `runtide`: a helper whose process was killed
//! is an orphan of that owner. An image that such a process leaves, killed between the two requests, is one of those that `docker
//! image prune` removes; it takes a kilobyte.

use runtide_core::{ErrorKind, Result, backend::CreateGuard};
use runtide_engine::{
    Request,
    late::{self, LATEST_ANSWER},
    segment,
};
use serde::Deserialize;
use serde_json::json;

use super::{On, Volume};
use crate::{
    client::Client,
    manager::{item, items},
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
        let operation = format!("volume-transfer-{:032x}", fastrand::u128(..));
        let labels = json!({ OWNER: own.map_or("runtide", String::as_str), OPERATION: operation });
        let made = Self::made(on.client.clone(), on.operation, operation, on.name.to_owned(), labels);
        let made = on.bounded(late::seen_through(on.client, on.operation, made)).await;
        made.map_err(|error| on.located(error))
    }

    async fn made(
        client: Client,
        call: &'static str,
        operation: String,
        volume: String,
        labels: serde_json::Value,
    ) -> Result<Self> {
        let (of, label) = (client.clone(), operation.clone());
        let guard = move || {
            CreateGuard::new(of.site(call), &label, of.deadline(), {
                let (client, operation) = (of.clone(), label.clone());
                move || {
                    let (client, operation) = (client.clone(), operation.clone());
                    async move { remove(&client, call, &operation).await }
                }
            })
        };
        let first = guard();
        let on = On { client: &client, operation: call, name: &volume };
        match make(on, &operation, &labels).await {
            Ok(container) => Ok(Self { container, guard: first }),
            Err(error) => {
                first.keep();
                late::undo(&error, guard).await;
                Err(error)
            }
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
    let image = image(client, call, operation).await?;
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

/// Makes the empty image, and returns its id.
async fn image(client: &Client, call: &'static str, operation: &str) -> Result<String> {
    /// One item of the progress. The last one has the id.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Progress {
        status: Option<String>,
        error: Option<String>,
    }
    // A line of a Dockerfile, in which no word of the volume's may stand.
    let label = format!("LABEL {OPERATION}={operation}");
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

/// Removes what has this operation's label: also what was made by a request whose answer did not come, and the volume that the
/// daemon made for the helper because the caller's was gone by then.
async fn remove(client: &Client, call: &'static str, operation: &str) -> Result<()> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Found {
        #[serde(alias = "Name")]
        id: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Volumes<'a> {
        #[serde(borrow)]
        volumes: Option<&'a serde_json::value::RawValue>,
    }
    let filters = json!({ "label": [format!("{OPERATION}={operation}")] });
    for (kind, list, options) in [
        ("containers", "/containers/json?all=1", "?force=1&v=1"),
        // After the container, which holds it.
        ("volumes", "/volumes", ""),
        ("images", "/images/json?all=1", "?force=1"),
    ] {
        let listed = client.call(call, Request::get(list).with_query("filters", &filters), client.deadline()).await?;
        let found: Vec<Found> = if kind == "volumes" {
            let volumes: Volumes<'_> =
                serde_json::from_slice(&listed).map_err(|error| client.site(call).undecodable(error))?;
            items(client, call, volumes.volumes.map_or("null", |volumes| volumes.get()).as_bytes())?
        } else {
            items(client, call, &listed)?
        };
        for Found { id } in found {
            let request = Request::delete(format!("/{kind}/{id}{options}"));
            match client.call(call, request, client.deadline()).await {
                // Gone, or being removed: by a guard that was dropped in the middle of its own removal. A volume may be in use: it
                // is another client's by then.
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// `true` if the volume that the helper mounts is still the one that was inspected. The daemon makes a missing one.
pub(super) async fn is_still(on: On<'_>, before: &Volume) -> Result<bool> {
    let request = Request::get(format!("/volumes/{}", on.name));
    let now = on.client.call(on.operation, request, on.client.deadline()).await;
    let now: Volume = item(on.client, on.operation, &now.map_err(|error| on.located(error))?)?;
    Ok(now.created_at == before.created_at && now.labels == before.labels)
}
