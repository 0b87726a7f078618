//! Parsers of the arguments.

use runtide_core::{
    LabelMatch,
    store::{ResourceFormat, ResourceRef, Revision, Since},
};

pub(crate) fn reference(text: &str) -> Result<ResourceRef, String> {
    text.parse().map_err(|error: runtide_core::Error| error.message().to_owned())
}

pub(crate) fn format(text: &str) -> Result<ResourceFormat, String> {
    text.parse().map_err(|error: runtide_core::Error| error.message().to_owned())
}

pub(crate) fn label(text: &str) -> Result<LabelMatch, String> {
    match (text.split_once('='), text.strip_prefix('!')) {
        (Some(("", _)), _) | (None, Some("")) => Err("the key is missing".to_owned()),
        (None, _) if text.is_empty() => Err("expected KEY, !KEY or KEY=VALUE".to_owned()),
        (Some((key, value)), _) => Ok(LabelMatch::is(key, value)),
        (None, Some(key)) => Ok(LabelMatch::Lacks(key.to_owned())),
        (None, None) => Ok(LabelMatch::Has(text.to_owned())),
    }
}

pub(crate) fn since(text: &str) -> Result<Since, String> {
    match text {
        "now" => Ok(Since::Now),
        "start" => Ok(Since::Start),
        _ => {
            let revision = text.parse().map_err(|_| "expected now, start or a revision".to_owned())?;
            Ok(Since::After(Revision(revision)))
        }
    }
}
