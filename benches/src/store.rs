//! Workloads for stores, and the contenders that run them. The benches here (Runtide next to the bare map that stands for the
//! limit) and those in `peers/` (next to other crates too) share this code.
//!
//! All resources have the same kind; they are spread evenly over a hundred namespaces and written in shuffled order.

mod contender;
mod durable;
mod held;
mod nested;
mod objects;
mod peered;
mod report;
mod runtide;
mod turns;
pub mod watch;
mod work;

pub use self::{
    contender::Contender,
    durable::durable,
    held::held,
    nested::Nested,
    objects::{KIND, NAMESPACES, Object, Objects},
    peered::Peered,
    report::compare,
    runtide::Runtide,
    work::{Peer, Turn, Work},
};
