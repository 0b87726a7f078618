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

/// Manages images. Long verbs stream their progress and end with `Done`; dropping the stream abandons the work.
#[async_trait]
pub trait ImageManager: fmt::Debug + Send + Sync {
    /// Lists every image that the runtime has.
    async fn list(&self) -> Result<Vec<ImageInfo>>;

    /// Returns true if the runtime has the image. An `Err` is not a no.
    async fn exists(&self, image: &ImageRef) -> Result<bool>;

    /// Returns all that the runtime reports about one image.
    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo>;

    /// Fetches an image from its registry.
    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream>;

    /// Loads an image archive.
    async fn import(&self, archive: ByteReader) -> Result<ImageStream>;

    /// Builds an image.
    async fn build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream>;

    /// Adds a name to an image.
    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()>;

    /// Removes a name, and the image with its last name; `Unchanged` if it is already gone.
    async fn remove(&self, image: &ImageRef) -> Result<Effect>;
}

/// The files that a build can read.
#[non_exhaustive]
pub enum BuildContext {
    /// A directory; its ignore file is honoured.
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

/// Options of a pull. Without credentials the pull is anonymous.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// Platform as `os/arch`; the runtime's choice if `None`.
    pub platform: Option<String>,
    /// User name for the registry.
    pub username: Option<String>,
    /// Password or token for the registry.
    pub password: Option<Secret>,
}

setters!(PullOptions {
    /// Sets the platform, as `os/arch`.
    with_platform: platform: Option<String>;
    /// Sets the user name for the registry.
    with_username: username: Option<String>;
    /// Sets the password or token for the registry.
    with_password: password: Option<Secret>;
});

/// Options of a build. Paths are relative to the context.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BuildOptions {
    /// The file to build from; `Dockerfile` if `None`.
    pub dockerfile: Option<PathBuf>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Name of the stage at which the build stops; the last if `None`.
    pub target: Option<String>,
    /// Names of the image that is built.
    pub tags: Vec<ImageRef>,
    /// Labels of the image that is built.
    pub labels: Labels,
    /// True to build every step again, without the cache.
    pub no_cache: bool,
}

setters!(BuildOptions {
    /// Sets the file to build from.
    with_dockerfile: dockerfile: Option<PathBuf>;
    /// Sets the build arguments.
    with_args: args: BTreeMap<String, String>;
    /// Stops the build at this stage.
    with_target: target: Option<String>;
    /// Sets the names of the image that is built.
    with_tags: tags: Vec<ImageRef>;
    /// Sets the labels of the image that is built.
    with_labels: labels: Labels;
    /// Builds every step again, without the cache.
    with_no_cache: no_cache;
});

impl BuildOptions {
    /// Adds a label, or replaces the one of this key. To set many, collect them for [`with_labels`](Self::with_labels).
    #[must_use]
    pub fn with_label(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.labels.insert(key, value);
        self
    }
}

/// One image, as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Id of the image.
    pub id: ImageRef,
    /// Names of the image.
    pub tags: Vec<ImageRef>,
    /// Size on disk, in bytes.
    pub bytes: Option<u64>,
    /// Time of the build.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
    /// Labels of the image.
    pub labels: Labels,
    /// User that its instances run as by default.
    pub user: Option<String>,
    /// Home directory of that user, read from the image, never guessed.
    pub user_home: Option<PathBuf>,
    /// Environment variables, each as `KEY=value`.
    pub env: Vec<String>,
    /// Entry point: the program, and the arguments that precede the instance's own.
    pub entrypoint: Vec<String>,
}

impl ImageInfo {
    /// Makes the information of an image whose id alone is known.
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

/// The progress of a pull, import or build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageProgress {
    /// The progress of one layer.
    Layer {
        /// Id of the layer.
        id: String,
        /// Bytes transferred so far.
        done: u64,
        /// Bytes of the whole layer, if known.
        total: Option<u64>,
    },
    /// Output of the build.
    Output(Bytes),
    /// The image is complete; this is its id or name.
    Done(ImageRef),
}

streams! {
    /// Stream of progress; its last item is `Done` or an `Err`.
    ImageStream => ImageProgress;
}
