//! A resource's body: [`Document`] and its [`ResourceFormat`].

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};

/// Format of a body.
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
    /// `InvalidInput`, with the known formats.
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
/// A decoded body is bounded, by [`MAX_BYTES`](Self::MAX_BYTES), [`MAX_DEPTH`](Self::MAX_DEPTH) and
/// [`MAX_VALUES`](Self::MAX_VALUES), the aliases of YAML with what they name: no choice of bytes takes more memory than that
/// many values do (some 200 MiB while HCL is read, 100 MiB in the other formats), nor a stack that grows with it.
///
/// In JSON it is an object of `format` and `text`, or of `format` and `hex` if the bytes are not text.
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
    /// Format of the bytes.
    pub format: ResourceFormat,
    /// The body's bytes, text in most formats. Shared, never copied: a slice of a large buffer keeps that buffer in memory.
    pub bytes: Bytes,
}

impl Document {
    /// The most bytes that a store takes: 8 MiB. A remote store may take fewer.
    pub const MAX_BYTES: usize = 8 << 20;

    /// The most lists and maps around a value of a document that is read here, in every format but HCL, where it is 32:
    /// more than any schema in use has, and less than any parser's stack bears.
    pub const MAX_DEPTH: usize = 100;

    /// The most values in a document that is read here; in HCL, the most tokens.
    pub const MAX_VALUES: usize = 1 << 20;

    /// A body in this format, unchanged.
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
