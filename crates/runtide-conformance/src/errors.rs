//! Checks of all that an error shows: [`repetition`].

use std::error::Error as StdError;

use runtide_core::Error;

/// Returns what an error shows twice, in `Display`, in `Debug`, or along its causes as a printer of chains writes them
/// (`error: cause: cause`); `None` if it shows everything once.
///
/// A fact with a key that occurs twice counts, a text that a later one contains or repeats, an empty text, and a bracket without its
/// counterpart.
///
/// ```
/// use runtide_conformance::errors::repetition;
/// use runtide_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Unavailable, "demo.list", "no connection: refused")
///     .with_context("backend", "demo")
///     .with_source(std::io::Error::other("refused"));
/// assert_eq!(repetition(&error.with_context("backend", "demo")), None);
/// ```
pub fn repetition(error: &Error) -> Option<String> {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    // The words of each text without what our own errors put around them.
    let mut words = vec![error.message().to_owned()];
    while let Some(next) = cause {
        texts.push(next.to_string());
        words.push(next.downcast_ref().map_or_else(|| next.to_string(), |error: &Error| error.message().to_owned()));
        cause = next.source();
    }
    for (at, word) in words.iter().enumerate() {
        if word.trim().is_empty() || word.ends_with([':', ' ']) {
            return Some(format!("an empty text, or an open end: {texts:?}"));
        }
        if let Some(other) = words.iter().skip(at + 1).find(|other| word.contains(*other) || other.contains(word)) {
            return Some(format!("{other:?} and {word:?}"));
        }
    }
    let chain = texts.join(": ");
    for (key, value) in error.context() {
        if *key != "reason" && chain.matches(&format!("{key}={value}")).count() != 1 {
            return Some(format!("{key}={value} in {chain}"));
        }
    }
    let debug = format!("{error:?}");
    let mut lines: Vec<&str> = debug.lines().map(str::trim).collect();
    lines.sort_unstable();
    if let Some(line) = lines.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first())) {
        return Some(format!("{line:?} in {debug}"));
    }
    unbalanced(&texts.concat()).then(|| format!("a bracket without its counterpart in {chain}"))
}

/// Returns true if a round bracket closes that was not opened, or stays open.
fn unbalanced(text: &str) -> bool {
    let mut open = 0_usize;
    for char in text.chars() {
        match char {
            '(' => open += 1,
            ')' => match open.checked_sub(1) {
                Some(left) => open = left,
                None => return true,
            },
            _ => {}
        }
    }
    open > 0
}
