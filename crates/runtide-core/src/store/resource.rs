//! A resource as a store returns it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};

use super::{Digest, Document, ResourceFormat, ResourceRef, Revision};
use crate::{error::Result, labels::Labels};

/// A resource as a store returns it, in the requested format.
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resource {
    /// Identity of the resource.
    pub reference: ResourceRef,
    /// Its body, in the requested format.
    pub document: Document,
    /// Revision of its last write.
    pub revision: Revision,
    /// The body as it was written, if `document` is a conversion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    written: Option<Box<Document>>,
    /// Cache of [`Resource::labels`].
    #[serde(skip)]
    labels: OnceLock<Option<Labels>>,
}

impl Resource {
    /// A resource as it was written.
    pub fn new(reference: ResourceRef, document: Document, revision: Revision) -> Self {
        Self { reference, document, revision, written: None, labels: OnceLock::new() }
    }

    /// The body as it was written.
    pub fn written(&self) -> &Document {
        self.written.as_deref().unwrap_or(&self.document)
    }

    /// BLAKE3 of the bytes as they were written; computed by this call.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.written().bytes)
    }

    /// The body's own labels, read by the first call. `None` if they are unknown: the body cannot be read,
    /// or its format is one that this build does not read ([`Document::labels`] has the reason).
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.get_or_init(|| self.written().labels().ok()).as_ref()
    }

    /// The resource in another format.
    ///
    /// # Errors
    /// As [`Document::convert`], with the reference in the context.
    pub fn convert(self: &Arc<Self>, format: ResourceFormat) -> Result<Arc<Self>> {
        if self.document.format == format {
            return Ok(Arc::clone(self));
        }
        let converted =
            self.written().convert(format).map_err(|error| error.with_context("resource", &self.reference))?;
        let mut resource = Self::new(self.reference.clone(), converted, self.revision);
        resource.written = Some(Box::new(self.written().clone()));
        Ok(Arc::new(resource))
    }

    /// The resource in the requested format, or as it was written if that format cannot carry it.
    #[must_use]
    pub fn shown(self: &Arc<Self>, format: Option<ResourceFormat>) -> Arc<Self> {
        format.and_then(|format| self.convert(format).ok()).unwrap_or_else(|| Arc::clone(self))
    }
}

/// Without the cache of its labels, so that equal resources have equal text.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Resource");
        shown.field("reference", &self.reference).field("document", &self.document).field("revision", &self.revision);
        if let Some(written) = &self.written {
            shown.field("written", written);
        }
        shown.finish_non_exhaustive()
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.reference == other.reference
            && self.revision == other.revision
            && self.document == other.document
            && self.written() == other.written()
    }
}

impl Eq for Resource {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_debug_is_the_resource_and_not_what_was_read_of_it_so_far() {
        let body = r#"{"metadata":{"labels":{"a":"1"}}}"#;
        let reference = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
        let resource = Resource::new(reference, Document::json(body), Revision(7));
        let before = format!("{resource:?}");
        resource.labels();
        assert_eq!(format!("{resource:?}"), before);
        assert!(!before.contains("OnceLock") && before.contains("web") && before.contains('7'), "{before}");
    }
}
