//! One file per capability: what [`Client`](crate::client::Client) can do beside watching.

mod lifecycle;
