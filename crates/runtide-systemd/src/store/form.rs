//! The mapping of resources to unit files, and back: [`UnitForm`], and systemd's own, [`Units`].

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use runtide_core::{
    Error, ErrorKind, Failure, Result,
    store::{Document, Resource, ResourceFormat, ResourceRef},
};

use super::{name::UnitFileName, sections};
use crate::{names, unit_file::UnitFile};

const APPLY: &str = "store.apply";
const GET: &str = "store.get";

/// The mapping of resources to unit files, and back. The default is [`Units`]: a resource is a unit file. Another form
/// may declare other things that systemd runs, and define how they are written as units.
///
/// # Behavior
/// * No two references share a file.
/// * Reading a file gives the document that was written; if a form cannot do that, the document is in the store's
///   record as well.
/// * None of the calls blocks.
pub trait UnitForm: Debug + Send + Sync + 'static {
    /// Returns the file of a resource.
    ///
    /// # Errors
    /// `InvalidInput` if the reference can have no unit file.
    fn file(&self, reference: &ResourceRef) -> Result<UnitFileName>;

    /// Returns the content of the file.
    ///
    /// # Errors
    /// `InvalidInput` for a document that cannot be a unit.
    fn text(&self, reference: &ResourceRef, document: &Document) -> Result<Bytes>;

    /// Returns the resource of a file that another program wrote; `None` if it is none.
    fn read(&self, file: &UnitFileName, text: &Bytes) -> Option<(ResourceRef, Document)>;

    /// Converts a resource to another format.
    ///
    /// # Errors
    /// As [`Document::convert`].
    fn shown(&self, resource: &Arc<Resource>, format: ResourceFormat) -> Result<Arc<Resource>> {
        resource.convert(format)
    }
}

/// A resource is a unit file, and has its name.
///
/// * `web.service` is of the kind `service`, in no namespace, with the name `web`; templates (`web@`) and instances (`web@1`)
///   have such names too.
/// * A drop-in `web.service.d/10-limits.conf` is of the kind `service.d`, in the namespace `web`, with the name `10-limits`.
/// * There is no group.
///
/// So no two resources share a file. In the native format a body is the file's text, byte for byte. In the other formats it is
/// a list of sections, with the labels that systemd does not have; the file has those in a section `[X-Labels]`:
///
/// ```json
/// {
///   "metadata": {"labels": {"team": "shop"}},
///   "sections": [{"name": "Service", "entries": [["ExecStart", "/usr/bin/web"], ["Restart", "always"]]}]
/// }
/// ```
///
/// Comments are kept only in the native format. A selector sees the labels of resources that were applied in another
/// format than that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Units;

impl UnitForm for Units {
    fn file(&self, reference: &ResourceRef) -> Result<UnitFileName> {
        let (kind, name) = (reference.kind(), reference.name());
        let named = match (kind.strip_suffix(".d"), reference.namespace()) {
            _ if !reference.group().is_empty() => Err(refused("a unit file is of no group")),
            (None, None) => UnitFileName::unit(&format!("{name}.{kind}")),
            (None, Some(_)) => Err(refused("a unit file is in no namespace")),
            (Some(kind), Some(unit)) => UnitFileName::drop_in(&format!("{unit}.{kind}"), name),
            (Some(_), None) => Err(refused("a drop-in is in the namespace of its unit's name")),
        };
        named.map_err(|error| error.with_context("resource", reference))
    }

    fn text(&self, reference: &ResourceRef, document: &Document) -> Result<Bytes> {
        let text = match document.format {
            ResourceFormat::Native => checked(&document.bytes).map(|()| document.bytes.clone()),
            ResourceFormat::Json => sections::to_text(&document.bytes),
            _ => document.convert(ResourceFormat::Json).and_then(|json| sections::to_text(&json.bytes)),
        };
        text.map_err(|error| error.with_context("resource", reference))
    }

    fn read(&self, file: &UnitFileName, text: &Bytes) -> Option<(ResourceRef, Document)> {
        let (name, kind) = file.unit_name().rsplit_once('.')?;
        names::type_of(file.unit_name())?;
        let reference = match file.drop_in_name() {
            None => ResourceRef::new("", kind, None, name),
            Some(drop_in) => ResourceRef::new("", &format!("{kind}.d"), name, drop_in),
        };
        Some((reference.ok()?, Document::new(ResourceFormat::Native, text.clone())))
    }

    fn shown(&self, resource: &Arc<Resource>, format: ResourceFormat) -> Result<Arc<Resource>> {
        let written = resource.written();
        let converted = match (written.format, format) {
            (from, to) if from == to => return Ok(Arc::clone(resource)),
            (ResourceFormat::Native, _) => {
                let json = sections::to_json(&written.bytes).map(Document::json);
                json.and_then(|json| json.convert(format))
            }
            (_, ResourceFormat::Native) => {
                self.text(&resource.reference, written).map(|text| Document::new(ResourceFormat::Native, text))
            }
            _ => return resource.convert(format),
        };
        let converted = converted.map_err(|error| {
            let mut failure = Failure::from(&error);
            GET.clone_into(&mut failure.operation);
            failure.context.remove("resource");
            let retry = error.retry();
            Error::from(failure).with_retry(retry).with_context("resource", &resource.reference)
        })?;
        Ok(Arc::new(Resource::new(resource.reference.clone(), converted, resource.revision)))
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, APPLY, why)
}

/// Checks that the bytes are the text of a unit file that systemd loads.
fn checked(bytes: &[u8]) -> Result<()> {
    match UnitFile::parse(bytes) {
        Ok(_) => Ok(()),
        Err(flaw) => Err(refused(flaw.why).with_context("line", flaw.line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtide_core::store::Revision;

    fn named(kind: &str, namespace: Option<&str>, name: &str) -> ResourceRef {
        ResourceRef::new("", kind, namespace, name).unwrap()
    }

    #[test]
    fn every_reference_has_its_own_file() {
        for (reference, file) in [
            (named("service", None, "web"), "web.service"),
            (named("service", None, "web@"), "web@.service"),
            (named("timer", None, "a.service"), "a.service.timer"),
            (named("service", None, "a\\x2db"), "a\\x2db.service"),
            (named("service.d", Some("web"), "10-limits"), "web.service.d/10-limits.conf"),
            (named("service.d", Some("web@1"), "10"), "web@1.service.d/10.conf"),
        ] {
            let found = Units.file(&reference).unwrap();
            assert_eq!(found.to_string(), file);
            assert_eq!(Units.read(&found, &Bytes::new()).unwrap().0, reference);
        }
    }

    #[test]
    fn a_reference_without_a_file_is_refused() {
        for reference in [
            ResourceRef::new("apps", "service", None, "web").unwrap(),
            named("service", Some("shop"), "web"),
            named("service.d", None, "web"),
            named("Deployment", None, "web"),
            named("service", None, "web+1"),
            named("service", None, ".web"),
            named("service", None, &"a".repeat(255)),
        ] {
            assert_eq!(Units.file(&reference).unwrap_err().kind(), ErrorKind::InvalidInput, "{reference}");
        }
    }

    #[test]
    fn an_invalid_unit_is_refused() {
        let web = named("service", None, "web");
        for (bytes, why) in [(&b"# one\n[Unit\n"[..], "not closed"), (b"[Unit]\n\xff=1\n", "UTF-8")] {
            let error = Units.text(&web, &Document::new(ResourceFormat::Native, bytes)).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.message().contains(why), "{error}");
            assert_eq!(error.fact("line"), Some("2"), "{error}");
            let native = Document::new(ResourceFormat::Native, bytes);
            let found = Arc::new(Resource::new(web.clone(), native, Revision(1)));
            for format in [ResourceFormat::Json, ResourceFormat::Yaml] {
                let shown = Units.shown(&found, format).unwrap_err();
                assert_eq!(shown.message(), error.message());
                assert_eq!(shown.fact("line"), Some("2"), "{shown}");
            }
        }
    }

    #[test]
    fn each_form_is_shown_in_the_others() {
        let web = named("service", None, "web");
        let text = "# kept\n[Service]\nExecStart=/bin/a\n";
        let native = Document::new(ResourceFormat::Native, text);
        let native = Arc::new(Resource::new(web.clone(), native, Revision(1)));
        let json = Units.shown(&native, ResourceFormat::Json).unwrap();
        assert_eq!(Units.shown(&native, ResourceFormat::Native).unwrap(), native);
        let yaml = Units.shown(&native, ResourceFormat::Yaml).unwrap();
        assert_eq!(Units.text(&web, &yaml.document).unwrap(), Units.text(&web, &json.document).unwrap());
        let back = Units.shown(&json, ResourceFormat::Native).unwrap();
        assert_eq!(back.document.bytes, "[Service]\nExecStart=/bin/a\n");
    }
}
