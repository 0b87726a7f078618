//! Splits a YAML stream into its documents, byte for byte.
//!
//! `---` at the start of a line, followed by a blank or the line's end, begins a document anywhere, even within a text
//! (YAML 1.2.2, 9.1.2): no parser is needed to find it.

use std::ops::Range;

/// Returns the range of each document that has any content, with the comments and directives before it. A document extends to
/// the start of the next one.
pub(in crate::store) fn documents(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut begin = 0;
    let (mut marked, mut content) = (false, false);
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let length = line_length(rest.as_bytes());
        let line = rest.get(..length).unwrap_or_default();
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if let Some(behind) = marker(line, "---") {
            // Comments and directives before the marker belong to the document that it begins.
            if marked || content {
                if content {
                    found.push(begin..at);
                }
                begin = at;
            }
            (marked, content) = (true, has_content(behind));
        } else if marker(line, "...").is_some() {
            if content {
                found.push(begin..at + length);
            }
            begin = at + length;
            (marked, content) = (false, false);
        } else if has_content(line) && (marked || content || !line.starts_with('%')) {
            content = true;
        }
        at += length;
    }
    if content {
        found.push(begin..text.len());
    }
    found
}

/// Length of the first line in bytes, including its break: `\n`, `\r` or `\r\n`.
fn line_length(bytes: &[u8]) -> usize {
    match memchr::memchr2(b'\n', b'\r', bytes) {
        Some(end) if bytes.get(end..end + 2) == Some(b"\r\n") => end + 2,
        Some(end) => end + 1,
        None => bytes.len(),
    }
}

/// Returns the text behind a marker, if the line begins with it.
fn marker<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.strip_prefix(mark).filter(|behind| behind.is_empty() || behind.starts_with([' ', '\t', '\r', '\n']))
}

/// Returns true if the line has more than blanks and a comment.
fn has_content(line: &str) -> bool {
    let line = line.trim_start_matches([' ', '\t', '\r', '\n']);
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::documents;

    fn cut(text: &str) -> Vec<&str> {
        documents(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn each_document_keeps_its_bytes_and_its_comments() {
        let one = "# of the first\na: 1 # and this\n";
        let two = "---\n# of the second\nb: |\n  text\n  # of the text\n";
        let three = "--- c\r\n";
        assert_eq!(cut(&[one, two, three].concat()), [one, two, three]);
        assert_eq!(cut("# before\n---\na: 1\n"), ["# before\n---\na: 1\n"]);
        assert_eq!(
            cut("%YAML 1.2\n---\na\n...\n# next\n%YAML 1.2\n---\nb"),
            ["%YAML 1.2\n---\na\n...\n", "# next\n%YAML 1.2\n---\nb"]
        );
        assert_eq!(cut("a\n...\nb\n"), ["a\n...\n", "b\n"], "a document need not be marked");
    }

    #[test]
    fn empty_documents_are_left_out() {
        for empty in ["", "\n", "---\n", "---\n---\n# nothing\n...\n", "# nothing\n", "\u{feff}---\n", "--- # nothing"]
        {
            assert!(cut(empty).is_empty(), "{empty:?}");
        }
        assert_eq!(cut("---\n---\na\n---\n"), ["---\na\n"]);
    }

    #[test]
    fn only_a_marker_is_a_marker() {
        for one in ["a: ---\n", "----\n", " ---\n", "a:\n  - |\n    ---\n", "....\n", "---a\n"] {
            assert_eq!(cut(one), [one]);
        }
        assert_eq!(cut("a\r---\rb").len(), 2);
    }
}
