//! [`Ignored`]: the files that an ignore file leaves out of a build, by the rules of the engine's own client.
//!
//! Docker's client makes a regular expression of Go's of each pattern, and what it does with odd ones (brackets around a star, a
//! backslash before a letter) follows from that. So the same expression is made here, and run without a library: the few forms that can
//! occur in it take time in proportion to pattern and path.

mod expressions;
mod glob;

use self::{expressions::Expressions, glob::Glob};

/// Longest line, in bytes, as the client reads it.
const LONGEST_LINE: usize = 64 * 1024;

/// The reason why an ignore file cannot be applied, with the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadPattern {
    pub(super) pattern: String,
    pub(super) reason: &'static str,
}

/// The patterns of the ignore files of a context.
#[derive(Debug)]
pub(super) enum Ignored {
    Docker(Patterns),
    /// Of two files either may be the one that a version of the service honours: a file is left out if all of them say so.
    Podman(Vec<Expressions>),
}

impl Ignored {
    /// Reads the one file that Docker's client honours.
    pub(super) fn docker(file: &[u8]) -> Result<Self, BadPattern> {
        Patterns::parse(file).map(Self::Docker)
    }

    /// Leaves nothing out until a file is added.
    pub(super) fn podman() -> Self {
        Self::Podman(Vec::new())
    }

    /// Reads one more of the files that Podman may honour.
    pub(super) fn add_podmans(&mut self, file: &[u8]) -> Result<(), BadPattern> {
        if let Self::Podman(all) = self {
            all.push(Expressions::parse(file)?);
        }
        Ok(())
    }

    /// Keeps a file that is left out so far, as the client does with the files that the engine itself needs.
    pub(super) fn keep(&mut self, path: &str) {
        match self {
            Self::Docker(patterns) => patterns.keep(path),
            Self::Podman(all) => all.iter_mut().for_each(|expressions| expressions.keep(path)),
        }
    }

    /// The path is left out; and what decides over what is below it. `above` is what was returned for its folder.
    pub(super) fn leaves_out(&self, path: &[u8], above: Option<&Matched>) -> (bool, Matched) {
        match self {
            Self::Docker(patterns) => patterns.leaves_out(path, above),
            Self::Podman(all) => {
                (!all.is_empty() && all.iter().all(|expressions| expressions.leaves_out(path)), Matched::new())
            }
        }
    }

    /// A folder that is left out must be walked through, since something in it may be kept.
    pub(super) fn may_keep_below(&self, folder: &[u8]) -> bool {
        match self {
            Self::Docker(patterns) => patterns.may_keep_below(folder),
            Self::Podman(all) => all.iter().any(|expressions| expressions.may_keep_below(folder)),
        }
    }
}

/// Patterns in their order: the last one that matches decides.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// A match keeps the file, where the others leave it out.
    keeps: bool,
    text: String,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Exact,
    /// `…**`: everything that begins so.
    Begin(String),
    /// `**…`: everything that ends so.
    End(String),
    Glob(Glob),
}

/// Which patterns match a folder or one above it, pattern by pattern.
pub(super) type Matched = Vec<bool>;

impl Patterns {
    /// Reads an ignore file.
    fn parse(file: &[u8]) -> Result<Self, BadPattern> {
        let mut all = Self::default();
        let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
        for line in file.split(|byte| *byte == b'\n') {
            if line.len() >= LONGEST_LINE {
                let pattern = String::from_utf8_lossy(line.get(..60).unwrap_or(line)).into_owned();
                return Err(BadPattern { pattern, reason: "the line is longer than 64 KiB" });
            }
            if line.starts_with(b"#") {
                continue;
            }
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            let (keeps, text) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if text.is_empty() {
                if keeps {
                    return Err(BadPattern { pattern: line.to_owned(), reason: "there is nothing behind the '!'" });
                }
                continue;
            }
            let cleaned = clean(text);
            let text = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
            all.add(keeps, text)?;
        }
        Ok(all)
    }

    fn keep(&mut self, path: &str) {
        if self.leaves_out(path.as_bytes(), self.above(path).as_ref()).0 {
            self.patterns.push(Pattern { keeps: true, text: path.to_owned(), matcher: Matcher::Exact });
        }
    }

    /// The patterns that match a folder above the path.
    fn above(&self, path: &str) -> Option<Matched> {
        let mut matched = None;
        for (end, _) in path.match_indices('/') {
            matched = Some(self.leaves_out(path.get(..end)?.as_bytes(), matched.as_ref()).1);
        }
        matched
    }

    fn add(&mut self, keeps: bool, text: &str) -> Result<(), BadPattern> {
        let bad = |reason| BadPattern { pattern: text.to_owned(), reason };
        // The client reads what it has cleaned once more: `/ a` is then `a`, and `/!a` is `!a`.
        let (keeps, text) = match text.trim_start().strip_prefix('!') {
            Some("") if !keeps => return Err(bad("there is nothing behind the '!'")),
            Some(rest) if !keeps => (true, rest),
            _ if keeps => (true, text),
            _ => (false, text.trim_start()),
        };
        glob::check(text).map_err(bad)?;
        let matcher = Matcher::new(text).map_err(bad)?;
        self.patterns.push(Pattern { keeps, text: text.to_owned(), matcher });
        Ok(())
    }

    /// The path is left out; and the patterns that match it, for what is below it. `above` is what was returned for its folder.
    fn leaves_out(&self, path: &[u8], above: Option<&Matched>) -> (bool, Matched) {
        let mut out = false;
        let matched = self.patterns.iter().enumerate().map(|(at, pattern)| {
            let inherited = above.and_then(|above| above.get(at)).is_some_and(|matched| *matched);
            // One that can change nothing is not tried, and does not count for what is below.
            let matches = inherited || (pattern.keeps == out && pattern.matches(path));
            if matches {
                out = !pattern.keeps;
            }
            matches
        });
        let matched = matched.collect();
        (out, matched)
    }

    /// A folder that is left out must be walked through, since a pattern keeps something in it. As with the client, that is seen
    /// from the pattern's text: `!*/a` keeps nothing in a folder that is left out.
    fn may_keep_below(&self, folder: &[u8]) -> bool {
        let within =
            |text: &[u8]| text.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        self.patterns.iter().any(|pattern| pattern.keeps && within(pattern.text.as_bytes()))
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text.as_bytes(),
            Matcher::Begin(begin) => path.starts_with(begin.as_bytes()),
            Matcher::End(end) => {
                path.ends_with(end.as_bytes()) || end.strip_prefix('/').is_some_and(|end| path == end.as_bytes())
            }
            Matcher::Glob(glob) => glob.matches(&String::from_utf8_lossy(path)),
        }
    }
}

impl Matcher {
    fn new(text: &str) -> Result<Self, &'static str> {
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if plain(text) {
            return Ok(Self::Exact);
        }
        match (text.strip_prefix("**"), text.strip_suffix("**")) {
            (Some(end), _) if plain(end) => Ok(Self::End(end.to_owned())),
            (_, Some(begin)) if plain(begin) => Ok(Self::Begin(begin.to_owned())),
            _ => Glob::new(text).map(Self::Glob),
        }
    }
}

/// The shortest path of the same meaning, by its text alone.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else if part != ".." || !rooted {
            parts.push(part);
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(patterns: &[&str], path: &str) -> bool {
        let patterns = Patterns::parse(patterns.join("\n").as_bytes()).unwrap_or_else(|bad| panic!("{bad:?}"));
        patterns.leaves_out(path.as_bytes(), patterns.above(path).as_ref()).0
    }

    #[test]
    fn the_clients_own_table_of_patterns_holds() {
        let table: &[(&str, &str, bool)] = &[
            ("**", "file", true),
            ("**/", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir3/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/file", true),
            ("**file", "dir/dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/*.txt", "file.txt", true),
            ("**/**/*.txt", "file.txt", true),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcdef", false),
            ("abc.def", "abc.def", true),
            ("abc.def", "abcZdef", false),
            ("abc?def", "abcZdef", true),
            ("abc?def", "abcdef", false),
            ("a\\\\", "a\\", true),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("**/foo/bar", "dir/dir2/foo/bar", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/def", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", ".foo", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def", true),
            ("a(b)c/def", "a(b)c/xyz", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
            ("a\\*b", "a*b", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("/a", "a", true),
            ("./a/", "a", true),
            ("b/../a", "a", true),
        ];
        for (pattern, path, expected) in table {
            assert_eq!(out(&[pattern], path), *expected, "{pattern} on {path}");
        }
        for bad in ["[", "[^", "[^bc", "a[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "a\\", "[\\"] {
            assert!(Patterns::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Patterns::parse(b"!").is_err());
    }

    #[test]
    fn the_last_match_decides_also_for_what_is_below_a_folder() {
        for (patterns, path, expected) in [
            (&["**", "!util/docker/web"][..], "util/docker/web/foo", false),
            (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
            (&["**", "!dist/*.whl"], "dist/a-1.whl", false),
            (&["*.go", "!file.go"], "file.go", false),
            (&["a", "!a/b", "a/b/c"], "a/b/c/d/e", true),
            (&["a", "!a/b", "a/b/c"], "a/b/d", false),
            (&["!a", "a"], "a", true),
            (&["# a", "  b  ", "", "! c"], "a", false),
            (&["\u{feff}a"], "a", true),
        ] {
            assert_eq!(out(patterns, path), expected, "{patterns:?} on {path}");
        }
    }

    #[test]
    fn files_that_the_engine_needs_are_kept() {
        for (patterns, file) in
            [("*", "Dockerfile"), ("**", "a/b/Dockerfile"), ("a", "a/b/Dockerfile"), ("**/b", "a/c/b/Dockerfile")]
        {
            let mut patterns = Patterns::parse(patterns.as_bytes()).unwrap();
            patterns.keep(file);
            assert!(!patterns.leaves_out(file.as_bytes(), patterns.above(file).as_ref()).0, "{file}");
        }
        let patterns = Patterns::parse(b"a\n!a/b/c\n!*/d").unwrap();
        assert!(patterns.may_keep_below(b"a") && patterns.may_keep_below(b"a/b") && patterns.may_keep_below(b"a/b/c"));
        assert!(!patterns.may_keep_below(b"a/bb") && !patterns.may_keep_below(b"d"));
    }

    #[test]
    fn paths_are_cleaned_as_the_client_cleans_them() {
        for (path, cleaned) in [
            ("a//b", "a/b"),
            ("./a", "a"),
            ("a/..", "."),
            ("/..", "/"),
            ("/", "/"),
            ("../a", "../a"),
            ("a/../../b", "../b"),
            ("", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
