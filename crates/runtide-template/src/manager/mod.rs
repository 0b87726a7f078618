//! One file per capability: the verbs of [`Client`](crate::client::Client) other than watching.
//!
//! FORK: add or delete files, and their accessors in `backend.rs`. A verb that only some of your servers have is `Unsupported` on
//! the others, as `Capabilities` reports; no verb returns `Ok` without its effect.

mod lifecycle;
