//! Images: list, pull, import, build, tag, remove.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    instance::ImageRef,
    labels::Labels,
    manager::{ByteReader, Effect, Secret},
    names::{setters, streams},
};

/// Images. Long verbs stream their progress and end with `Done`; dropping the stream abandons the work.
#[async_trait]
pub trait ImageManager: fmt::Debug + Send + Sync {
    /// Every image that is there.
    async fn list(&self) -> Result<Vec<ImageInfo>>;

    /// True if it is there; an `Err` is not a no.
    async fn exists(&self, image: &ImageRef) -> Result<bool>;

    /// All that is known of one.
    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo>;

    /// Fetches it from its registry.
    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream>;

    /// Loads an image archive.
    async fn import(&self, archive: ByteReader) -> Result<ImageStream>;

    /// Builds one.
    async fn build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream>;

    /// Gives it one more name.
    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()>;

    /// Removes a name, and the image with its last name; what is gone already is `Unchanged`.
    async fn remove(&self, image: &ImageRef) -> Result<Effect>;
}

/// What a build sees.
#[non_exhaustive]
pub enum BuildContext {
    /// Read with its ignore file honoured.
    Directory(PathBuf),
    /// A tar stream.
    Tar(ByteReader),
}

impl fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Tar(_) => f.write_str("Tar(..)"),
        }
    }
}

/// How to pull. No credentials: anonymous.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// `os/arch`.
    pub platform: Option<String>,
    /// For the registry.
    pub username: Option<String>,
    /// For the registry.
    pub password: Option<Secret>,
}

setters!(PullOptions {
    /// `os/arch`.
    with_platform: platform: Option<String>;
    /// For the registry.
    with_username: username: Option<String>;
    /// For the registry.
    with_password: password: Option<Secret>;
});

/// How to build. Paths are relative to the context.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BuildOptions {
    /// `None`: `Dockerfile`.
    pub dockerfile: Option<PathBuf>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Stop at this stage.
    pub target: Option<String>,
    /// Names of the result.
    pub tags: Vec<ImageRef>,
    /// Labels of the result.
    pub labels: Labels,
    /// Build every step again.
    pub no_cache: bool,
}

setters!(BuildOptions {
    /// The file to build from.
    with_dockerfile: dockerfile: Option<PathBuf>;
    /// Build arguments.
    with_args: args: BTreeMap<String, String>;
    /// Stop at this stage.
    with_target: target: Option<String>;
    /// Names of the result.
    with_tags: tags: Vec<ImageRef>;
    /// Labels of the result.
    with_labels: labels: Labels;
    /// Build every step again.
    with_no_cache: no_cache;
});

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its id.
    pub id: ImageRef,
    /// Its names.
    pub tags: Vec<ImageRef>,
    /// Size on disk.
    pub bytes: Option<u64>,
    /// When it was built.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
    /// Its labels.
    pub labels: Labels,
    /// The user it runs as.
    pub user: Option<String>,
    /// That user's home directory, read from the image, never guessed.
    pub user_home: Option<PathBuf>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
}

impl ImageInfo {
    /// An image of which nothing more is known.
    pub fn new(id: impl Into<ImageRef>) -> Self {
        Self {
            id: id.into(),
            tags: Vec::new(),
            bytes: None,
            created_at: None,
            labels: Labels::default(),
            user: None,
            user_home: None,
            env: Vec::new(),
            entrypoint: Vec::new(),
        }
    }
}

/// How far a pull, import or build is. Counts are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageProgress {
    /// One layer.
    Layer {
        /// Its id.
        id: String,
        /// So much is done.
        done: u64,
        /// Of so much, where it is known.
        total: Option<u64>,
    },
    /// Output of the build.
    Output(Bytes),
    /// The image is there.
    Done(ImageRef),
}

streams! {
    /// Progress; its last item is `Done` or an `Err`.
    ImageStream => ImageProgress;
}
