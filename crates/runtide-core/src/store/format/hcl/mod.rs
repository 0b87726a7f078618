//! HCL 2 in its native syntax.

mod guard;
mod heading;
mod read;
mod write;

use hcl_edit::structure::Body;

use self::guard::DEPTH;
pub(super) use self::{
    heading::{Heading, heading, labels},
    read::read,
    write::write,
};
use super::{Bounded, Outcome, Problem, Value, value};

/// Parses the text, after the checks of [`guard`].
fn parse(text: &str) -> Outcome<Body> {
    guard::check(text)?;
    hcl_edit::parser::parse_body(text).map_err(|error| {
        let location = error.location();
        Problem::invalid(format!("{}, in line {} column {}", error.message(), location.line(), location.column()))
    })
}
