//! The log against real files.

mod basics;
