//! YAML 1.2 with its core schema.

mod plain;
mod read;
mod write;

pub(super) use self::{read::read, write::write};
use super::{Bounded, Outcome, Problem, Value, documents, value};
