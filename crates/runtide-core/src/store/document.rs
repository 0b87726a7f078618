//! A resource's body: [`Document`] and its [`ResourceFormat`].

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{format, heading};
use crate::{
    error::{Error, ErrorKind, Result},
    labels::Labels,
};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResourceFormat {
    /// YAML 1.2; one document. Read and written by the feature `yaml`.
    Yaml,
    /// JSON. Always read and written.
    Json,
    /// HCL 2, as Nomad's jobs. Read and written by the feature `hcl`.
    Hcl,
    /// CBOR, Runtide's own compact form. Read and written by the feature `cbor`.
    Cbor,
    /// A form of the store's own, such as the text of a unit file. It is never converted here.
    Native,
}

impl ResourceFormat {
    /// Number of the format in stored bytes (snapshots, records of a journaled store). It never changes.
    ///
    /// ```
    /// use runtide_core::store::ResourceFormat;
    ///
    /// assert_eq!(ResourceFormat::from_code(ResourceFormat::Json.code()), Some(ResourceFormat::Json));
    /// ```
    pub fn code(self) -> u8 {
        match self {
            Self::Yaml => 1,
            Self::Json => 2,
            Self::Hcl => 3,
            Self::Cbor => 4,
            Self::Native => 5,
        }
    }

    /// The format with this number in stored bytes; `None` if there is none.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Yaml, Self::Json, Self::Hcl, Self::Cbor, Self::Native].into_iter().find(|format| format.code() == code)
    }

    /// The format as it is written in JSON and in `Display`.
    ///
    /// ```
    /// # use runtide_core::store::ResourceFormat;
    /// assert_eq!(ResourceFormat::Yaml.as_str(), "yaml");
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Json => "json",
            Self::Hcl => "hcl",
            Self::Cbor => "cbor",
            Self::Native => "native",
        }
    }
}

/// A name, or the ending of a file, in any case: `yaml` or `yml`, `json`, `hcl`, `cbor`, `native`.
///
/// ```
/// # use runtide_core::store::ResourceFormat;
/// assert_eq!("YML".parse::<ResourceFormat>()?, ResourceFormat::Yaml);
/// assert!("xml".parse::<ResourceFormat>().is_err_and(|error| error.message().contains("hcl")));
/// # Ok::<(), runtide_core::Error>(())
/// ```
impl FromStr for ResourceFormat {
    type Err = Error;

    /// # Errors
    /// `InvalidInput`, with what there is.
    fn from_str(text: &str) -> Result<Self> {
        let formats = [
            ("yaml", Self::Yaml),
            ("yml", Self::Yaml),
            ("json", Self::Json),
            ("hcl", Self::Hcl),
            ("cbor", Self::Cbor),
            ("native", Self::Native),
        ];
        formats.into_iter().find_map(|(name, format)| name.eq_ignore_ascii_case(text).then_some(format)).ok_or_else(
            || {
                let names = formats.map(|(name, _)| name).join(", ");
                let shown: String = text.chars().take(64).collect();
                Error::new(ErrorKind::InvalidInput, "resource_format.parse", format!("a format is one of {names}"))
                    .with_context("format", format!("{shown:?}"))
            },
        )
    }
}

impl fmt::Display for ResourceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A resource's body, as it was written: kept and compared as bytes, so that a change of spacing is a change.
///
/// What is read from one is bounded, by [`MAX_BYTES`](Self::MAX_BYTES), [`MAX_DEPTH`](Self::MAX_DEPTH) and
/// [`MAX_VALUES`](Self::MAX_VALUES), the aliases of YAML with what they name: no choice of bytes takes more memory than that
/// many values do (some 200 MiB while HCL is read, 100 MiB in the other formats), nor a stack that grows with it.
///
/// In JSON it is an object of `format` and `text`, or of `format` and `hex` where the bytes are no text.
///
/// ```
/// use runtide_core::store::Document;
///
/// let document = Document::json("{}");
/// let json = r#"{"format":"json","text":"{}"}"#;
/// # let written = serde_json::to_string(&document).unwrap();
/// assert_eq!(written, json);
/// # assert_eq!(serde_json::from_str::<Document>(json).unwrap(), document);
/// ```
#[derive(Clone, PartialEq, Eq)]
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

    /// The most lists and maps around a value of a document that is read here, in every format but HCL, where it is 32:
    /// more than any schema in use has, and less than any parser's stack bears.
    pub const MAX_DEPTH: usize = 100;

    /// The most values in a document that is read here; in HCL, the most words and signs.
    pub const MAX_VALUES: usize = 1 << 20;

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

    /// A body in CBOR.
    pub fn cbor(bytes: impl Into<Bytes>) -> Self {
        Self::new(ResourceFormat::Cbor, bytes)
    }

    /// The body in another format: the same value, and none of its comments. In its own format it is given as it is, unread.
    ///
    /// * Numbers are the same to the last bit: an integer stays one, and `1.0` a fraction. Keys keep their order.
    /// * YAML is read by the core schema of 1.2 (`no` is a text, and `012` is twelve), and written so that a reader of 1.1
    ///   understands the same. Aliases become what they name. It says nothing with tags other than the core schema's, nor
    ///   with the merge key `<<` of 1.1: these are `Unsupported`.
    /// * A block of HCL becomes a map under its type and its labels, and several alike a list of maps, as
    ///   [HCL's form in JSON](https://github.com/hashicorp/hcl/blob/main/json/spec.md) has it; back in HCL they are
    ///   attributes, which are the same value. What would have to be evaluated (variables, templates, calls) is `Unsupported`.
    /// * Bytes are of CBOR alone; infinity and what is not a number, of CBOR and YAML.
    ///
    /// ```
    /// use runtide_core::{ErrorKind, store::{Document, ResourceFormat}};
    ///
    /// # #[cfg(feature = "yaml")] {
    /// let yaml = Document::yaml("name: web\nports: [80, 443]\n").convert(ResourceFormat::Json)?;
    /// assert_eq!(yaml, Document::json("{\n  \"name\": \"web\",\n  \"ports\": [\n    80,\n    443\n  ]\n}\n"));
    /// # }
    /// let error = Document::json("{}").convert(ResourceFormat::Native).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Unsupported);
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Unsupported`, naming both formats, if the other cannot carry it, or this build does not know one of them (the context
    /// names the `feature`); `InvalidInput` if it cannot be read: it is longer or deeper than any may be or has more
    /// values, is no text, has a key twice, or an integer that has no place in 64 bits.
    pub fn convert(&self, format: ResourceFormat) -> Result<Self> {
        if self.format == format {
            return Ok(self.clone());
        }
        let wrap = |problem: format::Problem| problem.into_conversion(self.format, format);
        format::known(format).map_err(wrap)?;
        let value = format::read(self).map_err(wrap)?;
        Ok(Self::new(format, format::write(&value, format).map_err(wrap)?))
    }

    /// The body's own labels: `metadata.labels` in YAML, JSON and CBOR, the block or attribute `meta` of the one block at
    /// the top of HCL. None if there are none.
    ///
    /// A body that cannot have any is not read: only whether the word is in it.
    ///
    /// ```
    /// use runtide_core::store::Document;
    ///
    /// let labels = Document::json(r#"{"metadata": {"labels": {"tier": "front"}}}"#).labels()?;
    /// assert_eq!(labels.get("tier"), Some("front"));
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be read, or a label is no text; `Unsupported` for a native body, and for a format of which
    /// the feature is off.
    pub fn labels(&self) -> Result<Labels> {
        heading::labels(self)
    }

    /// The documents of a stream of YAML, each with its own bytes and the comments around it; those without any content are
    /// left out. In every other format it is one document. It needs no feature, and says nothing about what is in them.
    ///
    /// ```
    /// use runtide_core::store::Document;
    ///
    /// let stream = Document::yaml("# one\na: 1\n---\n---\n# two\nb: 2\n");
    /// assert_eq!(stream.split()?, [Document::yaml("# one\na: 1\n"), Document::yaml("---\n# two\nb: 2\n")]);
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if it is too long, or YAML and no text.
    pub fn split(&self) -> Result<Vec<Self>> {
        let wrap = |problem: format::Problem| problem.into_error("document.split", self.format);
        format::bounded(self).map_err(wrap)?;
        if self.format != ResourceFormat::Yaml {
            return Ok(vec![self.clone()]);
        }
        let documents = format::documents(format::text(self).map_err(wrap)?);
        if documents.first().is_some_and(|first| first.len() == self.bytes.len()) {
            return Ok(vec![self.clone()]);
        }
        // Copied: they will live apart, and none should keep the others in memory.
        let copied = |range| self.bytes.get::<std::ops::Range<usize>>(range).unwrap_or_default().to_vec();
        Ok(documents.into_iter().map(|range| Self::yaml(copied(range))).collect())
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("format", &self.format).field("bytes", &self.bytes.len()).finish()
    }
}

/// The JSON form; one of the two.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    format: ResourceFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<std::borrow::Cow<'a, str>>,
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.bytes).ok();
        let hex = text.is_none().then(|| to_hex(&self.bytes).into());
        Form { format: self.format, text: text.map(Into::into), hex }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)?;
        let bytes = match (form.text, form.hex) {
            (Some(text), None) => text.into_owned().into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or_else(|| de::Error::custom("`hex` is not pairs of digits"))?,
            _ => return Err(de::Error::custom("a document has either `text` or `hex`")),
        };
        Ok(Self::new(form.format, bytes))
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn its_json_is_read_back_as_the_same(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,40}") {
            for document in [Document::cbor(bytes), Document::yaml(text)] {
                let json = serde_json::to_string(&document).unwrap();
                prop_assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
            }
        }
    }

    #[test]
    fn its_json_is_checked() {
        assert_eq!(
            serde_json::to_string(&Document::cbor(vec![0xff, 0x0a])).unwrap(),
            r#"{"format":"cbor","hex":"ff0a"}"#
        );
        for bad in [
            r#"{"format":"cbor"}"#,
            r#"{"format":"cbor","hex":"f"}"#,
            r#"{"format":"cbor","hex":"+f"}"#,
            r#"{"format":"cbor","hex":"ff","text":""}"#,
            r#"{"format":"xml","text":""}"#,
            r#"{"text":""}"#,
            r#"{"format":"json","text":"","more":1}"#,
        ] {
            assert!(serde_json::from_str::<Document>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn formats_are_read_loosely_and_written_in_one_way() {
        for format in ["yaml", "json", "hcl", "cbor", "native"] {
            assert_eq!(format.parse::<ResourceFormat>().unwrap().to_string(), format);
        }
        assert_eq!("YAML".parse::<ResourceFormat>().unwrap(), ResourceFormat::Yaml);
        let error = "toml".parse::<ResourceFormat>().unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains("yaml, yml, json"), "{error}");
    }
}
