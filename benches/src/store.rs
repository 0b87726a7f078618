//! The stores' works, and who does them: the same in `store` (Runtide next to the bare map that stands for the limit) and in
//! `peers/` (next to other crates too), so that no code is written twice.
//!
//! Resources are of one kind, a hundred namespaces with as many in each, in an order that is not theirs.

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
