//! HCL 2, its native syntax.

mod guard;
mod heading;
mod read;
mod write;

use hcl_edit::structure::Body;

use self::guard::DEPTH;
pub(super) use self::{
    heading::{Heading, heading},
    read::read,
    write::write,
};
use super::{Bounded, Outcome, Problem, Value, value};

/// The text as its parser gives it.
fn parse(text: &str) -> Outcome<Body> {
    guard::check(text)?;
    hcl_edit::parser::parse_body(text).map_err(|error| {
        let place = error.location();
        Problem::invalid(format!("{}, in line {} column {}", error.message(), place.line(), place.column()))
    })
}
