//! [`Glob`]: one pattern with wildcards, as the regular expression that the engine's client makes of it.

/// Characters that the client escapes, since they mean nothing in a pattern.
const ESCAPED: &str = ".+()|{}$";

/// Checks the form of a pattern by the rules of Go's file patterns, which the client applies first.
pub(super) fn check(pattern: &str) -> Result<(), &'static str> {
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => drop(rest.next().ok_or("a backslash ends it")?),
            '[' => {
                rest.next_if_eq(&'^');
                let mut count = 0;
                while count == 0 || rest.next_if_eq(&']').is_none() {
                    bound(&mut rest)?;
                    if rest.next_if_eq(&'-').is_some() {
                        bound(&mut rest)?;
                    }
                    count += 1;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// One end of a range in brackets.
fn bound(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), &'static str> {
    const OPEN: &str = "a bracket is not closed";
    match rest.next().ok_or(OPEN)? {
        '-' | ']' => return Err("in brackets '-' and ']' take a backslash"),
        '\\' => drop(rest.next().ok_or(OPEN)?),
        _ => {}
    }
    rest.peek().map(|_| ()).ok_or(OPEN)
}

/// Steps of a regular expression that is anchored at both ends.
#[derive(Debug)]
pub(super) struct Glob(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    One(Set),
    /// Any number of these.
    Many(Set),
    /// The two steps after this one may be left out: any text that ends with a slash.
    OptionalFolders,
    /// Matches at the begin of the path alone: a caret outside of brackets.
    Begin,
}

/// Some of all characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    fn of(character: char) -> Self {
        Self { negated: false, ranges: vec![(character, character)] }
    }

    fn all_but(character: char) -> Self {
        Self { negated: true, ..Self::of(character) }
    }

    fn has(&self, character: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != self.negated
    }
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Result<Self, &'static str> {
        let expression: Vec<char> = expression(pattern).chars().collect();
        let mut rest = expression.as_slice();
        let mut steps = Vec::new();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            let set = match first {
                '^' => {
                    steps.push(Step::Begin);
                    continue;
                }
                '(' => {
                    // The only group that there is: `(.*/)?`.
                    steps.extend([Step::OptionalFolders, Step::Many(Set::all_but('\n')), Step::One(Set::of('/'))]);
                    rest = rest.get(5..).unwrap_or_default();
                    continue;
                }
                '.' => Set::all_but('\n'),
                '[' => set(&mut rest)?,
                '\\' => escaped(&mut rest)?,
                other => Set::of(*other),
            };
            if let Some(after) = rest.strip_prefix(&['*']) {
                rest = after;
                steps.push(Step::Many(set));
            } else {
                steps.push(Step::One(set));
            }
        }
        Ok(Self(steps))
    }

    /// Runs all ways through the steps at once.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut now = vec![false; self.0.len() + 1];
        self.reach(&mut now, 0, true);
        for character in path.chars() {
            let mut next = vec![false; now.len()];
            for (at, step) in self.0.iter().enumerate() {
                match step {
                    _ if !now.get(at).is_some_and(|reached| *reached) => {}
                    Step::One(set) if set.has(character) => self.reach(&mut next, at + 1, false),
                    Step::Many(set) if set.has(character) => self.reach(&mut next, at, false),
                    _ => {}
                }
            }
            now = next;
        }
        now.last().is_some_and(|reached| *reached)
    }

    /// Marks a step, and those that follow without a character.
    fn reach(&self, reached: &mut [bool], at: usize, is_begin: bool) {
        let mut pending = vec![at];
        while let Some(at) = pending.pop() {
            match reached.get_mut(at) {
                Some(mark) if !*mark => *mark = true,
                _ => continue,
            }
            match self.0.get(at) {
                Some(Step::Many(_)) => pending.push(at + 1),
                Some(Step::OptionalFolders) => pending.extend([at + 1, at + 3]),
                Some(Step::Begin) if is_begin => pending.push(at + 1),
                _ => {}
            }
        }
    }
}

/// The client's regular expression for a pattern, without its anchors.
fn expression(pattern: &str) -> String {
    let mut made = String::new();
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
            other => {
                if ESCAPED.contains(other) {
                    made.push('\\');
                }
                made.push(other);
            }
        }
    }
    made
}

const UNKNOWN_ESCAPE: &str = "a backslash before this letter has no meaning here";
const OPEN: &str = "a bracket is not closed";

/// The set in brackets; the opening one is read.
fn set(rest: &mut &[char]) -> Result<Set, &'static str> {
    let mut set = Set { negated: false, ranges: Vec::new() };
    if let Some(after) = rest.strip_prefix(&['^']) {
        (set.negated, *rest) = (true, after);
    }
    let mut is_first = true;
    loop {
        let after = match *rest {
            [']', after @ ..] if !is_first => {
                *rest = after;
                return Ok(set);
            }
            ['[', ':', after @ ..] => after,
            [] => return Err(OPEN),
            _ => &[],
        };
        is_first = false;
        if let Some(end) = after.windows(2).position(|pair| pair == [':', ']']) {
            let name: String = after.iter().take(end).collect();
            set.ranges.extend(named(&name)?);
            *rest = after.get(end + 2..).unwrap_or_default();
            continue;
        }
        let low = member(rest)?;
        let [(low, to)] = low.as_slice() else {
            set.ranges.extend(low);
            continue;
        };
        match *rest {
            ['-', next, ..] if *next != ']' && low == to => {
                *rest = rest.get(1..).unwrap_or_default();
                match member(rest)?.as_slice() {
                    [(high, other)] if high == other && low <= high => set.ranges.push((*low, *high)),
                    _ => return Err("a range in brackets goes backwards"),
                }
            }
            _ => set.ranges.push((*low, *to)),
        }
    }
}

/// One character in brackets, or what an escape stands for.
fn member(rest: &mut &[char]) -> Result<Vec<(char, char)>, &'static str> {
    let Some((first, after)) = rest.split_first() else { return Err(OPEN) };
    *rest = after;
    if *first != '\\' {
        return Ok(vec![(*first, *first)]);
    }
    let set = escaped(rest)?;
    if set.negated { Err(UNKNOWN_ESCAPE) } else { Ok(set.ranges) }
}

/// The characters that a backslash and the next character stand for.
fn escaped(rest: &mut &[char]) -> Result<Set, &'static str> {
    const DIGITS: &[(char, char)] = &[('0', '9')];
    const SPACE: &[(char, char)] = &[('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];
    const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    let Some((letter, after)) = rest.split_first() else { return Err("a backslash ends it") };
    *rest = after;
    let class = |ranges: &[(char, char)], negated| Set { negated, ranges: ranges.to_vec() };
    Ok(match letter {
        'd' | 'D' => class(DIGITS, *letter == 'D'),
        's' | 'S' => class(SPACE, *letter == 'S'),
        'w' | 'W' => class(WORD, *letter == 'W'),
        'a' => Set::of('\u{7}'),
        'f' => Set::of('\u{c}'),
        'n' => Set::of('\n'),
        'r' => Set::of('\r'),
        't' => Set::of('\t'),
        'v' => Set::of('\u{b}'),
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => Set::of(*other),
        _ => return Err(UNKNOWN_ESCAPE),
    })
}

/// A class of ASCII characters, as `[:alpha:]` inside of brackets.
fn named(name: &str) -> Result<Vec<(char, char)>, &'static str> {
    let all: &[(&str, &[(char, char)])] = &[
        ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
        ("alpha", &[('A', 'Z'), ('a', 'z')]),
        ("ascii", &[('\0', '\u{7f}')]),
        ("blank", &[('\t', '\t'), (' ', ' ')]),
        ("cntrl", &[('\0', '\u{1f}'), ('\u{7f}', '\u{7f}')]),
        ("digit", &[('0', '9')]),
        ("graph", &[('!', '~')]),
        ("lower", &[('a', 'z')]),
        ("print", &[(' ', '~')]),
        ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
        ("space", &[('\t', '\r'), (' ', ' ')]),
        ("upper", &[('A', 'Z')]),
        ("word", &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
    ];
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, ranges)| ranges.to_vec()).ok_or("there is no such class of characters")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}")).matches(path)
    }

    #[test]
    fn odd_patterns_mean_what_their_expression_means() {
        // Brackets around a wildcard hold the text of its expression.
        assert!(matches("a[*]", "a^]") && matches("a[*]", "a]") && !matches("a[*]", "a*"));
        assert!(matches("a\\d*", "a1b") && !matches("a\\d*", "ab"));
        assert!(matches("[[:alpha:]_]*", "x") && matches("[[:alpha:]_]*", "_") && !matches("[[:alpha:]_]*", "1"));
        assert!(!matches("a^b*", "a^b"), "a caret is an anchor");
        assert!(matches("a-b[x]", "a-bx") && matches("a&&b[~]", "a&&b~"));
        assert!(Glob::new("a\\b*").is_err(), "a word's edge");
    }

    #[test]
    fn a_long_pattern_takes_no_longer_than_its_length_times_the_paths() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in any::<String>(), path in any::<String>()) {
            let _ = check(&pattern);
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(&path);
            }
        }

        #[test]
        fn odd_characters_do_no_harm(pattern in "[*?a/\\\\\\[\\]^.!-]{0,12}", path in "[a/*.]{0,8}") {
            if check(&pattern).is_ok() && let Ok(glob) = Glob::new(&pattern) {
                glob.matches(&path);
            }
        }
    }
}
