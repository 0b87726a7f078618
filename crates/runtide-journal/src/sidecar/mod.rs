//! Sidecars, composed over a backend: an instance with its network and image, started completely or not at all.

mod handover;
mod ready;
mod sidecars;
mod spec;
mod start;
mod stop;
mod wrapper;

pub use self::sidecars::Sidecars;
