//! Images: list, pull, import, tag, remove, prune.

use async_trait::async_trait;
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ImageRef, Result,
    manager::{
        BuildContext, BuildOptions, ByteReader, Credentials, Effect, ImageInfo, ImageManager, ImageProgress,
        ImageStream, LayerStep, PruneOptions, Pruned, PullOptions,
    },
};
use tokio::io::AsyncReadExt;

use super::Link;
use crate::{client::Client, fault::Call, runtime::MemoryRuntime};

#[async_trait]
impl ImageManager for Client {
    async fn list(&self) -> Result<Vec<ImageInfo>> {
        self.ask(Call::Images, |state| Ok(state.list_images())).await
    }

    async fn exists(&self, image: &ImageRef) -> Result<bool> {
        self.ask(Call::Images, |state| state.has_image(image)).await
    }

    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo> {
        self.ask(Call::Images, |state| state.image_or_missing(image, Call::Images)).await
    }

    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream> {
        let failed = |kind, message| Err(Error::new(kind, Call::Pull.operation(), message));
        if options.platform.is_some() {
            return failed(ErrorKind::Unsupported, "an image in memory is for every platform");
        }
        if !matches!(options.credentials, Credentials::Stored | Credentials::Anonymous) {
            return failed(ErrorKind::Unsupported, "the registry in memory knows no users");
        }
        let published = |runtime: &MemoryRuntime| runtime.with(|state| state.published(image));
        let (link, (image, layers)) = Link::open(self, Call::Pull, published).await?;
        let layer = |(number, bytes)| ImageProgress::Layer {
            id: format!("layer-{number}"),
            step: LayerStep::Complete,
            done: bytes,
            total: Some(bytes),
        };
        let layers: Vec<_> = layers.into_iter().enumerate().map(layer).collect();
        Ok(progress(link, layers, move |client| Box::pin(async move { Ok(add(&client, image)) })))
    }

    async fn import(&self, archive: ByteReader) -> Result<ImageStream> {
        let (link, ()) = Link::open(self, Call::Import, |_| Ok(())).await?;
        Ok(progress(link, Vec::new(), move |client| Box::pin(async move { Ok(add(&client, read(archive).await?)) })))
    }

    async fn save(&self, _: &[ImageRef]) -> Result<ByteReader> {
        // The runtime does not support this verb, and reports the reason.
        self.ask(Call::Save, |_| Err(Error::new(ErrorKind::Unsupported, Call::Save.operation(), "nothing is kept")))
            .await
    }

    async fn build(&self, _: BuildContext, _: BuildOptions) -> Result<ImageStream> {
        // The runtime does not support this verb, and reports the reason.
        self.ask(Call::Build, |_| Err(Error::new(ErrorKind::Unsupported, Call::Build.operation(), "nothing builds")))
            .await
    }

    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()> {
        self.ask(Call::Images, |state| state.tag_image(image, tag)).await
    }

    async fn remove(&self, image: &ImageRef) -> Result<Effect> {
        self.ask(Call::Images, |state| state.remove_image(image)).await
    }

    async fn prune(&self, options: PruneOptions) -> Result<Pruned> {
        self.ask(Call::Images, |state| Ok(state.prune_images(&options))).await
    }
}

fn add(client: &Client, image: ImageInfo) -> ImageRef {
    let done = image.tags.first().unwrap_or(&image.id).clone();
    client.runtime.with(|state| state.add_image(image));
    done
}

/// The image of an archive: known by its content, of which only size and digest are kept.
async fn read(mut archive: ByteReader) -> Result<ImageInfo> {
    let failed = |kind, message| Error::new(kind, Call::Import.operation(), message);
    let (mut hasher, mut size, mut magic) = (blake3::Hasher::new(), 0_u64, [0_u8; 5]);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = archive
            .read(&mut chunk)
            .await
            .map_err(|error| failed(ErrorKind::Unexpected, "the archive cannot be read").with_source(error))?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        for (place, byte) in (size..).zip(bytes).filter(|(place, _)| (257..262).contains(place)) {
            if let Some(slot) = usize::try_from(place - 257).ok().and_then(|place| magic.get_mut(place)) {
                *slot = *byte;
            }
        }
        size += count as u64;
        hasher.update(bytes);
    }
    if magic != *b"ustar" || size % 512 != 0 {
        return Err(failed(ErrorKind::InvalidInput, "this is not a tar archive"));
    }
    let mut image = ImageInfo::new(format!("blake3:{}", hasher.finalize().to_hex()));
    image.bytes = Some(size);
    Ok(image)
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<ImageRef>> + Send>>;

/// Emits these steps, then does the work: an abandoned stream leaves no image.
fn progress(link: Link, steps: Vec<ImageProgress>, work: impl FnOnce(Client) -> Work + Send + 'static) -> ImageStream {
    let mut steps = steps;
    steps.reverse();
    ImageStream::new(stream::unfold(Some((link, steps, work)), |state| async {
        let (link, mut steps, work) = state?;
        if let Some(step) = steps.pop() {
            return match link.carry(tokio::task::yield_now()).await {
                Ok(()) => Some((Ok(step), Some((link, steps, work)))),
                Err(error) => Some((Err(error), None)),
            };
        }
        let done = link.carry(work(link.client.clone())).await.and_then(|done| done);
        Some((done.map(ImageProgress::Done), None))
    }))
}
