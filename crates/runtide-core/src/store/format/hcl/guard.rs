//! Limits that are checked before the parser gets the text.
//!
//! The parser of `hcl-edit` is recursive and stops by itself, 64 levels deep: a build without optimisation has then used
//! 1.5 MiB of its stack, and 3 MiB in a `for` (hcl-edit 0.10), where a thread of tokio has 2 MiB. It compares each key of an
//! object with all keys before, and it takes some 200 bytes of memory for a byte of text. So the text is scanned first. The scan
//! knows no syntax, only brackets, keys and tokens; errors in them are left to the parser.

use super::{Outcome, Problem};
use crate::store::Document;

/// The most levels of blocks, lists, objects, parentheses, calls and templates; a `for` counts as two.
pub(super) const DEPTH: usize = 32;
/// The most comparisons of keys: they take about a second, and allow 11,000 keys in one object.
const COMPARISONS: usize = 1 << 26;

#[derive(Clone, Copy, PartialEq)]
enum Kind<'a> {
    Body,
    Object,
    /// Lists, parentheses and calls.
    Items,
    /// `${` and `%{`.
    Control,
    Quoted,
    Heredoc(&'a [u8]),
}

struct Frame<'a> {
    kind: Kind<'a>,
    /// Number of levels that it counts as.
    levels: usize,
    keys: usize,
    /// True until the first token inside.
    fresh: bool,
    /// In a body: true behind the `=` of an attribute.
    value: bool,
}

struct Guard<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Open brackets, innermost last. The document itself is the first, so it is empty only behind a surplus closing bracket.
    frames: Vec<Frame<'a>>,
    depth: usize,
    tokens: usize,
    comparisons: usize,
}

/// Refuses a text that would cost the parser too much stack, time or memory.
pub(super) fn check(text: &str) -> Outcome<()> {
    let mut guard = Guard { bytes: text.as_bytes(), at: 0, frames: Vec::new(), depth: 0, tokens: 0, comparisons: 0 };
    guard.push(Kind::Body, 0)?;
    while guard.at < guard.bytes.len() {
        match guard.frames.last().map(|frame| frame.kind) {
            Some(Kind::Quoted) => guard.quoted()?,
            Some(Kind::Heredoc(end)) => guard.heredoc(end)?,
            Some(kind) => guard.code(kind)?,
            // A surplus closing bracket: the parser reports it.
            None => return Ok(()),
        }
    }
    Ok(())
}

impl<'a> Guard<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, kind: Kind<'a>, levels: usize) -> Outcome<()> {
        self.frames.push(Frame { kind, levels, keys: 0, fresh: true, value: false });
        self.deeper(levels)
    }

    fn deeper(&mut self, levels: usize) -> Outcome<()> {
        self.depth += levels;
        if self.depth > DEPTH {
            return Err(Problem::invalid(format!("it is nested more than {DEPTH} deep, in {}", self.line())));
        }
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.depth -= frame.levels;
        }
    }

    fn line(&self) -> String {
        let before = self.bytes.get(..self.at).unwrap_or_default();
        format!("line {}", 1 + memchr::memchr_iter(b'\n', before).count())
    }

    fn token(&mut self) -> Outcome<()> {
        self.tokens += 1;
        if self.tokens > Document::MAX_VALUES {
            let most = Document::MAX_VALUES;
            return Err(Problem::invalid(format!("it has more than {most} tokens")));
        }
        Ok(())
    }

    fn key(&mut self) -> Outcome<()> {
        if let Some(frame) = self.frames.last_mut() {
            match frame.kind {
                Kind::Body => frame.value = true,
                Kind::Object => {
                    self.comparisons += frame.keys;
                    frame.keys += 1;
                }
                _ => {}
            }
        }
        if self.comparisons > COMPARISONS {
            return Err(Problem::invalid("its objects have too many keys"));
        }
        Ok(())
    }

    /// Skips a word. A `for` that is the first word in its bracket counts as one more level.
    fn word(&mut self, kind: Kind<'_>) -> Outcome<()> {
        let length = self.rest().iter().take_while(|byte| is_word(**byte)).count();
        let is_for = self.rest().get(..length) == Some(b"for") && matches!(kind, Kind::Object | Kind::Items);
        self.at += length;
        if let Some(frame) = self.frames.last_mut()
            && frame.fresh
            && is_for
        {
            frame.levels += 1;
            self.deeper(1)?;
        }
        Ok(())
    }

    fn code(&mut self, kind: Kind<'a>) -> Outcome<()> {
        let rest = self.rest();
        match rest {
            [b'\n', ..] => {
                self.at += 1;
                if kind == Kind::Body
                    && let Some(frame) = self.frames.last_mut()
                {
                    frame.value = false;
                }
                return Ok(());
            }
            [b' ' | b'\t' | b'\r', ..] => {
                self.at += 1;
                return Ok(());
            }
            [b'#', ..] | [b'/', b'/', ..] => {
                self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                return Ok(());
            }
            [b'/', b'*', inner @ ..] => {
                self.at += 2 + memchr::memmem::find(inner, b"*/").map_or(inner.len(), |end| end + 2);
                return Ok(());
            }
            _ => {}
        }
        self.token()?;
        match rest {
            [b'"', ..] => {
                self.at += 1;
                self.begun();
                return self.push(Kind::Quoted, 0);
            }
            [b'<', b'<', inner @ ..] => {
                let name = inner.strip_prefix(b"-").unwrap_or(inner);
                let length = name.iter().take_while(|byte| is_word(**byte)).count();
                self.at += 2 + (inner.len() - name.len()) + length;
                self.begun();
                if let Some(end) = name.get(..length).filter(|end| !end.is_empty()) {
                    return self.push(Kind::Heredoc(end), 0);
                }
            }
            [b'{', ..] => {
                self.at += 1;
                let is_block = kind == Kind::Body && self.frames.last().is_some_and(|frame| !frame.value);
                self.begun();
                return self.push(if is_block { Kind::Body } else { Kind::Object }, 1);
            }
            [b'(' | b'[', ..] => {
                self.at += 1;
                self.begun();
                return self.push(Kind::Items, 1);
            }
            [b'}' | b')' | b']', ..] => {
                self.at += 1;
                self.pop();
                return Ok(());
            }
            [b'=' | b':', ..] => {
                self.at += 1;
                self.key()?;
            }
            [byte, ..] if is_word(*byte) => self.word(kind)?,
            _ => self.at += 1,
        }
        self.begun();
        Ok(())
    }

    fn begun(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.fresh = false;
        }
    }

    fn quoted(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let next = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'$' | b'%')).unwrap_or(rest.len());
        self.at += next;
        match self.rest() {
            [b'"', ..] => {
                self.at += 1;
                self.pop();
                Ok(())
            }
            [b'\\', ..] => {
                self.at += 2;
                Ok(())
            }
            _ => self.sign(),
        }
    }

    fn heredoc(&mut self, end: &[u8]) -> Outcome<()> {
        let rest = self.rest();
        let next = rest.iter().position(|byte| matches!(byte, b'\n' | b'$' | b'%')).unwrap_or(rest.len());
        self.at += next;
        let [b'\n', line @ ..] = self.rest() else { return self.sign() };
        let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.at += 1;
        let line = line.get(blanks..).unwrap_or_default();
        if line.starts_with(end) && !line.get(end.len()).is_some_and(|byte| is_word(*byte)) {
            self.at += blanks + end.len();
            self.pop();
        }
        Ok(())
    }

    /// Handles `$` or `%` in a text.
    fn sign(&mut self) -> Outcome<()> {
        match self.rest() {
            [b'$', b'$', b'{', ..] | [b'%', b'%', b'{', ..] => self.at += 3,
            [b'$', b'{', ..] => {
                self.at += 2;
                self.token()?;
                return self.push(Kind::Control, 1);
            }
            [b'%', b'{', inner @ ..] => {
                self.at += 2;
                self.token()?;
                self.directive(inner)?;
                return self.push(Kind::Control, 1);
            }
            _ => self.at += 1,
        }
        Ok(())
    }

    /// Counts `%{ if a }` as a level until its `%{ endif }`, though its bracket is closed at once.
    fn directive(&mut self, inner: &[u8]) -> Outcome<()> {
        let word = inner.trim_ascii_start();
        let word = word.strip_prefix(b"~").unwrap_or(word).trim_ascii_start();
        if word.starts_with(b"if") || word.starts_with(b"for") {
            if let Some(frame) = self.frames.last_mut() {
                frame.levels += 1;
            }
            return self.deeper(1);
        }
        if word.starts_with(b"end")
            && let Some(frame) = self.frames.last_mut().filter(|frame| frame.levels > 0)
        {
            frame.levels -= 1;
            self.depth -= 1;
        }
        Ok(())
    }
}

/// Returns true for bytes of a word, which may have letters of any script.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | 0x80..)
}
