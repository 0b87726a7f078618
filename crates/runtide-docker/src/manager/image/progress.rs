//! [`Goal`]: what was asked of the daemon, and what its lines say of the result.

use bytes::Bytes;
use runtide_core::{
    ErrorKind, ImageRef, RuntimeKind,
    manager::{ImageProgress, LayerStep},
};
use runtide_engine::{image, progress::Progress};

use crate::client::Client;

/// The request, and the daemon's words about its result so far.
#[derive(Debug)]
pub(super) enum Goal {
    Pull {
        name: String,
        /// The line came that ends a pull that succeeded. A Podman behind the socket ends a pull in its own words.
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
    /// The pull of this name from a daemon that has answered.
    pub(super) fn pull(client: &Client, name: &image::Name) -> Self {
        let is_docker = client.last_server().is_none_or(|server| server.kind == RuntimeKind::Docker);
        Self::Pull { name: name.to_string(), succeeded: !is_docker }
    }

    pub(super) fn import() -> Self {
        Self::Import { loaded: Vec::new() }
    }

    pub(super) fn build() -> Self {
        Self::Build { id: None }
    }
}

/// One line as an item of the stream; `None`: it shows nothing.
fn item_of(line: Progress) -> Option<ImageProgress> {
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

impl image::Goal for Goal {
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

    fn step(&mut self, line: Progress) -> Vec<ImageProgress> {
        item_of(line).into_iter().collect()
    }

    fn results(&self) -> Result<Vec<ImageRef>, (ErrorKind, &'static str)> {
        match self {
            Self::Pull { name, succeeded: true } => Ok(vec![ImageRef::from(name.as_str())]),
            Self::Pull { .. } => Err((ErrorKind::Protocol, "the pull ended without a result")),
            Self::Import { loaded } if loaded.is_empty() => {
                Err((ErrorKind::InvalidInput, "there is no image in the archive"))
            }
            Self::Import { loaded } => Ok(loaded.clone()),
            Self::Build { id: Some(id) } => Ok(vec![id.clone()]),
            Self::Build { id: None } => Err((ErrorKind::Protocol, "the build ended without a result")),
        }
    }

    fn image(&self) -> Option<&str> {
        match self {
            Self::Pull { name, .. } => Some(name),
            _ => None,
        }
    }
}
