//! The laws of stores, on one real member and on three: each law has its own members, behind proxies that can cut them off
//! from their clients and from each other.

mod harness;

/// One member.
mod one {
    runtide_conformance::store_suite!(super::harness::one);
}

/// A cluster of three.
mod three {
    runtide_conformance::store_suite!(super::harness::three);
}
