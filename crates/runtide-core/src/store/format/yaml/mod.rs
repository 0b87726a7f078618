//! YAML: 1.2 with its core schema, or as kubectl reads it.

mod kubectl;
mod manifest;
mod plain;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use self::{read::read, write::write};
use super::{Bounded, Outcome, Problem, Value, documents, json, value};
use crate::store::Document;

/// Options of the parser: the bounds of a document.
fn options() -> granit_parser::Options {
    let mut options = granit_parser::options! {
        flow_nesting_limit: Document::MAX_DEPTH,
        block_nesting_limit: Document::MAX_DEPTH,
    };
    options.set_emit_comments(false);
    options
}
