//! [`Images`]: list, pull, import, save, build, tag, remove and prune.
//!
//! A name goes to Podman as the caller wrote it: it resolves short names by its own configuration, and never to Docker Hub alone.

mod build;
mod credentials;
mod progress;
mod prune;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use runtide_core::{
    Error, ErrorKind, ImageRef, Result,
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
use tokio_util::io::StreamReader;

use self::progress::Goal;
use crate::client::Client;

const TAR: &str = "application/x-tar";
/// Attempts of a listing, and the pause between two.
const LISTINGS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Words of a listing that met an image which is being removed, or stored.
const FLEETING: [&str; 3] = ["image not known", "layer not known", "locating item named \"manifest\""];
/// Owner of the container through which an image is read, by its label.
const OWNER: (&str, &str) = ("runtide.owner", "podman.inspect_image");

/// The [`ImageManager`] of one service.
#[derive(Debug)]
pub(crate) struct Images {
    client: Client,
    homes: Homes,
}

impl Images {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, homes: Homes::default() }
    }

    /// The list of images. Podman fails in it where another client builds or removes one at that moment, and is asked again.
    async fn listed(&self, operation: &'static str) -> Result<Bytes> {
        let mut attempts = LISTINGS;
        loop {
            let listed = self.client.call(operation, Request::get("/images/json"), self.client.deadline()).await;
            attempts -= 1;
            match listed {
                Err(error) if attempts > 0 && FLEETING.iter().any(|words| error.message().contains(words)) => {
                    tokio::time::sleep(PAUSE).await;
                }
                listed => return listed,
            }
        }
    }

    /// The image's own description.
    async fn described(&self, operation: &'static str, image: &str) -> Result<Description> {
        let path = format!("/images/{}/json", path_of(image));
        let bytes = self.client.call(operation, Request::get(path), self.client.deadline()).await;
        let bytes = bytes.map_err(|error| self.not_found(operation, image, error))?;
        Description::read(self.client.site(operation), &bytes)
    }

    /// The error of a look-up. Podman answers 404 to whatever went wrong in it, and that is not all absence.
    fn not_found(&self, operation: &'static str, image: &str, error: Error) -> Error {
        let message = error.message();
        let is_absent = message.ends_with("image not known") || message == format!("failed to find image {image}");
        if error.kind() != ErrorKind::NotFound || is_absent {
            return error.with_context("image", image);
        }
        let kind =
            if message.contains("invalid reference format") { ErrorKind::InvalidInput } else { ErrorKind::Unexpected };
        self.client.site(operation).error(kind, message).with_context("image", image)
    }
}

/// The name as it is written, with at most one of tag and digest: Podman pulls none that has both.
fn exact(image: &str, name: &Name) -> String {
    match (name.tag(), name.digest()) {
        (Some(tag), Some(digest)) => image.replacen(&format!(":{tag}@{digest}"), &format!("@{digest}"), 1),
        (None, None) => format!("{image}:latest"),
        _ => image.to_owned(),
    }
}

#[async_trait]
impl ImageManager for Images {
    async fn list(&self) -> Result<Vec<ImageInfo>> {
        const OPERATION: &str = "podman.list_images";
        let bytes = self.listed(OPERATION).await?;
        image::list(self.client.site(OPERATION), &bytes)
    }

    async fn exists(&self, image: &ImageRef) -> Result<bool> {
        const OPERATION: &str = "podman.inspect_image";
        let image = &checked(self.client.site(OPERATION), image)?;
        let request = Request::get(format!("/images/{}/exists", path_of(image)));
        match self.client.call(OPERATION, request, self.client.deadline()).await {
            Ok(_) => Ok(true),
            Err(error) => match self.not_found(OPERATION, image, error) {
                error if error.kind() == ErrorKind::NotFound => Ok(false),
                error => Err(error),
            },
        }
    }

    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo> {
        const OPERATION: &str = "podman.inspect_image";
        let described = self.described(OPERATION, &checked(self.client.site(OPERATION), image)?).await?;
        let create = |name: &str| {
            // As root: a user or a group that the image names and does not have would keep its files from being read.
            let body = serde_json::json!({
                "user": "0:0", "name": name, "image": described.id(), "entrypoint": ["/"], "labels": {OWNER.0: OWNER.1},
                "netns": {"nsmode": "none"}, "image_volume_mode": "ignore",
            });
            Request::post("/containers/create").with_json(&body)
        };
        let home = self.homes.of(&self.client, OPERATION, &described, create).await?;
        let mut info = described.into_info();
        info.user_home = home;
        Ok(info)
    }

    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream> {
        const OPERATION: &str = "podman.pull_image";
        let site = self.client.site(OPERATION);
        let name = named(site, image)?;
        let exact = exact(image.as_str(), &name);
        let mut request = Request::post("/images/pull").with_query("reference", &exact);
        if let Some(platform) = &options.platform {
            let parts: Vec<&str> = platform.split('/').collect();
            let is_word = |part: &&str| {
                !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
            };
            if !(2..=3).contains(&parts.len()) || !parts.iter().all(is_word) {
                return Err(site
                    .error(ErrorKind::InvalidInput, "a platform is os/arch or os/arch/variant")
                    .with_context("platform", platform.escape_debug()));
            }
            for (key, part) in ["OS", "Arch", "Variant"].into_iter().zip(parts) {
                request = request.with_query(key, part);
            }
        }
        let auth = credentials::of_pull(&self.client, OPERATION, &exact, &name, options.credentials).await?;
        if let Some(header) = auth {
            request = request.with_header("X-Registry-Auth", header.expose());
        }
        let answer = OwnAnswer::open(&self.client, OPERATION, request, Some(self.client.deadline())).await;
        let answer = answer.map_err(|error| failure::of_answer(site, error).with_context("image", &exact))?;
        Ok(ImageStream::new(Running::new(answer, Goal::pull(exact), None).into_stream()))
    }

    async fn import(&self, archive: ByteReader) -> Result<ImageStream> {
        const OPERATION: &str = "podman.import_image";
        // The service answers when it has read the archive: what can be known before is known when this call ends.
        self.client.server().await?;
        let (upload, body) = Upload::of_archive(archive);
        let request = Request::post("/images/load").with_body(body, TAR);
        Ok(uploaded(&self.client, OPERATION, request, upload, Goal::import()))
    }

    async fn save(&self, images: &[ImageRef]) -> Result<ByteReader> {
        const OPERATION: &str = "podman.save_images";
        let site = self.client.site(OPERATION);
        if images.is_empty() {
            return Err(site.error(ErrorKind::InvalidInput, "no image is named"));
        }
        let mut request = Request::get("/images/export?format=docker-archive");
        for image in images {
            let text = &checked(site, image)?;
            // The export answers 400 to an image that it does not have.
            self.described(OPERATION, text).await?;
            request = request.with_query("references", text);
        }
        // The service prepares all of the archive before it answers.
        let client = self.client.clone();
        let opened = async move { OwnAnswer::open(&client, OPERATION, request, None).await };
        let bytes = stream::once(opened).try_flatten().map_err(as_read_error);
        Ok(Box::pin(StreamReader::new(Checked::new(bytes))))
    }

    async fn build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream> {
        self.begin_build(context, options).await
    }

    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()> {
        const OPERATION: &str = "podman.tag_image";
        let site = self.client.site(OPERATION);
        let (image, name) = (&checked(site, image)?, tag_named(site, tag)?);
        let version = name.tag().unwrap_or_default();
        let repository = tag.as_str().strip_suffix(version).and_then(|rest| rest.strip_suffix(':'));
        let request = Request::post(format!("/images/{}/tag", path_of(image)))
            .with_query("repo", repository.unwrap_or(tag.as_str()))
            .with_query("tag", version);
        let tagged = self.client.call(OPERATION, request, self.client.deadline()).await;
        tagged.map(drop).map_err(|error| self.not_found(OPERATION, image, error).with_context("tag", tag))
    }

    async fn remove(&self, image: &ImageRef) -> Result<Effect> {
        const OPERATION: &str = "podman.remove_image";
        let site = self.client.site(OPERATION);
        let image = checked(site, image)?;
        // `/images/remove` is another request: it removes every image that no container uses.
        let image = if image == "remove" { "remove:latest" } else { &image };
        let request = Request::delete(format!("/images/{}", path_of(image)));
        match self.client.call(OPERATION, request, self.client.deadline()).await {
            Ok(_) => Ok(Effect::Changed),
            Err(error) => {
                let error = failure::of_answer(site, self.not_found(OPERATION, image, error));
                if error.kind() == ErrorKind::NotFound { Ok(Effect::Unchanged) } else { Err(error) }
            }
        }
    }

    async fn prune(&self, options: PruneOptions) -> Result<Pruned> {
        prune::prune(self, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_sent_as_it_is_written_with_a_tag_or_a_digest() {
        let digest = "sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";
        for (text, sent) in [
            ("busybox", "busybox:latest".to_owned()),
            ("a/b:1", "a/b:1".to_owned()),
            ("localhost:5000/a", "localhost:5000/a:latest".to_owned()),
            (&format!("a.b/c@{digest}"), format!("a.b/c@{digest}")),
            (&format!("a.b/c:1@{digest}"), format!("a.b/c@{digest}")),
        ] {
            assert_eq!(exact(text, &Name::parse(text).unwrap()), sent);
        }
    }
}
