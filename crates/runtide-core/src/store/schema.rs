//! The readings of YAML: [`YamlSchema`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A reading of YAML: which value a text without quotes has, and what tags and merge keys mean.
///
/// ```
/// # #[cfg(feature = "yaml")] {
/// use runtide_core::store::{Document, ResourceFormat, YamlSchema};
///
/// let mode = Document::yaml("mode: 0644\n");
/// assert_eq!(mode.convert_as(YamlSchema::Core, ResourceFormat::Json)?, Document::json("{\n  \"mode\": 644\n}\n"));
/// assert_eq!(mode.convert_as(YamlSchema::Kubectl, ResourceFormat::Json)?, Document::json("{\n  \"mode\": 420\n}\n"));
/// # }
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum YamlSchema {
    /// [`Kubectl`](Self::Kubectl) for a map that names itself by `apiVersion` and `kind`, [`Core`](Self::Core) for all others.
    #[default]
    Auto,
    /// The core schema of YAML 1.2: `no` is a text, `0644` is 644. Tags other than the schema's own, the merge key `<<`, and
    /// keys that are no texts are `Unsupported`; a key that comes twice is `InvalidInput`.
    Core,
    /// As kubectl reads a manifest.
    ///
    /// * `y`, `yes`, `on`, `n`, `no`, `off` are booleans, in lower case, upper case or with a capital; `0644` and `0o644` are
    ///   420, `0b11` is 3, `1_000` is 1000. A number that fits neither 64 bits nor a float (`1234e567`) is a text, a time too.
    /// * The merge key `<<` merges. What comes later in the map wins, be it a key or a merge; so a key that comes twice has its
    ///   last value.
    /// * A key that is a number or a boolean is the text of its value: `9000`, `true`. No other key but a text is allowed.
    /// * Tags of lists and maps, and unknown ones, are ignored; a scalar with an unknown tag is a text. `!!binary` is decoded.
    /// * A float without a fraction is an integer, as it is in the JSON that kubectl sends.
    /// * A text that begins with `{` and is JSON is read as JSON.
    /// * The second line of a text in quotes needs no indentation.
    Kubectl,
}

impl YamlSchema {
    /// The schema as it is written in JSON and in `Display`: `auto`, `core`, `kubectl`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Core => "core",
            Self::Kubectl => "kubectl",
        }
    }
}

/// A name, in any case: `auto`, `core`, `kubectl`.
///
/// ```
/// # use runtide_core::store::YamlSchema;
/// assert_eq!("Kubectl".parse::<YamlSchema>()?, YamlSchema::Kubectl);
/// # Ok::<(), runtide_core::Error>(())
/// ```
impl FromStr for YamlSchema {
    type Err = Error;

    /// # Errors
    /// `InvalidInput`, with the known names.
    fn from_str(text: &str) -> Result<Self> {
        let schemas = [Self::Auto, Self::Core, Self::Kubectl];
        schemas.into_iter().find(|schema| schema.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let names = schemas.map(Self::as_str).join(", ");
            let shown: String = text.chars().take(64).collect();
            Error::new(ErrorKind::InvalidInput, "yaml_schema.parse", format!("a schema is one of {names}"))
                .with_context("schema", format!("{shown:?}"))
        })
    }
}

impl fmt::Display for YamlSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_schema_has_one_name() {
        for schema in [YamlSchema::Auto, YamlSchema::Core, YamlSchema::Kubectl] {
            assert_eq!(schema.to_string().to_uppercase().parse::<YamlSchema>().unwrap(), schema);
            assert_eq!(serde_json::to_string(&schema).unwrap(), format!("\"{schema}\""));
        }
        let error = "1.1".parse::<YamlSchema>().unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains("auto, core, kubectl"), "{error}");
    }
}
