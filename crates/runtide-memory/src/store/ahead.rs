//! Reading what lies all over the memory before it is used, one after the other: these reads do not wait for each other, while
//! a count of references that is changed waits for all that came before it.

use std::{hint::black_box, sync::Arc};

use runtide_core::store::Resource;

/// As many resources are asked for at once: fewer than the nearest cache holds.
pub(super) const FEW: usize = 64;

/// Asks for resources.
pub(super) fn ask<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) {
    black_box(resources.map(Arc::strong_count).fold(0, usize::wrapping_add));
}

/// Asks for resources, and for their bytes.
pub(super) fn ask_for_bytes<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) {
    let first = |bytes: &[u8]| bytes.first().copied().map_or(0, usize::from);
    let read = |one: &Arc<Resource>| first(one.reference.as_str().as_bytes()) + first(&one.document.bytes);
    black_box(resources.map(read).fold(0, usize::wrapping_add));
}
