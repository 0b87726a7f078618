//! Prefetching: reads resources that are scattered over memory before they are used. The CPU overlaps these reads, whereas an
//! update of a reference count waits for every memory access before it.

use std::{hint::black_box, sync::Arc};

use runtide_core::store::Resource;

/// Number of resources in one prefetch: few enough for the L1 cache.
pub(super) const FEW: usize = 64;

/// Prefetches the headers of the resources, with their reference counts.
pub(super) fn ask<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) {
    black_box(resources.map(Arc::strong_count).fold(0, usize::wrapping_add));
}

/// Prefetches the resources and the first bytes of their references and bodies.
pub(super) fn ask_for_bytes<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) {
    let first = |bytes: &[u8]| bytes.first().copied().map_or(0, usize::from);
    let read = |one: &Arc<Resource>| first(one.reference.as_str().as_bytes()) + first(&one.document.bytes);
    black_box(resources.map(read).fold(0, usize::wrapping_add));
}
