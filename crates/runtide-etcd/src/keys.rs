//! Names of a store's keys.
//!
//! Below the prefix: `generation` names the generation that is live (the pointer), `data/<generation>/<reference>` are the
//! resources, `receipt` has the identity of the last delete, `settled` that of the last create whose outcome had to be found out, and
//! `restoring/<generation>` exists while a restore is under way.

use runtide_core::store::{ResourceRef, Selector};
use uuid::Uuid;

/// Most bytes of a prefix.
pub(crate) const LONGEST_PREFIX: usize = 255;

/// Bytes that keep keys, comparisons and all else of a request, its body aside: a key has less than 1,200 bytes, and the largest
/// request has four.
pub(crate) const OVERHEAD: usize = 8 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// Range from the first key to before the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// Name for a new generation.
pub(crate) fn new_generation() -> String {
    Uuid::now_v7().simple().to_string()
}

impl Keys {
    /// The prefix ends with a slash.
    pub(crate) fn below(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(crate) fn pointer(&self) -> Vec<u8> {
        format!("{}generation", self.prefix).into_bytes()
    }

    pub(crate) fn receipt(&self) -> Vec<u8> {
        format!("{}receipt", self.prefix).into_bytes()
    }

    /// Written to make sure that creates which were sent before cannot land any more.
    pub(crate) fn settled(&self) -> Vec<u8> {
        format!("{}settled", self.prefix).into_bytes()
    }

    pub(crate) fn restoring(&self, generation: &str) -> Vec<u8> {
        format!("{}restoring/{generation}", self.prefix).into_bytes()
    }

    pub(crate) fn resource(&self, generation: &str, reference: &ResourceRef) -> Vec<u8> {
        format!("{}data/{generation}/{reference}", self.prefix).into_bytes()
    }

    /// The pointer and the data of all generations.
    pub(crate) fn watched(&self) -> KeyRange {
        let mut to = self.pointer();
        to.push(0);
        KeyRange { from: format!("{}data/", self.prefix).into_bytes(), to }
    }

    /// The data of all generations.
    pub(crate) fn data(&self) -> KeyRange {
        below(format!("{}data/", self.prefix))
    }

    /// The data of one generation.
    pub(crate) fn generation(&self, generation: &str) -> KeyRange {
        below(format!("{}data/{generation}/", self.prefix))
    }

    /// Smallest range with all that a selector can match.
    pub(crate) fn selected(&self, generation: &str, selector: &Selector) -> KeyRange {
        let mut from = format!("{}data/{generation}/", self.prefix);
        for part in [&selector.group, &selector.kind, &selector.namespace] {
            let Some(part) = part else { return below(from) };
            from.push_str(part);
            from.push('/');
        }
        match &selector.name {
            None => below(from),
            Some(name) => {
                from.push_str(name);
                KeyRange { to: after(from.as_bytes()), from: from.into_bytes() }
            }
        }
    }

    /// Generation and reference in a key of data.
    pub(crate) fn parse<'a>(&self, key: &'a [u8]) -> Option<(&'a str, &'a str)> {
        let key = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"data/")?;
        std::str::from_utf8(key).ok()?.split_once('/')
    }
}

/// All keys that begin with the prefix, which ends with a slash.
fn below(prefix: String) -> KeyRange {
    // The character after a slash is `0`.
    let mut to = prefix.clone().into_bytes();
    to.pop();
    to.push(b'0');
    KeyRange { from: prefix.into_bytes(), to }
}

/// First key behind this one.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> Keys {
        Keys::below("/runtide/")
    }

    fn holds(range: &KeyRange, key: &[u8]) -> bool {
        range.from.as_slice() <= key && key < range.to.as_slice()
    }

    #[test]
    fn keys_are_as_documented() {
        let web = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
        assert_eq!(keys().resource("g1", &web), b"/runtide/data/g1/apps/Deployment/shop/web");
        assert_eq!(keys().pointer(), b"/runtide/generation");
        assert_eq!(keys().parse(b"/runtide/data/g1/apps/Deployment/shop/web"), Some(("g1", web.as_str())));
        for other in [&b"/runtide/generation"[..], b"/runtide/data/g1", b"/other/data/g1/x", b"/runtide/data/\xff/x"] {
            assert_eq!(keys().parse(other), None);
        }
    }

    #[test]
    fn the_watched_range_has_the_pointer_and_the_data_and_nothing_else() {
        let watched = keys().watched();
        let node = ResourceRef::new("", "Node", None, "n").unwrap();
        assert!(holds(&watched, &keys().pointer()) && holds(&watched, &keys().resource("g", &node)));
        for other in [keys().receipt(), keys().settled(), keys().restoring("g")] {
            assert!(!holds(&watched, &other));
        }
    }

    proptest! {
        #[test]
        fn a_selection_has_all_that_it_names_and_no_other_generation(
            group in "[a-b.]{0,2}", kind in "[AB]", namespace in prop::option::of("[ab]"), name in "[ab0]{1,2}",
            by_group: bool, by_kind: bool, by_namespace: bool, by_name: bool,
        ) {
            let reference = ResourceRef::new(&group, &kind, namespace.as_deref(), &name).unwrap();
            let mut selector = Selector::only(&reference);
            if !by_group { selector.group = None; }
            if !by_kind { selector.kind = None; }
            if !by_namespace { selector.namespace = None; }
            if !by_name { selector.name = None; }
            let range = keys().selected("g1", &selector);
            prop_assert!(holds(&range, &keys().resource("g1", &reference)));
            prop_assert!(!holds(&range, &keys().resource("g10", &reference)));
            prop_assert!(!holds(&range, &keys().resource("g0", &reference)));
        }
    }
}
