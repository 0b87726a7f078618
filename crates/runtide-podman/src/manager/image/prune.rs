//! The prune. Of several labels Podman honours the first alone, and takes an empty value for any: it would remove more than was asked
//! for. So where there are labels the images are chosen here, and removed one by one.

use runtide_core::{
    ErrorKind, ImageRef, Result,
    manager::{Effect, ImageInfo, ImageManager, PruneOptions, Pruned},
};
use runtide_engine::Request;
use serde::Deserialize;

use super::{Images, progress::id_of};

const OPERATION: &str = "podman.prune_images";

/// One image that was removed.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Report {
    id: String,
    size: u64,
}

/// An image of the list, with what only its removal needs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Used {
    id: String,
    containers: i64,
}

pub(super) async fn prune(images: &Images, options: PruneOptions) -> Result<Pruned> {
    if !options.labels.is_empty() {
        return by_labels(images, &options).await;
    }
    let client = &images.client;
    let request = Request::post("/images/prune").with_query("all", options.named);
    let bytes = client.call(OPERATION, request, client.deadline()).await?;
    let reports: Option<Vec<Report>> =
        serde_json::from_slice(&bytes).map_err(|error| client.site(OPERATION).undecodable(error))?;
    let reports = reports.unwrap_or_default();
    let bytes = reports.iter().fold(0, |all: u64, report| all.saturating_add(report.size));
    let ids = reports.into_iter().map(|report| ImageRef::from(id_of(&report.id).unwrap_or(report.id)));
    Ok(Pruned::new(ids.collect(), Some(bytes)))
}

async fn by_labels(images: &Images, options: &PruneOptions) -> Result<Pruned> {
    let client = &images.client;
    let bytes = images.listed(OPERATION).await?;
    let used: Option<Vec<Used>> =
        serde_json::from_slice(&bytes).map_err(|error| client.site(OPERATION).undecodable(error))?;
    let used: Vec<String> = used.into_iter().flatten().filter(|one| one.containers != 0).map(|one| one.id).collect();
    let is_used = |info: &ImageInfo| used.iter().any(|id| info.id.as_str().ends_with(id.as_str()));
    let is_meant = |info: &ImageInfo| {
        let named = !info.tags.is_empty() || !info.digests.is_empty();
        let labelled = options.labels.iter().all(|(key, value)| info.labels.get(key) == Some(value));
        labelled && (options.named || !named) && !is_used(info)
    };
    let mut gone = Vec::new();
    for info in runtide_engine::image::list(client.site(OPERATION), &bytes)?.into_iter().filter(is_meant) {
        // By its id Podman removes no image with several names. The last one takes the image with it, unless it is used by now.
        let names = if info.tags.len() > 1 { info.tags.as_slice() } else { std::slice::from_ref(&info.id) };
        let mut removed = Ok(Effect::Unchanged);
        for name in names {
            removed = images.remove(name).await;
        }
        match removed {
            Ok(Effect::Changed) => gone.push(info.id),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Pruned::new(gone, None))
}
