//! Export and import of a volume's contents, through a [`Helper`] where libpod has no request for it.

use runtide_core::{ErrorKind, Result, manager::ByteReader};
use runtide_engine::{Request, volume::Volume};

use super::{
    On,
    helper::{FOLDER, Helper, refused},
};

/// First version that exports a volume by itself.
const EXPORT_SINCE: (u32, u32) = (5, 6);

pub(super) async fn export(on: On<'_>) -> Result<ByteReader> {
    let volume = on.volume().await?;
    if on.client.server().await?.is_at_least(EXPORT_SINCE) {
        let path = format!("/volumes/{}/export", on.name);
        let opened = on.client.open(on.operation, Request::get(path)).await;
        return Ok(on.transfer().download(opened.map_err(|error| on.located(error))?, None, None));
    }
    let transfer = on.transfer();
    let helper = transfer.while_alive(Box::pin(Helper::of_copy(on, &volume))).await?;
    // Podman packs the whole of it before it answers.
    let opened = transfer.while_alive(on.client.open_unbounded(on.operation, Request::get(helper.packs())));
    match opened.await {
        Ok(response) => Ok(transfer.download(response, Some(FOLDER), Some(helper.guard))),
        Err(error) => helper.guard.settle(Err(on.located(error))).await,
    }
}

pub(super) async fn import(on: On<'_>, archive: ByteReader) -> Result<()> {
    // Before anything is read, so that a caller who is wrong learns it at once.
    on.volume().await?;
    let transfer = on.transfer();
    // Podman takes mode and owner of the volume's own folder out of the archive.
    let (whole, _) = transfer.collect(archive).await?;
    let helper = helper(on).await?;
    let sent = transfer.upload(helper.unpacks(), whole).await.map_err(|error| refused(on, error));
    helper.guard.undo().await;
    sent
}

/// The helper of a volume that exists, and still does. Podman makes a missing one.
async fn helper(on: On<'_>) -> Result<Helper> {
    let volume: Volume = on.volume().await?;
    let helper = Helper::of_volume(on, &volume).await?;
    match on.volume().await {
        Ok(now) if now.is_still(&volume) => Ok(helper),
        Ok(_) => {
            helper.guard.undo().await;
            // The volume that has the name now stays: if it is not Podman's, made for the helper, it is another client's.
            Err(on.error(ErrorKind::NotFound, "the volume was removed as its transfer began"))
        }
        Err(error) => helper.guard.settle(Err(error)).await,
    }
}
