//! Export and import of a volume's contents, through a [`Helper`].

use runtide_core::{Error, ErrorKind, Result, manager::ByteReader};
use runtide_engine::Request;

use super::{
    On,
    helper::{ENTRY, Helper},
};

/// The helper of a volume that exists, and still does. The daemon makes a missing one.
async fn helper(on: On<'_>) -> Result<Helper> {
    let volume = on.volume().await?;
    let helper = Helper::make(on, &volume).await?;
    match on.volume().await {
        Ok(now) if now.is_still(&volume) => Ok(helper),
        Ok(_) => {
            helper.guard.undo().await;
            // If the daemon made the volume that has the name now, for the helper, it went with the helper; else it is another client's.
            Err(on.error(ErrorKind::NotFound, "the volume was removed as its transfer began"))
        }
        Err(error) => helper.guard.settle(Err(error)).await,
    }
}

pub(super) async fn export(on: On<'_>) -> Result<ByteReader> {
    let helper = helper(on).await?;
    match on.client.open(on.operation, Request::get(helper.archive())).await {
        Ok(response) => Ok(on.transfer().download(response, None, Some(helper.guard))),
        Err(error) => helper.guard.settle(Err(on.located(error))).await,
    }
}

pub(super) async fn import(on: On<'_>, archive: ByteReader) -> Result<()> {
    // Before anything is read, so that a caller who is wrong learns it at once.
    on.volume().await?;
    let transfer = on.transfer();
    let (whole, root) = transfer.collect(archive).await?;
    let helper = helper(on).await?;
    let sent = async {
        transfer.upload(helper.archive(), whole).await?;
        // The daemon leaves the folder into which it unpacks as it is: its mode and owner come as an entry of the one above.
        let Some(root) = root else { return Ok(()) };
        transfer.upload(helper.above(), transfer.folder(root, ENTRY).await?).await
    };
    let sent = sent.await.map_err(|error| refused(on, error));
    helper.guard.undo().await;
    sent
}

/// The daemon has one status for all that fails as it unpacks; a name or link that leads out of the volume is the archive's.
fn refused(on: On<'_>, error: Error) -> Error {
    let leads_out = ["is outside of", "invalid symlink", "invalid hardlink"];
    if leads_out.iter().any(|why| error.message().contains(why)) {
        return on.error(ErrorKind::InvalidInput, error.message());
    }
    on.located(error)
}
