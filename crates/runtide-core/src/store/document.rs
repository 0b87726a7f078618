//! A resource's body: [`Document`] and its [`ResourceFormat`].

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ResourceRef;
use crate::{Error, ErrorKind, Labels, Result};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResourceFormat {
    /// YAML 1.2; one document.
    Yaml,
    /// JSON.
    Json,
    /// HCL 2, as Nomad's jobs.
    Hcl,
    /// CBOR, Runtide's own compact form.
    Cbor,
    /// A form of the store's own, such as the text of a unit file. It is never converted here.
    Native,
}

/// A resource's body, as it was written: kept and compared as bytes, so that a change of spacing is a change.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Document {
    /// How it is written.
    pub format: ResourceFormat,
    /// The text, or what it is. Shared, never copied: a slice of a large buffer keeps that buffer in memory.
    pub bytes: Bytes,
}

impl Document {
    /// The most bytes that a store takes: 8 MiB. A store elsewhere may take fewer.
    pub const MAX_BYTES: usize = 8 << 20;

    /// A body, as it is.
    pub fn new(format: ResourceFormat, bytes: impl Into<Bytes>) -> Self {
        Self { format, bytes: bytes.into() }
    }

    /// A body in YAML.
    pub fn yaml(text: impl Into<Bytes>) -> Self {
        Self::new(ResourceFormat::Yaml, text)
    }

    /// A body in JSON.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self::new(ResourceFormat::Json, text)
    }

    /// A body in HCL.
    pub fn hcl(text: impl Into<Bytes>) -> Self {
        Self::new(ResourceFormat::Hcl, text)
    }

    /// The body in another format.
    ///
    /// # Errors
    /// `Unsupported`, naming both formats.
    pub fn convert(&self, format: ResourceFormat) -> Result<Self> {
        if self.format == format {
            return Ok(self.clone());
        }
        Err(Error::new(ErrorKind::Unsupported, "document.convert", "not yet"))
    }

    /// The body's own labels.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be read.
    pub fn labels(&self) -> Result<Labels> {
        Err(Error::new(ErrorKind::Unsupported, "document.labels", "not yet"))
    }
}

impl ResourceRef {
    /// Reads what a body names.
    ///
    /// # Errors
    /// `InvalidInput` if it names nothing.
    pub fn from_document(_document: &Document) -> Result<Self> {
        Err(Error::new(ErrorKind::Unsupported, "document.reference", "not yet"))
    }
}

impl fmt::Display for ResourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Yaml => "yaml",
            Self::Json => "json",
            Self::Hcl => "hcl",
            Self::Cbor => "cbor",
            Self::Native => "native",
        })
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("format", &self.format).field("bytes", &self.bytes.len()).finish()
    }
}
