//! Decoding of a reply in which one member cannot be read: the reply is read without that member, and the member is named. Only a
//! state has no "unknown" that would be true, so callers refuse a reply without it.

use std::{borrow::Cow, collections::BTreeMap};

use runtide_core::Result;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{client::Client, dialect::Dialect};

/// Levels of members that are searched; deeper than any reply that is read.
const DEPTH: usize = 8;

/// Decodes `json` with `read`. If that fails, the smallest members that are in the way (a number beyond its type, a word in place
/// of a number) are left out, and their paths returned.
///
/// # Errors
/// The first error of `read`, if leaving members out does not help: `json` is cut, or is no JSON, or no object.
pub fn lenient<T>(json: &str, read: impl Fn(&str) -> serde_json::Result<T>) -> serde_json::Result<(T, Vec<String>)> {
    let error = match read(json) {
        Ok(value) => return Ok((value, Vec::new())),
        Err(error) => error,
    };
    let mut left_out = Vec::new();
    let mended = Search { left_out: &mut left_out }.mend(json, &|text| read(text).is_ok(), "", DEPTH);
    match mended.and_then(|mended| read(&mended).ok()) {
        Some(value) => Ok((value, left_out)),
        None => Err(error),
    }
}

/// Logs the members that were left out, if any.
pub fn log_left_out(backend: &runtide_core::BackendId, about: &str, left_out: &[String]) {
    if !left_out.is_empty() {
        tracing::warn!(%backend, instance = about, fields = left_out.join(", "), "left out: these fields cannot be read");
    }
}

/// One object of an answer. A member that cannot be read is left out, and the log names it.
///
/// # Errors
/// `Protocol` for an answer that cannot be read without it either.
pub fn item<T: DeserializeOwned>(client: &Client<impl Dialect>, operation: &'static str, json: &[u8]) -> Result<T> {
    let read = lenient(&String::from_utf8_lossy(json), |json| serde_json::from_str(json));
    let (item, left_out) = read.map_err(|error| client.site(operation).undecodable(error))?;
    log_left_out(client.id(), operation, &left_out);
    Ok(item)
}

/// The objects of an answer that is a list; `null` is one without any.
///
/// # Errors
/// As [`item`], for the first that cannot be read.
pub fn items<T: DeserializeOwned>(
    client: &Client<impl Dialect>,
    operation: &'static str,
    json: &[u8],
) -> Result<Vec<T>> {
    let list: Option<Vec<&RawValue>> =
        serde_json::from_slice(json).map_err(|error| client.site(operation).undecodable(error))?;
    list.into_iter().flatten().map(|one| item(client, operation, one.get().as_bytes())).collect()
}

struct Search<'a> {
    left_out: &'a mut Vec<String>,
}

impl Search<'_> {
    /// The value without what `fits` refuses; `None` if no part of it fits.
    fn mend(&mut self, json: &str, fits: &dyn Fn(&str) -> bool, path: &str, depth: usize) -> Option<String> {
        if fits(json) {
            return Some(json.to_owned());
        }
        let depth = depth.checked_sub(1)?;
        if json.trim_start().starts_with('{') && fits("{}") {
            let members: BTreeMap<Key<'_>, &RawValue> = serde_json::from_str(json).ok()?;
            let mut kept = Vec::with_capacity(members.len());
            for (Key(key), value) in members {
                let name = serde_json::to_string(&key).ok()?;
                let path = if path.is_empty() { key.into_owned() } else { format!("{path}.{key}") };
                match self.mend(value.get(), &|value| fits(&format!("{{{name}:{value}}}")), &path, depth) {
                    Some(value) => kept.push(format!("{name}:{value}")),
                    None => self.left_out.push(path),
                }
            }
            return Some(format!("{{{}}}", kept.join(",")));
        }
        if json.trim_start().starts_with('[') && fits("[]") {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let mut kept = Vec::with_capacity(items.len());
            for (at, item) in items.into_iter().enumerate() {
                let path = format!("{path}[{at}]");
                match self.mend(item.get(), &|item| fits(&format!("[{item}]")), &path, depth) {
                    Some(item) => kept.push(item),
                    None => self.left_out.push(path),
                }
            }
            return Some(format!("[{}]", kept.join(",")));
        }
        None
    }
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A number that stands in a text, as `Exited (137)`; `None`, and a line in the log, if it is none of this type.
pub fn number<T: std::str::FromStr>(text: &str, field: &'static str) -> Option<T> {
    let number = text.parse().ok();
    if number.is_none() {
        let shown: String = text.chars().take(40).collect();
        tracing::warn!(field, value = shown, "left out: no number of this field's range");
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Reply {
        code: Option<i32>,
        name: String,
        inner: Option<Box<Reply>>,
        ports: Vec<u16>,
        list: Vec<Reply>,
    }

    fn read(json: &str) -> (Reply, Vec<String>) {
        lenient(json, |json| serde_json::from_str(json)).unwrap()
    }

    #[test]
    fn a_member_that_cannot_be_read_is_left_out_and_named() {
        for number in
            ["3221225786", "-9999999999", "1.5", "1e400", "18446744073709551616", "\"7\"", "{}", "[[1]]", "true"]
        {
            let (reply, left_out) = read(&format!(r#"{{"name":"a","code":{number}}}"#));
            assert_eq!((reply.code, reply.name.as_str()), (None, "a"), "{number}");
            assert_eq!(left_out, ["code"], "{number}");
        }
        assert_eq!(
            read(r#"{"name":"a","code":-5}"#),
            (Reply { code: Some(-5), name: "a".into(), ..Reply::default() }, vec![])
        );
    }

    #[test]
    fn only_the_smallest_part_is_left_out() {
        let (reply, left_out) = read(
            r#"{"inner":{"name":"in","code":3221225786},"ports":[80,70000,443],"list":[{"name":"x"},7,{"name":"y","ports":[-1]}]}"#,
        );
        assert_eq!(reply.inner.unwrap().name, "in");
        assert_eq!(reply.ports, [80, 443]);
        assert_eq!(reply.list.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(left_out, ["inner.code", "list[1]", "list[2].ports[0]", "ports[1]"]);
    }

    #[test]
    fn what_is_no_object_or_is_cut_is_an_error() {
        for json in ["", "7", r#"{"name":"a","code":99"#, r#"{"name":"a"} x"#, "nonsense"] {
            assert!(lenient(json, |json| serde_json::from_str::<Reply>(json)).is_err(), "{json}");
        }
    }

    #[test]
    fn a_deep_value_is_left_out_without_following_it_down() {
        let deep = format!("{}1{}", "{\"inner\":".repeat(100_000), "}".repeat(100_000));
        let (reply, left_out) = read(&format!(r#"{{"name":"a","inner":{deep}}}"#));
        assert_eq!(reply.name, "a");
        assert_eq!(left_out.len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = lenient(&text, |json| serde_json::from_str::<Reply>(json));
        }
    }
}
