//! Images: list, pull, import, save, build, tag, remove, prune.

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
///
/// A name or id that the runtime could not have is `InvalidInput`, before anything is sent.
#[async_trait]
pub trait ImageManager: fmt::Debug + Send + Sync {
    /// Lists every image that the runtime has.
    async fn list(&self) -> Result<Vec<ImageInfo>>;

    /// Returns true if the runtime has the image. An `Err` is not a no.
    async fn exists(&self, image: &ImageRef) -> Result<bool>;

    /// Returns all that the runtime reports about one image.
    async fn inspect(&self, image: &ImageRef) -> Result<ImageInfo>;

    /// Fetches an image from its registry.
    ///
    /// # Errors
    /// Of the call or as the stream's last item: `NotFound` for an image that the registry does not have, or does not show to this
    /// user; `Unauthenticated`, `PermissionDenied`, `RateLimited` as the registry answers.
    async fn pull(&self, image: &ImageRef, options: PullOptions) -> Result<ImageStream>;

    /// Loads the images of an archive, as [`save`](Self::save) makes it. The stream has one `Done` for each image.
    ///
    /// # Errors
    /// As the stream's last item: `InvalidInput` for what is not such an archive.
    async fn import(&self, archive: ByteReader) -> Result<ImageStream>;

    /// Returns these images, with their names, as one archive.
    ///
    /// # Errors
    /// `NotFound` for an image that the runtime does not have. An archive that breaks off is an error of the reader.
    async fn save(&self, images: &[ImageRef]) -> Result<ByteReader>;

    /// Builds an image.
    ///
    /// # Errors
    /// `InvalidInput` for a directory without the file to build from, or an ignore file that cannot be read. As the stream's last
    /// item: the failure of a step.
    async fn build(&self, context: BuildContext, options: BuildOptions) -> Result<ImageStream>;

    /// Adds a name to an image, and takes it from the image that had it.
    async fn tag(&self, image: &ImageRef, tag: &ImageRef) -> Result<()>;

    /// Removes a name, and the image with its last name; `Unchanged` if it is already gone.
    ///
    /// # Errors
    /// `Conflict` while instances use it.
    async fn remove(&self, image: &ImageRef) -> Result<Effect>;

    /// Removes images that no instance uses: those without a name, or all of them.
    async fn prune(&self, options: PruneOptions) -> Result<Pruned>;
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

/// Options of a pull.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PullOptions {
    /// Platform as `os/arch` or `os/arch/variant`; the runtime's choice if `None`.
    pub platform: Option<String>,
    /// Credentials for the registry.
    pub credentials: Credentials,
}

setters!(PullOptions {
    /// Sets the platform, as `os/arch` or `os/arch/variant`.
    with_platform: platform: Option<String>;
    /// Sets the credentials for the registry.
    with_credentials: credentials: Credentials;
});

/// Credentials for a registry.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// Those that the runtime's own client has stored for the registry, as its login does; none if there are none.
    #[default]
    Stored,
    /// None, whatever is stored.
    Anonymous,
    /// A user.
    User {
        /// Name of the user.
        name: String,
        /// Password, or a token in place of one.
        password: Secret,
    },
    /// A token that the registry gave out at a login.
    IdentityToken(Secret),
}

impl Credentials {
    /// Makes the credentials of a user.
    pub fn user(name: impl Into<String>, password: impl Into<Box<str>>) -> Self {
        Self::User { name: name.into(), password: Secret::new(password) }
    }
}

/// Options of a prune. By default it removes the images without a name, which builds and pulls of newer ones leave behind.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PruneOptions {
    /// True to remove images with names as well.
    pub named: bool,
    /// Labels that an image must have, with these values, to be removed.
    pub labels: Labels,
}

setters!(PruneOptions {
    /// Removes images with names as well.
    with_named: named;
    /// Sets the labels that an image must have to be removed.
    with_labels: labels: Labels;
});

/// The result of a prune.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pruned {
    /// Ids of the images that were removed, and of layers that no image uses any more, where the runtime lists them.
    pub images: Vec<ImageRef>,
    /// Space that is free now, in bytes.
    pub bytes: Option<u64>,
}

impl Pruned {
    /// Makes the result of a prune that removed these images.
    pub fn new(images: Vec<ImageRef>, bytes: Option<u64>) -> Self {
        Self { images, bytes }
    }
}

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

/// One image, as the runtime reports it. A listing may have less than an inspection: what it does not have is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Id of the image.
    pub id: ImageRef,
    /// Names of the image.
    pub tags: Vec<ImageRef>,
    /// Names by digest, as `name@sha256:…`: the registries that the image came from or was sent to, and its digest there.
    #[serde(default)]
    pub digests: Vec<ImageRef>,
    /// Size on disk, in bytes.
    pub bytes: Option<u64>,
    /// Time of the build.
    #[serde(default, with = "crate::time::option")]
    pub created_at: Option<SystemTime>,
    /// Labels of the image.
    pub labels: Labels,
    /// User that its instances run as by default, as the image names it: `user` or `user:group`, each a name or a number.
    pub user: Option<String>,
    /// Home directory of that user, read from the image, never guessed.
    pub user_home: Option<PathBuf>,
    /// Environment variables, each as `KEY=value`.
    #[serde(default)]
    pub env: Option<Vec<String>>,
    /// Entry point: the program, and the arguments that precede the instance's own.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Command: the arguments of an instance that has none of its own.
    #[serde(default)]
    pub command: Option<Vec<String>>,
}

impl ImageInfo {
    /// Makes the information of an image whose id alone is known.
    pub fn new(id: impl Into<ImageRef>) -> Self {
        Self {
            id: id.into(),
            tags: Vec::new(),
            digests: Vec::new(),
            bytes: None,
            created_at: None,
            labels: Labels::default(),
            user: None,
            user_home: None,
            env: None,
            entrypoint: None,
            command: None,
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
        /// The step that it is at.
        step: LayerStep,
        /// Bytes of this step so far.
        done: u64,
        /// Bytes of the whole step, if known.
        total: Option<u64>,
    },
    /// Output of the build, or a message of the runtime.
    Output(Bytes),
    /// The image is complete; this is its id or name.
    Done(ImageRef),
}

/// The step that a layer is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerStep {
    /// Its transfer has not begun.
    Waiting,
    /// It is transferred.
    Transferring,
    /// It is checked or unpacked.
    Unpacking,
    /// It is complete.
    Complete,
}

streams! {
    /// Stream of progress; its last item is `Done` or an `Err`.
    ImageStream => ImageProgress;
}
