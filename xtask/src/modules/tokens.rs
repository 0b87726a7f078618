//! One file, or one module in braces, as its declarations and its paths.

use std::iter::Peekable;

use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream::IntoIter};

/// A path, as it is written: `crate::store::Revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// `mod name;` or `mod name { … }`.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    /// The path of `#[path = "…"]`.
    pub(super) path: Option<String>,
    /// The source between the braces.
    pub(super) body: Option<Source>,
}

/// The source of one module, without its tests.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) modules: Vec<Declared>,
    /// Names of functions, types, constants and macros that are defined here.
    pub(super) items: Vec<String>,
    /// Names that `use` brings in, each with the path that it stands for.
    pub(super) bound: Vec<(String, Vec<String>)>,
    /// Paths before `::*`.
    pub(super) globs: Vec<Vec<String>>,
    pub(super) written: Vec<Written>,
}

type Tokens = Peekable<IntoIter>;

/// The attributes that matter here.
#[derive(Default)]
struct Attributes {
    is_test: bool,
    path: Option<String>,
}

impl Source {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let tokens: TokenStream = text.parse().map_err(|error| format!("{error}"))?;
        let mut source = Self::default();
        source.take(tokens, true);
        Ok(source)
    }

    /// Reads a group of tokens; declarations count where they are a module's own, paths everywhere.
    fn take(&mut self, tokens: TokenStream, is_module: bool) {
        let mut tokens = tokens.into_iter().peekable();
        let mut attributes = Attributes::default();
        let mut after_dot = false;
        while let Some(token) = tokens.next() {
            let was_after_dot = std::mem::take(&mut after_dot);
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    attribute(&mut tokens, &mut attributes);
                    if attributes.is_test {
                        skip_item(&mut tokens);
                        attributes = Attributes::default();
                    }
                }
                TokenTree::Punct(mark) => {
                    after_dot = mark.as_char() == '.';
                    if colons(&mark, &mut tokens) {
                        // A path from the root of all crates: not ours.
                        while let Some(TokenTree::Ident(_)) = tokens.peek() {
                            tokens.next();
                            if !next_colons(&mut tokens) {
                                break;
                            }
                        }
                    }
                }
                TokenTree::Group(group) => {
                    attributes = Attributes::default();
                    self.take(group.stream(), false);
                }
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    let word = plain(&ident.to_string());
                    match word.as_str() {
                        "pub" => skip_restriction(&mut tokens),
                        "use" => self.take_use(&mut tokens, line),
                        "mod" if is_module => self.take_module(&mut tokens, std::mem::take(&mut attributes)),
                        "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" | "fn" | "macro_rules"
                            if is_module =>
                        {
                            attributes = Attributes::default();
                            self.take_item(&mut tokens);
                        }
                        _ if was_after_dot => {}
                        _ => self.take_path(word, line, &mut tokens),
                    }
                }
                TokenTree::Literal(_) => {}
            }
        }
    }

    fn take_item(&mut self, tokens: &mut Tokens) {
        if let Some(TokenTree::Punct(mark)) = tokens.peek()
            && mark.as_char() == '!'
        {
            tokens.next();
        }
        if let Some(TokenTree::Ident(name)) = tokens.peek() {
            let name = plain(&name.to_string());
            // `const fn`, `static mut`: the next word is the name, or begins the item.
            if !["fn", "mut", "unsafe", "async", "extern"].contains(&name.as_str()) {
                self.items.push(name);
                tokens.next();
            }
        }
    }

    fn take_module(&mut self, tokens: &mut Tokens, attributes: Attributes) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        let mut body = None;
        if let Some(TokenTree::Group(group)) = tokens.next() {
            let mut source = Self::default();
            source.take(group.stream(), true);
            body = Some(source);
        }
        self.modules.push(Declared { name: plain(&name.to_string()), path: attributes.path, body });
    }

    fn take_path(&mut self, first: String, line: usize, tokens: &mut Tokens) {
        let mut path = vec![first];
        while next_colons(tokens) {
            match tokens.peek() {
                Some(TokenTree::Ident(next)) => {
                    path.push(plain(&next.to_string()));
                    tokens.next();
                }
                _ => break,
            }
        }
        if path.len() > 1 {
            self.written.push(Written { path, line });
        }
    }

    fn take_use(&mut self, tokens: &mut Tokens, line: usize) {
        // `impl Trait + use<'a>` captures, and imports nothing.
        if let Some(TokenTree::Punct(mark)) = tokens.peek()
            && mark.as_char() == '<'
        {
            return;
        }
        self.take_tree(tokens, &[], line);
    }

    /// One branch of a `use`, up to its comma, its semicolon or the end of its braces.
    fn take_tree(&mut self, tokens: &mut Tokens, before: &[String], line: usize) {
        let mut path = before.to_vec();
        let mut alias = None;
        let mut is_whole = false;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    alias = tokens.next().map(|name| plain(&name.to_string()));
                }
                TokenTree::Ident(word) => {
                    let word = plain(&word.to_string());
                    // `store::{self, Revision}`: the module itself.
                    if word != "self" || path.is_empty() {
                        path.push(word);
                    }
                    is_whole = true;
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let mut branches = group.stream().into_iter().peekable();
                    while branches.peek().is_some() {
                        self.take_tree(&mut branches, &path, line);
                    }
                    is_whole = false;
                }
                TokenTree::Punct(mark) if mark.as_char() == '*' => {
                    self.written.push(Written { path: path.clone(), line });
                    self.globs.push(path.clone());
                    is_whole = false;
                }
                TokenTree::Punct(mark) if matches!(mark.as_char(), ',' | ';') => break,
                _ => {}
            }
        }
        if is_whole && let Some(last) = path.last() {
            self.bound.push((alias.unwrap_or_else(|| last.clone()), path.clone()));
            self.written.push(Written { path, line });
        }
    }
}

/// `r#type` is `type`.
fn plain(word: &str) -> String {
    word.strip_prefix("r#").unwrap_or(word).to_owned()
}

/// `true` if this punctuation and the next are `::`; then both are consumed.
fn colons(mark: &proc_macro2::Punct, tokens: &mut Tokens) -> bool {
    let are_two = mark.as_char() == ':'
        && mark.spacing() == proc_macro2::Spacing::Joint
        && matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
    if are_two {
        tokens.next();
    }
    are_two
}

fn next_colons(tokens: &mut Tokens) -> bool {
    let Some(TokenTree::Punct(mark)) = tokens.peek() else { return false };
    if mark.as_char() != ':' || mark.spacing() != proc_macro2::Spacing::Joint {
        return false;
    }
    tokens.next();
    // Joined punctuation: only another colon can follow.
    tokens.next();
    true
}

/// `pub(in crate::store)` is a visibility, and no use.
fn skip_restriction(tokens: &mut Tokens) {
    if let Some(TokenTree::Group(group)) = tokens.peek()
        && group.delimiter() == Delimiter::Parenthesis
        && let Some(TokenTree::Ident(word)) = group.stream().into_iter().next()
        && ["crate", "super", "self", "in"].contains(&word.to_string().as_str())
    {
        tokens.next();
    }
}

fn attribute(tokens: &mut Tokens, attributes: &mut Attributes) {
    if let Some(TokenTree::Punct(mark)) = tokens.peek()
        && mark.as_char() == '!'
    {
        tokens.next();
    }
    let Some(TokenTree::Group(_)) = tokens.peek() else { return };
    let Some(TokenTree::Group(group)) = tokens.next() else { return };
    let mut inside = group.stream().into_iter();
    match (inside.next(), inside.next(), inside.next()) {
        (Some(TokenTree::Ident(name)), Some(TokenTree::Group(of)), _) if name == "cfg" => {
            attributes.is_test |= only_in_tests(of.stream());
        }
        (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(_)), Some(TokenTree::Literal(path))) if name == "path" => {
            attributes.path = Some(path.to_string().trim_matches('"').to_owned());
        }
        _ => {}
    }
}

/// `test`, or `all(test, …)`.
fn only_in_tests(condition: TokenStream) -> bool {
    let mut tokens = condition.into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Ident(word)), None) => word == "test",
        (Some(TokenTree::Ident(word)), Some(TokenTree::Group(of))) if word == "all" => {
            of.stream().into_iter().any(|token| matches!(token, TokenTree::Ident(word) if word == "test"))
        }
        _ => false,
    }
}

/// Up to the end of an item, a statement or a field.
fn skip_item(tokens: &mut Tokens) {
    let mut is_use = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "use" => is_use = true,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => return,
            TokenTree::Punct(mark) if matches!(mark.as_char(), ';' | ',') => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &Source) -> Vec<String> {
        source.written.iter().map(|written| written.path.join("::")).collect()
    }

    #[test]
    fn a_use_is_read_with_its_branches_and_its_names() {
        let text = "use crate::{store::{self, Revision as At}, time};\npub(in crate::wal) use super::watch::*;";
        let source = Source::read(text).unwrap();
        assert_eq!(paths(&source), ["crate::store", "crate::store::Revision", "crate::time", "super::watch"]);
        let names: Vec<_> = source.bound.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["store", "At", "time"]);
        assert_eq!(source.globs, [["super", "watch"]]);
        assert_eq!(source.written[3].line, 2);
    }

    #[test]
    fn paths_in_code_and_in_macros_count_and_those_in_text_and_tests_do_not() {
        let text = r#"
            /// See [`crate::wal::Wal`].
            fn f(x: super::Held) -> crate::Error { log!("crate::a::b", crate::watch::now()); x.map(helper::of) }
            // crate::c::d
            #[cfg(test)]
            mod tests { use crate::only::InTests; }
            #[cfg(test)]
            use crate::also::{only, in_tests};
            fn g() { ::std::mem::take(&mut Vec::<self::h::I>::new()); "x".parse::<u8>() }
        "#;
        let source = Source::read(text).unwrap();
        assert_eq!(
            paths(&source),
            ["super::Held", "crate::Error", "crate::watch::now", "helper::of", "self::h::I"],
            "{source:?}"
        );
        assert_eq!(source.items, ["f", "g"]);
        assert!(source.modules.is_empty(), "tests are no module here");
    }

    #[test]
    fn modules_are_found_with_their_files_and_their_bodies() {
        let text = "#[path = \"../other.rs\"]\nmod other;\npub(crate) mod inner { pub const fn two() -> u8 { 2 } }\nmod r#type;";
        let source = Source::read(text).unwrap();
        assert_eq!(source.modules[0].path.as_deref(), Some("../other.rs"));
        assert_eq!(source.modules[1].body.as_ref().unwrap().items, ["two"]);
        assert_eq!((source.modules[2].name.as_str(), source.modules.len()), ("type", 3));
    }

    #[test]
    fn a_file_that_is_not_rust_is_an_error() {
        assert!(Source::read("fn f( {").is_err());
    }
}
