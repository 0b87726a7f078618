//! Operations on a document's content: conversion into another format, splitting, the resources of a list, reading the labels.

use super::{Document, ResourceFormat, YamlSchema, format, heading, list};
use crate::{error::Result, labels::Labels};

impl Document {
    /// The body in another format: the same value, and none of its comments. In its own format it is returned unread.
    ///
    /// * Numbers are the same to the last bit: an integer stays one, and `1.0` a fraction. Keys keep their order.
    /// * YAML is read as kubectl does if it names itself by `apiVersion` and `kind`, and else by the core schema of 1.2
    ///   ([`YamlSchema::Auto`]; [`convert_as`](Self::convert_as) names one). Aliases become the values that they name. It is
    ///   written so that all readers understand the same.
    /// * A block of HCL becomes a map under its type and its labels, and several alike a list of maps, as
    ///   [HCL's form in JSON](https://github.com/hashicorp/hcl/blob/main/json/spec.md) has it; back in HCL they are
    ///   attributes, which are the same value. Expressions that need evaluation (variables, templates, calls) are `Unsupported`.
    /// * Only CBOR has byte strings; only CBOR and YAML have infinity and NaN.
    /// * A byte order mark before a text is not read.
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
    /// names the `feature`); `InvalidInput` if it cannot be read: it exceeds a limit of length, depth or number of values, is
    /// not text, or has a key twice or an integer that does not fit into 64 bits.
    pub fn convert(&self, format: ResourceFormat) -> Result<Self> {
        if self.format == format {
            return Ok(self.clone());
        }
        self.convert_as(YamlSchema::Auto, format)
    }

    /// The body in another format, or written again in its own, with YAML read by this schema: otherwise as
    /// [`convert`](Self::convert). In other formats the schema is without effect.
    ///
    /// # Errors
    /// As [`convert`](Self::convert).
    pub fn convert_as(&self, schema: YamlSchema, format: ResourceFormat) -> Result<Self> {
        let wrap = |problem: format::Problem| problem.into_conversion(self.format, format);
        format::known(format).map_err(wrap)?;
        let value = format::read_as(self, schema).map_err(wrap)?;
        Ok(Self::new(format, format::write(&value, format).map_err(wrap)?))
    }

    /// The body's own labels: `metadata.labels` in YAML, JSON and CBOR, the block or attribute `meta` of the one block at
    /// the top of HCL, next to `variable`, `variables` and `locals`; numbers and booleans in it are texts, as Nomad has it. None
    /// if there are none.
    ///
    /// A body that cannot have labels is not parsed: it is only searched for the word.
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
    /// `InvalidInput` if the body cannot be read, or a label is not text; `Unsupported` for a native body, and for a format whose
    /// feature is off.
    pub fn labels(&self) -> Result<Labels> {
        heading::labels(self)
    }

    /// The documents of a YAML stream, each with its own bytes and the comments around it; those without content are left out.
    /// In every other format the body is one document. The call needs no feature, and does not validate the documents.
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
    /// `InvalidInput` if the body is too long, or is YAML and not text.
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
        // Copied: a slice would keep the bytes of the other documents in memory.
        let copied = |range| self.bytes.get::<std::ops::Range<usize>>(range).unwrap_or_default().to_vec();
        Ok(documents.into_iter().map(|range| Self::yaml(copied(range))).collect())
    }
    /// The resources in a body, as kubectl takes them: the documents of a stream ([`split`](Self::split)), and in place of a
    /// list its items. A list is a map with `apiVersion`, a `kind` that ends in `List`, and `items`; an item without kind and
    /// version has those of the list without `List`. A body that is no list is the same to the byte, and is parsed only if it
    /// may be one.
    ///
    /// ```
    /// use runtide_core::store::{Document, ResourceRef};
    ///
    /// let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
    ///     {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}]}"#;
    /// let items = Document::json(list).resources()?;
    /// assert_eq!(ResourceRef::from_document(&items[0])?.as_str(), "/Node//n1");
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`split`](Self::split); for a list also as [`convert`](Self::convert), and `InvalidInput` if an item is no map.
    pub fn resources(&self) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for document in self.split()? {
            list::flatten(document, &mut found)?;
        }
        Ok(found)
    }
}
