//! [`Expressions`]: the files that an ignore file leaves out of a build of Podman's.
//!
//! Podman makes a regular expression of Go's of each pattern, as Docker's client does, but escapes only two characters of it: `+`, `(`
//! or `|` mean what they mean in an expression. An expression is tried on the whole path, and matches what is below it as well, so
//! that no folder hides what a later pattern keeps in it. Lines lose their slashes at both ends before anything else, which
//! `podman --remote` forgets, and the service does when it copies.

use regex::{Regex, RegexBuilder};

use super::{BadPattern, clean, glob};

/// Most memory that one expression may take, in bytes.
const LARGEST: usize = 1 << 20;

/// Files that are kept, since the service needs them.
const NEEDED: [&str; 4] = ["Dockerfile", "Containerfile", ".dockerignore", ".containerignore"];

/// Expressions in their order: the last one that matches decides.
#[derive(Debug, Default)]
pub(in crate::image) struct Expressions {
    expressions: Vec<Expression>,
    /// Paths that are kept whatever the expressions say.
    needed: Vec<String>,
}

#[derive(Debug)]
struct Expression {
    /// A match keeps the file, where the others leave it out.
    keeps: bool,
    regex: Regex,
}

impl Expressions {
    /// Reads an ignore file.
    pub(super) fn parse(file: &[u8]) -> Result<Self, BadPattern> {
        let mut all = Self { expressions: Vec::new(), needed: NEEDED.map(str::to_owned).to_vec() };
        for line in file.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#")) {
            let line = String::from_utf8_lossy(line);
            let text = line.trim_matches('/').trim();
            if text.is_empty() {
                continue;
            }
            all.add(text)?;
        }
        Ok(all)
    }

    fn add(&mut self, text: &str) -> Result<(), BadPattern> {
        let bad = |reason| BadPattern { pattern: text.chars().take(60).collect(), reason };
        let cleaned = clean(text);
        let (keeps, pattern) = match cleaned.strip_prefix('!') {
            Some("") => return Err(bad("there is nothing behind the '!'")),
            Some(rest) => {
                let rest = clean(rest);
                (true, rest.strip_prefix('/').unwrap_or(&rest).to_owned())
            }
            None => (false, cleaned),
        };
        glob::check(&pattern).map_err(bad)?;
        let regex = RegexBuilder::new(&of_go(&expression(&pattern)).map_err(bad)?).size_limit(LARGEST).build();
        let regex = regex.map_err(|_| bad("the expression that Podman makes of it cannot be read"))?;
        self.expressions.push(Expression { keeps, regex });
        Ok(())
    }

    /// Keeps a file that the service needs.
    pub(super) fn keep(&mut self, path: &str) {
        self.needed.push(path.to_owned());
    }

    /// The path is left out.
    pub(super) fn leaves_out(&self, path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        if self.needed.iter().any(|needed| is_within(needed, &path)) {
            return false;
        }
        let last = self.expressions.iter().rev().find(|expression| expression.regex.is_match(&path));
        last.is_some_and(|expression| !expression.keeps)
    }

    /// A folder that is left out must be walked through: something in it may be kept.
    pub(super) fn may_keep_below(&self, folder: &[u8]) -> bool {
        let folder = String::from_utf8_lossy(folder);
        self.expressions.iter().any(|expression| expression.keeps)
            || self.needed.iter().any(|needed| is_within(&folder, needed))
    }
}

/// The path is the folder, or below it.
fn is_within(folder: &str, path: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The expression that Podman makes of a pattern, in Go's syntax.
fn expression(pattern: &str) -> String {
    let mut made = "^".to_owned();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                made.push_str(if rest.peek().is_none() { ".*" } else { "(.*/)?" });
            }
            '*' => made.push_str("[^/]*"),
            '?' => made.push_str("[^/]"),
            '\\' => {
                made.push('\\');
                made.extend(rest.next());
            }
            '.' | '$' => made.extend(['\\', character]),
            other => made.push(other),
        }
    }
    made + "(/.*)?$"
}

/// An expression of Go's in the syntax of the library here, which gives a meaning to characters that have none in Go.
fn of_go(expression: &str) -> Result<String, &'static str> {
    const UNKNOWN_ESCAPE: &str = "a backslash before this letter has no meaning here";
    let characters: Vec<char> = expression.chars().collect();
    let mut rest = characters.as_slice();
    let mut made = String::new();
    // Number of characters since the bracket that is open.
    let mut in_set: Option<usize> = None;
    while let Some((character, after)) = rest.split_first() {
        rest = after;
        let is_first = in_set == Some(0);
        in_set = in_set.map(|count| count + 1);
        match character {
            '\\' => {
                let (escaped, after) = rest.split_first().ok_or("a backslash ends it")?;
                rest = after;
                match escaped {
                    'd' | 'D' | 's' | 'S' | 'w' | 'W' => return Err(UNKNOWN_ESCAPE),
                    'a' | 'f' | 'n' | 'r' | 't' | 'v' => made.extend(['\\', *escaped]),
                    letter if letter.is_ascii_alphanumeric() || !letter.is_ascii() => return Err(UNKNOWN_ESCAPE),
                    other => made.push_str(&regex::escape(&other.to_string())),
                }
            }
            '[' if in_set.is_none() => {
                made.push('[');
                in_set = Some(0);
                if let Some(after) = rest.strip_prefix(&['^']) {
                    made.push('^');
                    rest = after;
                }
            }
            '[' if rest.first() == Some(&':') => made.push('['),
            ']' if in_set.is_some() && !is_first => {
                // The end of `[:alpha:]` is none of the set.
                if !made.ends_with(':') || !made.contains("[:") {
                    in_set = None;
                }
                made.push(']');
            }
            '[' | '&' | '~' | ']' if in_set.is_some() => made.extend(['\\', *character]),
            '{' if in_set.is_none() && !is_repetition(rest) => made.push_str("\\{"),
            other => made.push(*other),
        }
    }
    Ok(made)
}

/// True if the text behind a brace makes it one of a repetition, as `{2,3}`.
fn is_repetition(rest: &[char]) -> bool {
    let Some(end) = rest.iter().position(|character| *character == '}') else { return false };
    let inside: String = rest.iter().take(end).collect();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match inside.split_once(',') {
        Some((from, to)) => is_number(from) && (to.is_empty() || is_number(to)),
        None => is_number(&inside),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn out(lines: &[&str], path: &str) -> bool {
        Expressions::parse(lines.join("\n").as_bytes())
            .unwrap_or_else(|bad| panic!("{bad:?}"))
            .leaves_out(path.as_bytes())
    }

    #[test]
    fn patterns_are_podmans_and_not_dockers() {
        for (lines, path, expected) in [
            (&["a"][..], "a/b", true),
            (&["/a/"], "a", true),
            (&["!a", "a"], "a", true),
            // A file below a folder is kept, whichever way the pattern is written; with Docker `!*/b` keeps nothing in `a`.
            (&["a", "!*/b"], "a/b", false),
            (&["a", "!a/b", "a/b/c"], "a/b/d", false),
            (&["a", "!a/b"], "a", true),
            // Characters of an expression are no characters of a name.
            (&["a+b"], "a+b", false),
            (&["a+b"], "aab", true),
            (&["a|b"], "a", true),
            (&["(a|b)c"], "bc", true),
            (&["a{2}"], "aa", true),
            (&["a{b"], "a{b", true),
            (&["a\\+b"], "a+b", true),
            (&["a.b"], "axb", false),
            (&["[a-c]x", "[[:digit:]]"], "bx", true),
            (&["[[:digit:]]"], "7", true),
            (&["[x&&y]"], "&", true),
            (&["a[*]"], "a^]", true),
            (&["**/x"], "x", true),
            (&["**/x"], "a/b/x/y", true),
            (&["**"], "a", true),
            (&["*"], "Dockerfile", false),
            (&["*"], "Containerfile", false),
            (&["*"], ".containerignore", false),
            (&["*"], "sub/Dockerfile", true),
            (&["# a", " b \r", ""], "b", true),
            // A byte order mark is a part of the first pattern.
            (&["\u{feff}a"], "a", false),
        ] {
            assert_eq!(out(lines, path), expected, "{lines:?} on {path}");
        }
        for bad in ["!", "[", "a[", "(", "a\\", "*+b{3,2}", "\\d"] {
            assert!(Expressions::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_is_walked_through_where_something_in_it_may_be_kept() {
        let plain = Expressions::parse(b"a\n").unwrap();
        assert!(!plain.may_keep_below(b"a"));
        let mut named = Expressions::parse(b"a\n").unwrap();
        named.keep("a/b/Containerfile.prod");
        assert!(named.may_keep_below(b"a") && named.may_keep_below(b"a/b") && !named.may_keep_below(b"a/c"));
        assert!(!named.leaves_out(b"a/b/Containerfile.prod") && named.leaves_out(b"a/b"));
        assert!(Expressions::parse(b"a\n!*/b\n").unwrap().may_keep_below(b"a"));
    }

    proptest! {
        #[test]
        fn no_file_panics(file in any::<Vec<u8>>(), path in any::<Vec<u8>>()) {
            if let Ok(all) = Expressions::parse(&file) {
                all.leaves_out(&path);
            }
        }

        #[test]
        fn odd_characters_do_no_harm(pattern in "[*?a/\\\\\\[\\]^.!{}()|+,:&~-]{0,14}", path in "[a/*.]{0,8}") {
            if let Ok(all) = Expressions::parse(pattern.as_bytes()) {
                all.leaves_out(path.as_bytes());
            }
        }
    }
}
