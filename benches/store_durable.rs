//! Durable applies, next to the log alone.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use runtide_benches::{criterion, store::durable};

fn main() {
    durable(&mut criterion());
}
