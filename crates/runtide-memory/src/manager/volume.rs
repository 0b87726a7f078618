//! Volumes: create, remove, export, import.

use std::io::Cursor;

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, Result,
    manager::{ByteReader, Effect, VolumeId, VolumeInfo, VolumeManager, VolumeSpec},
};
use tokio::io::AsyncReadExt;

use crate::{client::Client, fault::Call};

/// A volume is kept in memory: an archive larger than this, in bytes, is refused.
const LARGEST_ARCHIVE: u64 = 256 << 20;

#[async_trait]
impl VolumeManager for Client {
    async fn create(&self, spec: &VolumeSpec) -> Result<VolumeId> {
        self.ask(Call::Volumes, |state| state.create_volume(spec)).await
    }

    async fn remove(&self, volume: &VolumeId) -> Result<Effect> {
        self.ask(Call::Volumes, |state| state.remove_volume(volume)).await
    }

    async fn list(&self) -> Result<Vec<VolumeInfo>> {
        self.ask(Call::Volumes, |state| Ok(state.list_volumes())).await
    }

    async fn inspect(&self, volume: &VolumeId) -> Result<VolumeInfo> {
        self.ask(Call::Volumes, |state| state.volume(volume, Call::Volumes)).await
    }

    async fn export(&self, volume: &VolumeId) -> Result<ByteReader> {
        let archive = self.ask(Call::Transfer, |state| state.export_volume(volume)).await?;
        Ok(Box::pin(Cursor::new(archive)))
    }

    async fn import(&self, volume: &VolumeId, archive: ByteReader) -> Result<()> {
        let failed = |kind, message: &str| Error::new(kind, Call::Transfer.operation(), message);
        self.open_ended(Call::Transfer, async {
            let mut whole = Vec::new();
            let read = archive.take(LARGEST_ARCHIVE + 1).read_to_end(&mut whole).await;
            read.map_err(|error| failed(ErrorKind::Unexpected, "the archive cannot be read").with_source(error))?;
            if whole.len() as u64 > LARGEST_ARCHIVE {
                return Err(failed(ErrorKind::InvalidInput, "the archive is larger than 256 MiB"));
            }
            self.runtime.with(|state| state.import_volume(volume, &whole.into()))
        })
        .await
    }
}
