//! [`Images`]: list, pull, import, save, build, tag, remove and prune.

mod build;
mod credentials;
mod progress;

use async_trait::async_trait;
use futures_util::{TryStreamExt, stream};
use runtide_core::{
    ErrorKind, ImageRef, Result,
    manager::{
        BuildContext, BuildOptions, ByteReader, Effect, ImageInfo, ImageManager, ImageStream, PruneOptions, Pruned,
        PullOptions,
    },
};
use runtide_engine::{
    OwnAnswer, Request,
    image::{
        self, Checked, Description, Homes, Name, Running, Upload, as_read_error, checked, failure, named, path_of,
        tag_named, uploaded,
    },
};
use serde::Deserialize;
use tokio_util::io::StreamReader;

use self::progress::Goal;
use crate::client::Client;

const TAR: &str = "application/x-tar";
/// Owner of the container through which an image is read, by its label.
const OWNER: (&str, &str) = ("runtide.owner", "docker.inspect_image");

/// Answer to a prune.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    #[serde(default)]
    images_deleted: Option<Vec<Change>>,
    #[serde(default)]
    space_reclaimed: Option<u64>,
}

/// One image of a prune's answer, which lost a name or is gone.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    #[serde(default)]
    deleted: Option<String>,
}

/// The [`ImageManager`] of one daemon.
#[derive(Debug)]
pub(crate) struct Images {
    client: Client,
    homes: Homes,
}

impl Images {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, homes: Homes::default() }
    }

    /// The image's own description.
    async fn described(&self, operation: &'static str, image: &str) -> Result<Description> {
        let path = format!("/images/{}/json", path_of(image));
        let bytes = self.client.call(operation, Request::get(path), self.client.deadline()).await;
        let bytes = bytes.map_err(|error| error.with_context("image", image))?;
        Description::read(self.client.site(operation), &bytes)
    }
}

#[async_trait]
impl ImageManager for Images {
    async fn list(&self) -> Result<Vec<ImageInfo>> {
        const OPERATION: &str = "docker.list_images";
        let bytes = self.client.call(OPERATION, Request::get("/images/json"), self.client.deadline()).await?;
        image::list(self.client.site(OPERATION), &bytes)
    }

    async fn exists(&self, image: &ImageRef) -> Result<bool> {
        const OPERATION: &str = "docker.inspect_image";
        let image = &checked(self.client.site(OPERATION), image)?;
        match self.described(OPERATION, image).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo> {
        const OPERATION: &str = "docker.inspect_image";
        let described = self.described(OPERATION, &checked(self.client.site(OPERATION), image)?).await?;
        let create = |name: &str| {
            let body = serde_json::json!({
                "Image": described.id(), "Entrypoint": ["/"], "Labels": {OWNER.0: OWNER.1}, "NetworkDisabled": true,
            });
            Request::post("/containers/create").with_query("name", name).with_json(&body)
        };
        let home = self.homes.of(&self.client, OPERATION, &described, create).await?;
        let mut info = described.into_info();
        info.user_home = home;
        Ok(info)
    }

    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream> {
        const OPERATION: &str = "docker.pull_image";
        let site = self.client.site(OPERATION);
        let name = named(site, image)?.exact();
        let reference = name.digest().or(name.tag()).unwrap_or_default();
        let mut request =
            Request::post("/images/create").with_query("fromImage", name.repository()).with_query("tag", reference);
        if let Some(platform) = &options.platform {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.-".contains(&byte);
            if platform.is_empty() || !platform.bytes().all(allowed) {
                return Err(site
                    .error(ErrorKind::InvalidInput, "a platform is os/arch or os/arch/variant")
                    .with_context("platform", platform.escape_debug()));
            }
            request = request.with_query("platform", platform);
        }
        let auth = credentials::of_registry(&self.client, OPERATION, name.registry(), options.credentials).await?;
        if let Some(auth) = auth {
            request = request.with_header("X-Registry-Auth", auth.header().expose());
        }
        let answer = OwnAnswer::open(&self.client, OPERATION, request, Some(self.client.deadline())).await;
        let answer = answer.map_err(|error| failure::of_answer(site, error).with_context("image", &name))?;
        let goal = Goal::pull(&self.client, &name);
        Ok(ImageStream::new(Running::new(answer, goal, None).into_stream()))
    }

    async fn import(&self, archive: ByteReader) -> Result<ImageStream> {
        const OPERATION: &str = "docker.import_image";
        // The daemon answers when it has read the archive: what can be known before is known when this call ends.
        self.client.server().await?;
        let (upload, body) = Upload::of_archive(archive);
        let request = Request::post("/images/load?quiet=0").with_body(body, TAR);
        Ok(uploaded(&self.client, OPERATION, request, upload, Goal::import()))
    }

    async fn save(&self, images: &[ImageRef]) -> Result<ByteReader> {
        const OPERATION: &str = "docker.save_images";
        let site = self.client.site(OPERATION);
        if images.is_empty() {
            return Err(site.error(ErrorKind::InvalidInput, "no image is named"));
        }
        let mut request = Request::get("/images/get");
        for image in images {
            let text = &checked(self.client.site(OPERATION), image)?;
            let info = self.described(OPERATION, text).await?.into_info();
            // A name without a tag would be all images of that name.
            let exact = Name::parse(text).map(|name| ImageRef::from(name.exact().to_string()));
            let named = exact.ok().filter(|exact| info.tags.contains(exact));
            request = request.with_query("names", named.as_ref().map_or(&**text, ImageRef::as_str));
        }
        // The daemon prepares all of the archive before it answers.
        let client = self.client.clone();
        let opened = async move { OwnAnswer::open(&client, OPERATION, request, None).await };
        let bytes = stream::once(opened).try_flatten().map_err(as_read_error);
        Ok(Box::pin(StreamReader::new(Checked::new(bytes))))
    }

    async fn build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream> {
        self.begin_build(context, options).await
    }

    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()> {
        const OPERATION: &str = "docker.tag_image";
        let (image, name) =
            (&checked(self.client.site(OPERATION), image)?, tag_named(self.client.site(OPERATION), tag)?);
        let request = Request::post(format!("/images/{}/tag", path_of(image)))
            .with_query("repo", name.repository())
            .with_query("tag", name.tag().unwrap_or_default());
        let tagged = self.client.call(OPERATION, request, self.client.deadline()).await;
        tagged.map(drop).map_err(|error| error.with_context("image", image).with_context("tag", &name))
    }

    async fn remove(&self, image: &ImageRef) -> Result<Effect> {
        const OPERATION: &str = "docker.remove_image";
        let image = &checked(self.client.site(OPERATION), image)?;
        let request = Request::delete(format!("/images/{}", path_of(image)));
        match self.client.call(OPERATION, request, self.client.deadline()).await {
            Ok(_) => Ok(Effect::Changed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Effect::Unchanged),
            Err(error) => Err(error.with_context("image", image)),
        }
    }

    async fn prune(&self, options: PruneOptions) -> Result<Pruned> {
        const OPERATION: &str = "docker.prune_images";
        let labels: Vec<_> = options.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let dangling = if options.named { "false" } else { "true" };
        let filters = serde_json::json!({"dangling": [dangling], "label": labels});
        let request = Request::post("/images/prune").with_query("filters", filters);
        let bytes = self.client.call(OPERATION, request, self.client.deadline()).await?;
        let reply: Reply =
            serde_json::from_slice(&bytes).map_err(|error| self.client.site(OPERATION).undecodable(error))?;
        let gone = reply.images_deleted.into_iter().flatten().filter_map(|change| change.deleted);
        Ok(Pruned::new(gone.map(ImageRef::from).collect(), reply.space_reclaimed))
    }
}
