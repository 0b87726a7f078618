//! The formats of documents: reading each into a [`Value`], and writing it.

#[cfg(feature = "cbor")]
mod cbor;
#[cfg(feature = "hcl")]
mod hcl;
mod json;
mod stream;
#[cfg(test)]
mod tests;
mod value;
#[cfg(feature = "yaml")]
mod yaml;

use std::io;

pub(super) use self::{stream::documents, value::Value};
use super::{Document, ResourceFormat, YamlSchema};
use crate::error::{Error, ErrorKind};

/// The reason why a document cannot be read, or a value cannot be written.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ErrorKind,
    message: String,
    /// The feature of this crate that would be needed, if that is the reason.
    feature: Option<&'static str>,
}

impl Problem {
    fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidInput, message: message.into(), feature: None }
    }

    fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into(), feature: None }
    }

    /// The problem of a format whose feature is off in this build.
    #[cfg(not(all(feature = "yaml", feature = "hcl", feature = "cbor")))]
    fn off(feature: &'static str) -> Self {
        let message = format!("this build has no {feature}: the feature `{feature}` of runtide-core is off");
        Self { kind: ErrorKind::Unsupported, message, feature: Some(feature) }
    }

    /// Turns the problem into an error of `operation` on a document in `format`.
    pub(super) fn into_error(self, operation: &'static str, format: ResourceFormat) -> Error {
        let error = Error::new(self.kind, operation, self.message).with_context("format", format);
        match self.feature {
            Some(feature) => error.with_context("feature", feature),
            None => error,
        }
    }

    /// Turns the problem into an error of a conversion. For a value that `to` cannot carry, the error names both formats.
    pub(super) fn into_conversion(self, from: ResourceFormat, to: ResourceFormat) -> Error {
        const OPERATION: &str = "document.convert";
        if self.kind != ErrorKind::Unsupported {
            return self.into_error(OPERATION, from);
        }
        let message = format!("{to} cannot carry this {from}: {}", self.message);
        let error = Error::new(self.kind, OPERATION, message).with_context("from", from).with_context("to", to);
        match self.feature {
            Some(feature) => error.with_context("feature", feature),
            None => error,
        }
    }
}

type Outcome<T> = std::result::Result<T, Problem>;

/// Returns the document's bytes, if they are not too many.
pub(super) fn bounded(document: &Document) -> Outcome<&[u8]> {
    let length = document.bytes.len();
    if length > Document::MAX_BYTES {
        let message = format!("it has {length} bytes, and {} is the most", Document::MAX_BYTES);
        return Err(Problem::invalid(message));
    }
    Ok(&document.bytes)
}

/// Returns the document as text, if it is UTF-8 and not too long.
pub(super) fn text(document: &Document) -> Outcome<&str> {
    std::str::from_utf8(bounded(document)?)
        .map_err(|error| Problem::invalid(format!("it is not UTF-8, at byte {}", error.valid_up_to())))
}

/// Checks that this build reads and writes a format.
pub(super) fn known(format: ResourceFormat) -> Outcome<()> {
    match format {
        ResourceFormat::Json => Ok(()),
        #[cfg(feature = "yaml")]
        ResourceFormat::Yaml => Ok(()),
        #[cfg(not(feature = "yaml"))]
        ResourceFormat::Yaml => Err(Problem::off("yaml")),
        #[cfg(feature = "hcl")]
        ResourceFormat::Hcl => Ok(()),
        #[cfg(not(feature = "hcl"))]
        ResourceFormat::Hcl => Err(Problem::off("hcl")),
        #[cfg(feature = "cbor")]
        ResourceFormat::Cbor => Ok(()),
        #[cfg(not(feature = "cbor"))]
        ResourceFormat::Cbor => Err(Problem::off("cbor")),
        ResourceFormat::Native => Err(Problem::unsupported("only its store can read a native document")),
    }
}

/// Reads a document into a value, YAML by the schema that fits it.
pub(super) fn read(document: &Document) -> Outcome<Value> {
    read_as(document, YamlSchema::Auto)
}

/// Reads a document into a value, YAML by this schema.
#[cfg_attr(not(feature = "yaml"), allow(unused_variables, reason = "only YAML has a schema"))]
pub(super) fn read_as(document: &Document, schema: YamlSchema) -> Outcome<Value> {
    known(document.format)?;
    match document.format {
        ResourceFormat::Json => json::read(unmarked(document)?),
        #[cfg(feature = "yaml")]
        ResourceFormat::Yaml => yaml::read(unmarked(document)?, schema),
        #[cfg(feature = "hcl")]
        ResourceFormat::Hcl => hcl::read(unmarked(document)?),
        #[cfg(feature = "cbor")]
        ResourceFormat::Cbor => cbor::read(bounded(document)?),
        // `known` refused the others.
        #[allow(unreachable_patterns)]
        _ => Err(Problem::unsupported("this build cannot read it")),
    }
}

/// Writes a value in a format.
pub(super) fn write(value: &Value, format: ResourceFormat) -> Outcome<Vec<u8>> {
    known(format)?;
    let mut out = Bounded(Vec::new());
    match format {
        ResourceFormat::Json => json::write(value, &mut out)?,
        #[cfg(feature = "yaml")]
        ResourceFormat::Yaml => yaml::write(value, &mut out)?,
        #[cfg(feature = "hcl")]
        ResourceFormat::Hcl => hcl::write(value, &mut out)?,
        #[cfg(feature = "cbor")]
        ResourceFormat::Cbor => cbor::write(value, &mut out)?,
        #[allow(unreachable_patterns)]
        _ => return Err(Problem::unsupported("this build cannot write it")),
    }
    Ok(out.0)
}

/// Reads the heading of an HCL document, even if other expressions in it cannot be evaluated.
#[cfg(feature = "hcl")]
pub(super) fn heading(document: &Document) -> Outcome<hcl::Heading> {
    hcl::heading(unmarked(document)?)
}

/// Reads the labels of an HCL document, even if other expressions in it cannot be evaluated.
#[cfg(feature = "hcl")]
pub(super) fn labels(document: &Document) -> Outcome<Vec<(String, String)>> {
    hcl::labels(unmarked(document)?)
}

/// Returns the document as text, without the byte order mark that some editors write before it.
fn unmarked(document: &Document) -> Outcome<&str> {
    let text = text(document)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The bytes of a document that is being written. Indentation can make a small value long, so the limit is checked with each
/// write.
struct Bounded(Vec<u8>);

impl Bounded {
    fn put(&mut self, text: &str) -> Outcome<()> {
        if self.0.len() + text.len() > Document::MAX_BYTES {
            return Err(too_long());
        }
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[cfg(any(feature = "yaml", feature = "hcl"))]
    fn indent(&mut self, spaces: usize) -> Outcome<()> {
        for _ in 0..spaces {
            self.put(" ")?;
        }
        Ok(())
    }
}

fn too_long() -> Problem {
    Problem::unsupported(format!("it would have more than {} bytes", Document::MAX_BYTES))
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > Document::MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
