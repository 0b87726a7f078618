//! One writer of a store, many watchers: next to a bare ring and tokio's broadcast.

#![allow(missing_docs, reason = "an executable has no readers of its docs")]

use runtide_benches::{
    criterion,
    store::watch::{FANS, compare},
};

fn main() {
    compare(&FANS, &mut criterion());
}
