//! The modules of a crate, read from its files, and what each uses of the others.
//!
//! The files are split into tokens as rustc does it; names are then followed through `use`, also through names that another
//! module shows under its own (`pub use`), to the file that defines them. Bodies of macros are read as well. Not followed: a name that
//! came with `use …::*` and is written alone, and what a macro makes when it is expanded.

mod graph;
mod names;
mod tokens;

pub(crate) use self::graph::{Graph, Use};
