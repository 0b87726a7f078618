//! The identity of a resource: [`ResourceRef`].

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};

/// The identity of a resource: group, kind, namespace and name, all four.
///
/// Only an allow-list of characters can be in it, and `/` is none of them, so that the text `group/kind/namespace/name` is
/// the identity itself: no two resources share one, it needs no escaping as a key, and it can be read back with `parse`. A
/// missing part is empty. In JSON it is an object of the four parts.
///
/// * group: at most 253 ASCII letters, digits, `-` and `.`; empty for the core group;
/// * kind: 1 to 63 ASCII letters, digits, `-`, `_` and `.`, of which the first is a letter;
/// * namespace: at most 253 characters as in a name; none for a resource without a namespace;
/// * name: 1 to 255 ASCII letters, digits, `-`, `_`, `.`, `:`, `@`, `+`, `~` and `\`, at least one letter or digit among them.
///
/// They are ordered by that text, which is the order of every listing. A clone costs nothing: all of it is one shared text.
///
/// ```
/// use runtide_core::store::ResourceRef;
///
/// let web = ResourceRef::new("apps", "Deployment", "shop", "web")?;
/// assert_eq!(web.to_string(), "apps/Deployment/shop/web");
/// assert_eq!("apps/Deployment/shop/web".parse::<ResourceRef>()?, web);
/// assert_eq!(ResourceRef::new("", "Node", None, "n1")?.as_str(), "/Node//n1");
/// assert!(ResourceRef::new("apps", "Deployment", "shop", "../web").is_err());
/// # Ok::<(), runtide_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ResourceRef {
    text: Arc<str>,
    /// End offset of each part but the last, in bytes; a slash follows each.
    ends: [u16; 3],
}

/// The most bytes of a part.
const GROUP: usize = 253;
const KIND: usize = 63;
const NAMESPACE: usize = 253;
const NAME: usize = 255;

impl ResourceRef {
    /// Puts the parts together.
    ///
    /// # Errors
    /// `InvalidInput`, with the part that is not allowed.
    pub fn new<'a>(group: &str, kind: &str, namespace: impl Into<Option<&'a str>>, name: &str) -> Result<Self> {
        let namespace = namespace.into();
        if namespace == Some("") {
            return Err(bad("namespace", "", "it is empty: what belongs to no namespace has none"));
        }
        Self::of([group, kind, namespace.unwrap_or(""), name])
    }

    fn of(parts: [&str; 4]) -> Result<Self> {
        let [group, kind, namespace, name] = parts;
        check("group", group, GROUP, |byte| matches!(byte, b'-' | b'.'))?;
        check("kind", kind, KIND, |byte| matches!(byte, b'-' | b'.' | b'_'))?;
        if !kind.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err(bad("kind", kind, "its first character is a letter"));
        }
        for (part, text, most) in [("namespace", namespace, NAMESPACE), ("name", name, NAME)] {
            check(part, text, most, |byte| matches!(byte, b'-' | b'.' | b'_' | b':' | b'@' | b'+' | b'~' | b'\\'))?;
            if !(text.bytes().any(|byte| byte.is_ascii_alphanumeric()) || part == "namespace" && text.is_empty()) {
                return Err(bad(part, text, "it has at least one letter or digit"));
            }
        }
        let mut ends = [0; 3];
        let mut at = 0;
        for (end, part) in ends.iter_mut().zip(parts) {
            at += part.len();
            // The parts are far shorter than that.
            *end = u16::try_from(at).unwrap_or(u16::MAX);
            at += 1;
        }
        Ok(Self { text: parts.join("/").into(), ends })
    }

    fn part(&self, from: usize, to: usize) -> &str {
        self.text.get(from..to).unwrap_or("")
    }

    fn ends(&self) -> [usize; 3] {
        self.ends.map(usize::from)
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        let [group, _, _] = self.ends();
        self.part(0, group)
    }

    /// The kind, as `Deployment`.
    pub fn kind(&self) -> &str {
        let [group, kind, _] = self.ends();
        self.part(group + 1, kind)
    }

    /// The namespace, if it belongs to one.
    pub fn namespace(&self) -> Option<&str> {
        let [_, kind, namespace] = self.ends();
        Some(self.part(kind + 1, namespace)).filter(|namespace| !namespace.is_empty())
    }

    /// The name.
    pub fn name(&self) -> &str {
        let [_, _, namespace] = self.ends();
        self.part(namespace + 1, self.text.len())
    }

    /// `group/kind/namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text of [`Self::as_str`], which all clones share.
    pub fn shared(&self) -> &Arc<str> {
        &self.text
    }

    /// `group/kind/namespace/`: the common prefix of all resources of this kind in this namespace, and of no others.
    pub fn scope(&self) -> &str {
        let [_, _, namespace] = self.ends();
        self.part(0, namespace + 1)
    }
}

fn bad(part: &'static str, text: &str, why: &str) -> Error {
    // A hostile part may be of any size.
    let shown: String = text.chars().take(64).collect();
    Error::new(ErrorKind::InvalidInput, "resource_ref.new", format!("not a {part}: {why}"))
        .with_context(part, format!("{shown:?}"))
}

fn check(part: &'static str, text: &str, most: usize, punctuation: impl Fn(u8) -> bool) -> Result<()> {
    if text.len() > most {
        return Err(bad(part, text, &format!("it has {} bytes, and {most} is the most", text.len())));
    }
    match text.bytes().find(|byte| !byte.is_ascii_alphanumeric() && !punctuation(*byte)) {
        Some(byte) => Err(bad(part, text, &format!("'{}' cannot be in it", byte.escape_ascii()))),
        None => Ok(()),
    }
}

impl FromStr for ResourceRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(kind), Some(namespace), Some(name), None) => Self::of([group, kind, namespace, name]),
            _ => Err(bad("reference", text, "it is group/kind/namespace/name")),
        }
    }
}

impl PartialEq for ResourceRef {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ResourceRef {}

impl PartialOrd for ResourceRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ResourceRef {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for ResourceRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// The JSON form.
#[derive(Serialize, Deserialize)]
struct Parts<'a> {
    group: std::borrow::Cow<'a, str>,
    kind: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<std::borrow::Cow<'a, str>>,
    name: std::borrow::Cow<'a, str>,
}

impl Serialize for ResourceRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let (group, kind, namespace, name) = (self.group(), self.kind(), self.namespace(), self.name());
        Parts { group: group.into(), kind: kind.into(), namespace: namespace.map(Into::into), name: name.into() }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ResourceRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let parts = Parts::deserialize(deserializer)?;
        Self::new(&parts.group, &parts.kind, parts.namespace.as_deref(), &parts.name).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_part_counts() {
        let base = ResourceRef::new("apps", "Deployment", "shop", "web").unwrap();
        for other in [
            ResourceRef::new("apps.x", "Deployment", "shop", "web"),
            ResourceRef::new("apps", "DaemonSet", "shop", "web"),
            ResourceRef::new("apps", "Deployment", "shop2", "web"),
            ResourceRef::new("apps", "Deployment", None, "web"),
            ResourceRef::new("apps", "Deployment", "shop", "Web"),
        ] {
            assert_ne!(base, other.unwrap());
        }
        assert_eq!(
            (base.group(), base.kind(), base.namespace(), base.name()),
            ("apps", "Deployment", Some("shop"), "web")
        );
        assert_eq!(base.scope(), "apps/Deployment/shop/");
    }

    #[test]
    fn a_forbidden_part_is_refused_and_named() {
        let long = "a".repeat(1 << 20);
        for (group, kind, namespace, name) in [
            ("a/b", "K", None, "n"),
            ("", "", None, "n"),
            ("", "1K", None, "n"),
            ("", "/etc", None, "n"),
            ("", "K", Some(""), "n"),
            ("", "K", Some(".."), "n"),
            ("", "K", Some("a/b"), "n"),
            ("", "K", None, ""),
            ("", "K", None, ".."),
            ("", "K", None, "a\0b"),
            ("", "K", None, "ä"),
            ("", "K", None, "a b"),
            ("", "K", None, &long),
        ] {
            let error = ResourceRef::new(group, kind, namespace, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().len() < 300, "{error}");
        }
        for text in ["", "a", "a/b/c", "a/K/n/x/y", "a/K/n/"] {
            assert!(text.parse::<ResourceRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_has_the_parts_and_is_checked() {
        let node = ResourceRef::new("", "Node", None, "n1").unwrap();
        let json = serde_json::to_string(&node).unwrap();
        assert_eq!(json, r#"{"group":"","kind":"Node","name":"n1"}"#);
        assert_eq!(serde_json::from_str::<ResourceRef>(&json).unwrap(), node);
        assert!(serde_json::from_str::<ResourceRef>(r#"{"group":"","kind":"Node","name":"../n1"}"#).is_err());
    }

    proptest! {
        #[test]
        fn the_text_is_read_back_as_the_same(
            group in "[a-z.-]{0,12}", kind in "[A-Za-z][A-Za-z._-]{0,8}", namespace in prop::option::of("[a-z][a-z0-9_.:@-]{0,9}"), name in "[a-zA-Z0-9][a-z_.:@+~\\\\-]{0,12}",
        ) {
            let reference = ResourceRef::new(&group, &kind, namespace.as_deref(), &name).unwrap();
            prop_assert_eq!(&reference.as_str().parse::<ResourceRef>().unwrap(), &reference);
            prop_assert_eq!((reference.group(), reference.kind()), (&*group, &*kind));
            prop_assert_eq!((reference.namespace(), reference.name()), (namespace.as_deref(), &*name));
            prop_assert!(reference.as_str().starts_with(reference.scope()));
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            if let Ok(reference) = text.parse::<ResourceRef>() {
                prop_assert_eq!(reference.as_str(), text);
            }
        }
    }
}
