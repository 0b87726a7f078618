//! The modules of a crate, read from its files, and their uses of each other.
//!
//! The files are split into tokens as rustc does it; names are then followed through `use`, also through names that another
//! module shows under its own (`pub use`), to the file that defines them. Bodies of macros are read as well. Not followed: a name that
//! came with `use …::*` and is written alone, and the expansion of a macro.

mod graph;
mod names;
mod tokens;

pub(crate) use self::graph::{Graph, Use};
