//! [`Running`]: a pull, a load or a build under way, from the daemon's lines to the image that is there.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use runtide_core::{
    Error, ErrorKind, ImageRef, Result, RuntimeKind,
    manager::{ImageProgress, LayerStep},
};
use runtide_engine::{
    OwnAnswer, Request,
    image::Name,
    progress::{Progress, ProgressBody},
};

use super::{description, failure, path_of, upload::Upload};
use crate::client::{Client, Docker};

/// The request, and the daemon's words about its result so far.
#[derive(Debug)]
pub(super) enum Goal {
    Pull {
        name: Name,
        /// The line came that ends a pull that succeeded.
        succeeded: bool,
    },
    Import {
        loaded: Vec<ImageRef>,
    },
    Build {
        id: Option<ImageRef>,
    },
}

impl Goal {
    pub(super) fn pull(name: Name) -> Self {
        Self::Pull { name, succeeded: false }
    }

    pub(super) fn import() -> Self {
        Self::Import { loaded: Vec::new() }
    }

    pub(super) fn build() -> Self {
        Self::Build { id: None }
    }

    /// Notes what a line says of the result.
    fn note(&mut self, line: &Progress) {
        match self {
            Self::Pull { succeeded, .. } => {
                *succeeded |= line.status.as_deref().is_some_and(|status| status.starts_with("Status: "));
            }
            Self::Import { loaded } => {
                for text in line.stream.iter().flat_map(|text| text.lines()) {
                    let image = text.strip_prefix("Loaded image ID: ").or_else(|| text.strip_prefix("Loaded image: "));
                    // Podman names all of them in one line.
                    let images = image.into_iter().flat_map(|images| images.split(',')).map(str::trim);
                    loaded.extend(images.filter(|image| !image.is_empty()).map(ImageRef::from));
                }
            }
            Self::Build { id } => {
                let built = line.aux.as_ref().and_then(|aux| aux.get("ID")).and_then(serde_json::Value::as_str);
                if let Some(built) = built {
                    *id = Some(ImageRef::from(built));
                }
            }
        }
    }

    /// The images that must be there now, or the reason why there are none.
    fn results(&self, kind: &RuntimeKind) -> std::result::Result<Vec<ImageRef>, (ErrorKind, &'static str)> {
        match self {
            // A Podman behind the socket ends a pull in its own words.
            Self::Pull { name, succeeded } if *succeeded || *kind != RuntimeKind::Docker => {
                Ok(vec![ImageRef::from(name.to_string())])
            }
            Self::Pull { .. } => Err((ErrorKind::Protocol, "the pull ended without a result")),
            Self::Import { loaded } if loaded.is_empty() => {
                Err((ErrorKind::InvalidInput, "there is no image in the archive"))
            }
            Self::Import { loaded } => Ok(loaded.clone()),
            Self::Build { id: Some(id) } => Ok(vec![id.clone()]),
            Self::Build { id: None } => Err((ErrorKind::Protocol, "the build ended without a result")),
        }
    }
}

#[derive(Debug)]
pub(super) struct Running {
    client: Client,
    operation: &'static str,
    body: ProgressBody<Docker>,
    goal: Goal,
    upload: Option<Upload>,
    ready: VecDeque<ImageProgress>,
    over: bool,
}

impl Running {
    pub(super) fn new(
        client: &Client,
        operation: &'static str,
        answer: OwnAnswer<Docker>,
        goal: Goal,
        upload: Option<Upload>,
    ) -> Self {
        let body = ProgressBody::new(answer);
        Self { client: client.clone(), operation, body, goal, upload, ready: VecDeque::new(), over: false }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<ImageProgress>> + Send + 'static {
        stream::unfold(self, |mut running| async move {
            let item = running.next().await.transpose()?;
            running.over |= item.is_err();
            Some((item, running))
        })
    }

    async fn next(&mut self) -> Result<Option<ImageProgress>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.over {
                return Ok(None);
            }
            match self.body.next().await {
                Ok(Some(line)) => {
                    if let Some(message) = &line.error {
                        return Err(self.reason(|site| failure::of_message(site, message)));
                    }
                    self.goal.note(&line);
                    self.ready.extend(steps(line));
                }
                Ok(None) => {
                    self.over = true;
                    self.ready = self.finish().await?.into_iter().map(ImageProgress::Done).collect();
                }
                Err(error) => return Err(self.reason(|_| error)),
            }
        }
    }

    /// The failure of the upload, if that is why.
    fn reason(&self, other: impl FnOnce(runtide_core::backend::CallSite<'_>) -> Error) -> Error {
        let site = self.client.site(self.operation);
        let error = self.upload.as_ref().and_then(|upload| upload.failure(site)).unwrap_or_else(|| other(site));
        match &self.goal {
            Goal::Pull { name, .. } => error.with_context("image", name),
            _ => error,
        }
    }

    /// The images, once the daemon has shown them: a success in words alone is none.
    async fn finish(&mut self) -> Result<Vec<ImageRef>> {
        let kind = self.client.last_server().map_or(RuntimeKind::Docker, |server| server.kind.clone());
        let results = self.goal.results(&kind).map_err(|(kind, why)| self.reason(|site| site.error(kind, why)))?;
        let mut found = Vec::new();
        for image in results {
            let request = Request::get(format!("/images/{}/json", path_of(image.as_str())));
            let json = self.client.call(self.operation, request, self.client.deadline()).await;
            let json = json.map_err(|error| error.with_context("image", &image))?;
            let id = description::Image::read(self.client.site(self.operation), &json)?.id().to_owned();
            found.push((image, id));
        }
        // The daemon's list of ids may have those of the named images as well, or not, as the order of the archive falls.
        let is_named = |id: &str| found.iter().any(|(image, other)| other == id && image.as_str() != id);
        let repeated: Vec<bool> = found.iter().map(|(image, id)| image.as_str() == id && is_named(id)).collect();
        let kept = found.into_iter().zip(repeated).filter(|(_, repeated)| !repeated);
        Ok(kept.map(|((image, _), _)| image).collect())
    }
}

/// One line as items of the stream.
fn steps(line: Progress) -> Option<ImageProgress> {
    if let Some(text) = line.stream {
        return Some(ImageProgress::Output(Bytes::from(text)));
    }
    let status = line.status?;
    let Some(id) = line.id else { return Some(ImageProgress::Output(Bytes::from(status + "\n"))) };
    let step = match status.as_str() {
        "Pulling fs layer" | "Waiting" | "Preparing" => LayerStep::Waiting,
        "Downloading" => LayerStep::Transferring,
        "Verifying Checksum" | "Download complete" | "Extracting" | "Loading layer" => LayerStep::Unpacking,
        "Pull complete" | "Already exists" => LayerStep::Complete,
        status if status.starts_with("Retrying in ") => LayerStep::Transferring,
        _ => return Some(ImageProgress::Output(Bytes::from(format!("{id}: {status}\n")))),
    };
    let (done, total) = line.bytes.unwrap_or_default();
    Some(ImageProgress::Layer { id, step, done, total })
}
