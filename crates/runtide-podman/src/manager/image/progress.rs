//! [`Goal`]: what was asked of the service, and what its lines say of the result.

use std::collections::BTreeSet;

use bytes::Bytes;
use runtide_core::{
    ErrorKind, ImageRef,
    manager::{ImageProgress, LayerStep},
};
use runtide_engine::{
    image::{self, Reference},
    progress::Progress,
};

/// The request, and the service's words about its result so far.
#[derive(Debug)]
pub(super) enum Goal {
    Pull {
        name: String,
        /// Id in the last line.
        id: Option<String>,
        /// Layers whose transfer has begun, and whose end was not reported.
        transferring: BTreeSet<String>,
    },
    Import {
        loaded: Vec<ImageRef>,
    },
    Build {
        /// Id in the last line so far, if it is one: a step may print one as well, but not behind the end.
        id: Option<String>,
    },
}

impl Goal {
    pub(super) fn pull(name: String) -> Self {
        Self::Pull { name, id: None, transferring: BTreeSet::new() }
    }

    pub(super) fn import() -> Self {
        Self::Import { loaded: Vec::new() }
    }

    pub(super) fn build() -> Self {
        Self::Build { id: None }
    }
}

/// A whole id, as `sha256:…`.
pub(super) fn id_of(text: &str) -> Option<String> {
    match Reference::parse(text) {
        Ok(Reference::Id(id)) => Some(id),
        _ => None,
    }
}

/// The layer of a line, and the step that it is at. Podman counts its bytes for a terminal only.
fn layer(text: &str) -> Option<(&str, LayerStep)> {
    let mut words = text.strip_prefix("Copying blob ")?.split_whitespace();
    let id = words.next()?;
    match words.next() {
        None => Some((id, LayerStep::Transferring)),
        Some("done" | "skipped:") => Some((id, LayerStep::Complete)),
        Some(_) => None,
    }
}

impl image::Goal for Goal {
    fn note(&mut self, line: &Progress) {
        match self {
            Self::Pull { id, .. } => {
                if let Some(pulled) = line.id.as_deref().or(line.images.last().map(String::as_str)) {
                    *id = id_of(pulled);
                }
            }
            Self::Import { loaded } => loaded
                .extend(line.images.iter().map(|image| ImageRef::from(id_of(image).unwrap_or_else(|| image.clone())))),
            Self::Build { id } => *id = line.stream.as_deref().and_then(|text| id_of(text.strip_suffix('\n')?)),
        }
    }

    fn step(&mut self, line: Progress) -> Vec<ImageProgress> {
        let Some(text) = line.stream else { return Vec::new() };
        let at = |id: String, step| ImageProgress::Layer { id, step, done: 0, total: None };
        let Self::Pull { transferring, .. } = self else { return vec![ImageProgress::Output(Bytes::from(text))] };
        if let Some((id, step)) = layer(&text) {
            if step == LayerStep::Complete {
                transferring.remove(id);
            } else {
                transferring.insert(id.to_owned());
            }
            return vec![at(id.to_owned(), step)];
        }
        // The configuration is copied when all layers are there; their own ends are shown to a terminal only.
        let ended = if text.starts_with("Copying config ") { std::mem::take(transferring) } else { BTreeSet::new() };
        let ended = ended.into_iter().map(|id| at(id, LayerStep::Complete));
        ended.chain([ImageProgress::Output(Bytes::from(text))]).collect()
    }

    fn results(&self) -> Result<Vec<ImageRef>, (ErrorKind, &'static str)> {
        match self {
            Self::Pull { name, id: Some(_), .. } => Ok(vec![ImageRef::from(name.as_str())]),
            Self::Pull { .. } => Err((ErrorKind::Protocol, "the pull ended without a result")),
            Self::Import { loaded } if loaded.is_empty() => {
                Err((ErrorKind::InvalidInput, "there is no image in the archive"))
            }
            Self::Import { loaded } => Ok(loaded.clone()),
            Self::Build { id: Some(id) } => Ok(vec![ImageRef::from(id.as_str())]),
            Self::Build { id: None } => Err((ErrorKind::Protocol, "the build ended without a result")),
        }
    }

    fn id(&self) -> Option<&str> {
        match self {
            Self::Pull { id, .. } => id.as_deref(),
            _ => None,
        }
    }

    fn image(&self) -> Option<&str> {
        match self {
            Self::Pull { name, .. } => Some(name),
            _ => None,
        }
    }
}
