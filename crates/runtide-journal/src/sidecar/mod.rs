//! Sidecars, composed over a backend: an instance with its network, started whole or not at all.

mod handover;
mod ready;
mod spec;
mod start;
mod stop;
mod wrapper;

pub use self::wrapper::Sidecars;
