//! [`Helper`]: what a transfer makes on the service's side, and removes at its end.
//!
//! Before 5.6 libpod has neither export nor import of a volume. Its archive endpoints reach the volumes of a container that was never
//! started, so that an import needs a container, which has the volume's own folder in place of an image's files. Reading, they give
//! every file to the container's user, and leave out `dev`, `proc` and `sys`. An export therefore copies the volume into an image (by a
//! build of two lines, in which no program runs), and exports a container of it: as much again on the service's disk, for as long as it
//! takes.
//!
//! Each has a label `runtide.operation` that no other transfer has, by which it is found and removed, also if the answer to a request
//! never came. They have `runtide.owner` as well, with the volume's own owner or else `runtide`: what a process that was killed leaves is an orphan of
//! that owner.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use runtide_core::{Error, ErrorKind, Result, backend::CreateGuard};
use runtide_engine::{Request, archive_of, create::Creation, late::LATEST_ANSWER, segment, volume::Volume};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::On;
use crate::{
    client::{Client, Podman, is_answer},
    manager::objects::{CONTAINERS, IMAGES},
};

const OWNER: &str = "runtide.owner";
const OPERATION: &str = "runtide.operation";

/// Path at which the helper has the volume.
const TARGET: &str = "/volume";

/// Folder of every volume of the driver `local`, in one of the volume's own.
pub(super) const FOLDER: &str = "_data";

/// Copies the folder with the volume's folder in it, so that mode and owner of the latter come along.
const DOCKERFILE: &[u8] = b"FROM scratch\nCOPY --from=volume . /\n";

/// The container, and the guard that removes it with its image.
#[derive(Debug)]
pub(super) struct Helper {
    container: String,
    pub(super) guard: CreateGuard,
}

impl Helper {
    /// A container that has the volume.
    ///
    /// # Cancel safety
    /// A dropped future removes in a task what was made, also by a request whose answer comes later.
    pub(super) async fn of_volume(on: On<'_>, volume: &Volume) -> Result<Self> {
        let (root, (creation, labels)) = (folder(on, volume)?.to_owned(), creation(on, volume));
        let volume = json!([{ "Name": on.name, "Dest": TARGET, "Options": ["nocopy"] }]);
        let files = vec![("rootfs", json!(root)), ("volumes", volume)];
        let guard = creation.guard();
        let made = on.bounded(creation.run(container(on.client.clone(), on.operation, files, labels, guard))).await;
        made.map_err(|error| on.located(error))
    }

    /// A container that has a copy of the volume's contents. It takes as long as the volume is large.
    ///
    /// # Cancel safety
    /// As above. The service may make the copy to its end, and its image is removed then.
    pub(super) async fn of_copy(on: On<'_>, volume: &Volume) -> Result<Self> {
        let above = folder(on, volume)?.parent().unwrap_or(Path::new("/")).to_owned();
        let (creation, labels) = creation(on, volume);
        // From here on for the image as well, which is there also if the container is refused.
        let guard = creation.guard();
        let build = build(on.client.clone(), on.operation, above, labels.clone());
        let made = async {
            let image = creation.run_while_awaited(build).await?;
            let files = vec![("image", json!(image))];
            creation.run(container(on.client.clone(), on.operation, files, labels, guard)).await
        };
        made.await.map_err(|error| on.located(error))
    }

    /// The endpoint that unpacks into the volume. Not for the container's user, but for each owner in the archive.
    pub(super) fn unpacks(&self) -> String {
        format!("/containers/{}/archive?path={}&copyUIDGID=false", self.container, segment(&format!("{TARGET}/.")))
    }

    /// The endpoint that packs the copy.
    pub(super) fn packs(&self) -> String {
        format!("/containers/{}/export", self.container)
    }
}

/// The volume's folder on the service's host, if it is one that can be reached now.
fn folder<'a>(on: On<'_>, volume: &'a Volume) -> Result<&'a Path> {
    let own = |key: &str| volume.options.as_ref().is_some_and(|options| options.contains_key(key));
    if (own("type") || own("device")) && volume.mount_count == 0 {
        let message = "the volume has a file system of its own, which is mounted only while a container with it runs";
        return Err(on.error(ErrorKind::Conflict, message));
    }
    let path = volume.mountpoint.as_deref().filter(|path| path.is_absolute() && path.ends_with(FOLDER));
    let is_local = volume.driver.as_deref().is_none_or(|driver| matches!(driver, "local" | ""));
    path.filter(|_| is_local)
        .ok_or_else(|| on.unsupported("volumes_transfer", "only volumes of the driver 'local' can be reached"))
}

/// The objects of one transfer, a container before its image, and the labels of both.
fn creation(on: On<'_>, volume: &Volume) -> (Creation<Podman>, Value) {
    let own = volume.labels.as_ref().and_then(|labels| labels.get(OWNER));
    let operation = format!("volume-transfer-{}", Uuid::new_v4().simple());
    let labels = json!({ OWNER: own.map_or("runtide", String::as_str), OPERATION: operation });
    let creation = Creation::new(on.client, on.operation, &operation, &[CONTAINERS, IMAGES]);
    (creation.with_label(OPERATION, operation), labels)
}

/// Makes a container that is never started, of these files.
async fn container(
    client: Client,
    call: &'static str,
    files: Vec<(&'static str, Value)>,
    labels: Value,
    guard: CreateGuard,
) -> Result<Helper> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Made {
        id: String,
    }
    let operation = labels.get(OPERATION).and_then(Value::as_str).unwrap_or_default();
    let common = [
        ("name", json!(format!("runtide-{operation}"))),
        ("labels", labels.clone()),
        // Never run; Podman refuses a container without one.
        ("command", json!(["/"])),
        ("netns", json!({ "nsmode": "none" })),
        ("log_configuration", json!({ "driver": "none" })),
    ];
    let body: BTreeMap<&str, Value> = common.into_iter().chain(files).collect();
    let made = client.call(call, Request::post("/containers/create").with_json(&body), LATEST_ANSWER).await;
    let made = made
        .and_then(|made| serde_json::from_slice::<Made>(&made).map_err(|error| client.site(call).undecodable(error)));
    match made {
        Ok(Made { id }) => Ok(Helper { container: id, guard }),
        Err(error) => guard.settle(Err(error)).await,
    }
}

/// Copies the folder into an image without a name, and returns its id.
async fn build(client: Client, call: &'static str, folder: PathBuf, labels: Value) -> Result<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Progress {
        stream: String,
        error: Option<String>,
    }
    let site = client.site(call);
    let Some(folder) = folder.to_str() else {
        return Err(
            site.error(ErrorKind::Unsupported, "the path of the volume is not UTF-8, and libpod's interface is")
        );
    };
    let unwritable = |error| site.error(ErrorKind::Unexpected, "the build cannot be written").with_source(error);
    let context = archive_of("Dockerfile", DOCKERFILE).map_err(unwritable)?;
    let context = futures_util::stream::iter([Ok(bytes::Bytes::from(context))]);
    let request = Request::post("/build")
        .with_query("dockerfile", json!(["Dockerfile"]))
        .with_query("additionalbuildcontexts", json!({ "volume": { "Value": folder } }))
        .with_query("labels", &labels)
        .with_query("nocache", true)
        .with_query("layers", false)
        .with_query("rm", true)
        .with_query("forcerm", true)
        .with_body(context, "application/x-tar");
    // Without a limit: how long it takes depends on the volume, and on its caller's patience.
    let progress = client.call(call, request, Duration::MAX).await?;
    let mut id = None;
    for progress in serde_json::Deserializer::from_slice(&progress).into_iter::<Progress>() {
        let progress = progress.map_err(|error| site.undecodable(error))?;
        if let Some(error) = progress.error {
            return Err(site.error(ErrorKind::Unexpected, error.trim()));
        }
        let line = progress.stream.trim();
        let is_id = line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        id = is_id.then(|| line.to_owned()).or(id);
    }
    id.ok_or_else(|| site.error(ErrorKind::Protocol, "the service does not report the image that it made"))
}

/// A failure to unpack, which Podman answers with 500 and with every option that it had.
pub(super) fn refused(on: On<'_>, error: Error) -> Error {
    const BEGIN: &str = "copier: put: ";
    /// Words of the system's for what is not the archive's fault.
    const NOT_THE_ARCHIVES: [&str; 5] =
        ["no space left", "quota exceeded", "read-only file system", "input/output error", "not permitted"];
    let message = error.message();
    let Some(at) = message.find(BEGIN).filter(|_| is_answer(&error)) else { return on.located(error) };
    let why = message.get(at.saturating_add(BEGIN.len())..).unwrap_or_default();
    let is_the_archives = !NOT_THE_ARCHIVES.iter().any(|words| why.contains(words));
    let kind = if is_the_archives { ErrorKind::InvalidInput } else { ErrorKind::Unexpected };
    on.error(kind, format!("the archive cannot be unpacked: {why}"))
}
