//! Finds out if a document is a manifest: a map that names itself by `apiVersion` and `kind`.

use granit_parser::{Event, Parser};
use memchr::memmem;

use super::options;

/// The result of a search in the outermost map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// It has a value for each of the two keys.
    Both,
    /// It has not.
    No,
    /// It may: both words are in the text, and the parser refuses what kubectl may still read.
    Unreadable,
}

/// Searches for the two keys. Nothing is resolved, and reading stops at the second.
pub(super) fn names_itself(text: &str) -> Named {
    let may_have = |key: &str| memmem::find(text.as_bytes(), key.as_bytes()).is_some();
    // An escape may spell a key.
    let may_name_itself = text.contains('\\') || may_have("apiVersion") && may_have("kind");
    if !may_name_itself {
        return Named::No;
    }
    let (mut depth, mut is_key, mut found) = (0_usize, true, [false; 2]);
    let mut named = None;
    for event in Parser::new_from_str_with_options(text, options()) {
        let Ok((event, _)) = event else { return Named::Unreadable };
        match event {
            Event::SequenceStart(..) if depth == 0 => return Named::No,
            Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
            Event::MappingEnd | Event::SequenceEnd => {
                depth = depth.saturating_sub(1);
                if depth == 1 {
                    is_key = !is_key;
                }
            }
            Event::Scalar(text, ..) if depth == 1 && is_key => {
                named = ["apiVersion", "kind"].iter().position(|key| *key == text);
                is_key = false;
            }
            Event::Scalar(..) | Event::Alias(_) if depth == 1 => {
                if let Some(found) = named.take().and_then(|at: usize| found.get_mut(at)) {
                    *found = true;
                }
                is_key = !is_key;
            }
            _ => {}
        }
        if found == [true; 2] {
            return Named::Both;
        }
    }
    Named::No
}
