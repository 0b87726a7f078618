//! The user's labels.

mod decode;

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::error::Result;

/// The user's labels, verbatim, in key order. Cheap to clone, and all of the text lies in one piece: a daemon with 100,000
/// containers has a million labels.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<Pairs>>);

/// At least one pair: labels without a pair have no `Pairs`.
#[derive(PartialEq, Eq)]
struct Pairs {
    /// Key, value, key, value, …
    text: Box<str>,
    /// End of each pair's key, and of its value.
    ends: Box<[(usize, usize)]>,
}

impl Pairs {
    fn pair(&self, at: usize) -> Option<(&str, &str)> {
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).map(|(_, end)| *end))?;
        let (middle, end) = *self.ends.get(at)?;
        Some((self.text.get(begin..middle)?, self.text.get(middle..end)?))
    }
}

/// One condition on labels; of several all must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LabelMatch {
    /// The key exists.
    Has(String),
    /// The key does not exist.
    Lacks(String),
    /// The key has this value.
    Is {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
}

impl LabelMatch {
    /// `key=value`.
    pub fn is(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Is { key: key.into(), value: value.into() }
    }

    /// `true` if the condition holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Has(key) => labels.contains_key(key),
            Self::Lacks(key) => !labels.contains_key(key),
            Self::Is { key, value } => labels.get(key) == Some(value.as_str()),
        }
    }
}

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |pairs| pairs.ends.len())
    }

    /// `true` if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let pairs = self.0.as_deref()?;
        let compared = |at: usize| pairs.pair(at).map_or(Ordering::Greater, |(known, _)| known.cmp(key));
        let (mut low, mut high) = (0, pairs.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            match compared(middle) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return pairs.pair(middle).map(|(_, value)| value),
            }
        }
        None
    }

    /// `true` if the key exists.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| (0..pairs.ends.len()).filter_map(|at| pairs.pair(at)))
    }

    /// Adds or replaces a label. It copies all of them: to make many, collect them.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        *self = self.iter().chain([(key.as_ref(), value.as_ref())]).collect();
    }

    /// Reads the labels below `prefix` into the application's own type: `p.a.b=1` becomes `T { a: A { b: 1 } }` for the
    /// prefix `p`, which may be written `p.` as well. A prefix that ends with `/`, as `example.com/`, is followed by the keys
    /// themselves; an empty one selects every label.
    ///
    /// * For an `Option`, labels of which none is below the prefix are `None`.
    /// * Numbers are parsed; a `bool` is `true`, `1`, `yes`, `on`, or `false`, `0`, `no`, `off`, in any case.
    /// * A list is numbered keys (`p.list.0=a`, in numeric order) or one value with commas (`p.list=a,b`).
    /// * A map takes any keys; in a map of text, numbers or flags they keep their dots: `p.a.b=1` is the key `a.b`. An absent
    ///   key is `None` for an `Option`, or the field's serde default.
    /// * Labels outside the prefix, and unknown keys below it, are left alone unless `T` denies unknown fields.
    ///
    /// ```
    /// use runtide_core::Labels;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Koi { dns: Dns, #[serde(default)] announce: bool }
    /// #[derive(serde::Deserialize)]
    /// struct Dns { name: String, ttl: Option<u32> }
    ///
    /// let labels: Labels = [("koi.dns.name", "web"), ("koi.announce", "yes"), ("other", "x")].into_iter().collect();
    /// let koi: Koi = labels.decode("koi")?;
    /// assert_eq!((koi.dns.name.as_str(), koi.dns.ttl, koi.announce), ("web", None, true));
    ///
    /// let other: Labels = [("other", "x")].into_iter().collect();
    /// let bad: Labels = [("koi.dns.name", "web"), ("koi.dns.ttl", "soon")].into_iter().collect();
    /// assert!(other.decode::<Option<Koi>>("koi")?.is_none(), "labels of another application");
    /// assert!(bad.decode::<Koi>("koi").err().unwrap().to_string().contains("key=koi.dns.ttl"));
    /// # Ok::<(), runtide_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput`, with the key that does not parse in its context.
    pub fn decode<T: DeserializeOwned>(&self, prefix: &str) -> Result<T> {
        decode::decode(self, prefix)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// If a key comes twice, the last value counts.
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(K, V)> = pairs.into_iter().collect();
        pairs.sort_by(|(one, _), (other, _)| one.as_ref().cmp(other.as_ref()));
        pairs.dedup_by(|later, earlier| {
            let same = later.0.as_ref() == earlier.0.as_ref();
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        if pairs.is_empty() {
            return Self(None);
        }
        let length = pairs.iter().map(|(key, value)| key.as_ref().len() + value.as_ref().len()).sum();
        let mut text = String::with_capacity(length);
        let mut ends = Vec::with_capacity(pairs.len());
        for (key, value) in &pairs {
            text.push_str(key.as_ref());
            let middle = text.len();
            text.push_str(value.as_ref());
            ends.push((middle, text.len()));
        }
        Self(Some(Arc::new(Pairs { text: text.into_boxed_str(), ends: ends.into_boxed_slice() })))
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of text to text")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Labels, M::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &Labels) -> Vec<(&str, &str)> {
        labels.iter().collect()
    }

    #[test]
    fn they_are_in_order_and_the_last_of_two_counts() {
        let labels: Labels =
            [("b", "1"), ("", "empty"), ("a", ""), ("b", "2"), ("ä", "ö"), ("b", "3")].into_iter().collect();
        assert_eq!(of(&labels), [("", "empty"), ("a", ""), ("b", "3"), ("ä", "ö")]);
        for (key, value) in labels.iter() {
            assert_eq!(labels.get(key), Some(value));
        }
        assert_eq!((labels.get("c"), labels.get("aa"), labels.len()), (None, None, 4));
    }

    #[test]
    fn keys_and_values_that_run_together_are_distinguished() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
        assert_ne!(labels(&[("ab", "c")]), labels(&[("a", "bc")]));
        assert_ne!(labels(&[("a", "b"), ("c", "")]), labels(&[("a", ""), ("bc", "")]));
        assert_eq!(labels(&[]), Labels::new());
    }

    #[test]
    fn adding_replaces() {
        let mut labels = Labels::new();
        let empty = labels.clone();
        labels.insert("a", "1");
        labels.insert("b", "2");
        labels.insert("a", "3");
        assert_eq!(of(&labels), [("a", "3"), ("b", "2")]);
        assert!(empty.is_empty(), "a clone is not touched");
    }

    #[test]
    fn their_json_is_a_map() {
        let labels: Labels = [("b", "2"), ("a", "1")].into_iter().collect();
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(json, r#"{"a":"1","b":"2"}"#);
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
        assert!(serde_json::from_str::<Labels>(r#"{"a":1}"#).is_err());
    }
}
