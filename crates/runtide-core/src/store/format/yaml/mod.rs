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
