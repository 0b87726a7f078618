//! The kit for backends: what each of them would otherwise write again.

pub use crate::{__names as names, __setters as setters};
