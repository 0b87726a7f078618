//! Checks of all that an error shows: [`repetition`].

use std::error::Error as StdError;

use runtide_core::Error;

/// Returns what an error shows twice, in `Display`, in its form with causes (`{:#}`), in `Debug`, or along its causes as a printer
/// of chains writes them (`error: cause: cause`); `None` if it shows everything once.
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
    shown_twice(error).or_else(|| {
        let chain = chain(error);
        unbalanced(&chain).then(|| format!("a bracket without its counterpart in {chain}"))
    })
}

/// Returns the texts of an error and of its causes, as a printer of chains writes them.
fn chain(error: &Error) -> String {
    let texts = causes(error).map(ToString::to_string);
    std::iter::once(error.to_string()).chain(texts).collect::<Vec<_>>().join(": ")
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// [`repetition`], except for the brackets: an error may quote a text of the runtime that has one without its counterpart.
pub(crate) fn shown_twice(error: &Error) -> Option<String> {
    // The words of each text without what our own errors put around them.
    let mut words = vec![error.message().to_owned()];
    words.extend(causes(error).map(|cause| {
        cause.downcast_ref().map_or_else(|| cause.to_string(), |error: &Error| error.message().to_owned())
    }));
    let chain = chain(error);
    for (at, word) in words.iter().enumerate() {
        if word.trim().is_empty() || word.ends_with([':', ' ']) {
            return Some(format!("an empty text, or an open end: {chain}"));
        }
        if let Some(other) = words.iter().skip(at + 1).find(|other| word.contains(*other) || other.contains(word)) {
            return Some(format!("{other:?} and {word:?}"));
        }
    }
    for (key, value) in error.context() {
        if *key != "reason" && chain.matches(&format!("{key}={value}")).count() != 1 {
            return Some(format!("{key}={value} in {chain}"));
        }
    }
    let line = format!("{error:#}");
    let line = line.strip_prefix(&format!("{}: {}: ", error.operation(), error.kind())).unwrap_or(&line);
    if let Some(word) = words.iter().find(|word| line.matches(word.as_str()).count() != 1) {
        return Some(format!("not once {word:?}, in {line}"));
    }
    let debug = format!("{error:?}");
    let mut lines: Vec<&str> = debug.lines().map(str::trim).collect();
    lines.sort_unstable();
    if let Some(line) = lines.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first())) {
        return Some(format!("{line:?} in {debug}"));
    }
    None
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
