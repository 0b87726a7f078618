//! Words that the field does not use, in our code and pages: each with the one that it does use.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};
use crate::terminal::say;
use crate::workspace;

/// A word, how often it may stand, and what to write.
struct Rule {
    /// The banned words, or openings of comments.
    found: Found,
    field: &'static str,
    /// How many places may have it: as many as had it when the number was set. It only falls.
    most: usize,
}

enum Found {
    /// One of these, with no letter, digit or `_` on either side. A capital is one only where it is written here.
    Words(&'static [&'static str]),
    /// A comment or a line of documentation that opens with one of these.
    Opening(&'static [&'static str]),
}

use Found::{Opening, Words};

const RULES: [Rule; 14] = [
    Rule { found: Words(&["Looker", "Looks", "looker"]), field: "Inspector, InspectQueue", most: 0 },
    Rule { found: Words(&["NativeMark", "native_mark"]), field: "ResumeToken", most: 0 },
    Rule {
        found: Words(&["Damage", "OnDamage", "GoOn", "damage", "damaged"]),
        field: "Corruption, OnCorruption::Continue",
        most: 0,
    },
    Rule { found: Words(&["HalfMade", "half_made"]), field: "CreateGuard", most: 0 },
    Rule { found: Words(&["scribe", "Scribe"]), field: "committer", most: 0 },
    Rule { found: Words(&["keeper", "Keeper"]), field: "writer", most: 0 },
    Rule { found: Words(&["shelf", "Shelf", "shelves"]), field: "collection, index", most: 0 },
    Rule { found: Words(&["baton", "Baton"]), field: "leader (of a group commit)", most: 0 },
    Rule { found: Words(&["anew"]), field: "again", most: 0 },
    Rule { found: Words(&["for ever"]), field: "indefinitely", most: 0 },
    Rule { found: Words(&["unless told"]), field: "by default", most: 0 },
    Rule { found: Words(&["whoever", "Whoever"]), field: "the caller, the task, the subscriber, the daemon", most: 0 },
    Rule {
        found: Words(&["somebody", "Somebody", "nobody", "Nobody"]),
        field: "name the actor: the caller, the subscriber",
        // Six are data: a user of a passwd file, folders, and names in tests.
        most: 6,
    },
    Rule {
        found: Opening(&["Who", "What", "Whoever", "Whatever", "Where", "Whether", "Nobody", "Somebody"]),
        field: "a subject, a verb and the field's noun",
        most: 0,
    },
];

/// Texts in which old words stand for a reason.
const FREE: [(&str, &str); 3] = [
    ("CHANGELOG.md", "tells which name became which"),
    ("docs/glossary.md", "has the old words beside the new"),
    ("xtask/src/words.rs", "is this list"),
];

pub(crate) fn check() -> Outcome<()> {
    let mut places: Vec<Vec<String>> = RULES.iter().map(|_| Vec::new()).collect();
    for file in tracked()? {
        let text = fs::read_to_string(workspace::root().join(&file)).doing(format_args!("cannot read {file}"))?;
        let is_code = Path::new(&file).extension().is_some_and(|extension| extension == "rs");
        for (number, line) in (1..).zip(text.lines()) {
            for (rule, places) in RULES.iter().zip(&mut places) {
                places.extend((0..rule.found.count(line, is_code)).map(|_| format!("{file}:{number}")));
            }
        }
    }
    let wrong: Vec<String> = RULES.iter().zip(&places).filter_map(|(rule, places)| rule.judge(places)).collect();
    let (left, most) = (places.iter().map(Vec::len).sum::<usize>(), RULES.iter().map(|rule| rule.most).sum::<usize>());
    say!("lint: {left} places with another word than the field's; {most} are allowed, in xtask/src/words.rs");
    if wrong.is_empty() { Ok(()) } else { Err(Failure::failed(wrong.join("\n"))) }
}

/// The code and the pages that git knows.
fn tracked() -> Outcome<Vec<String>> {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut command = Command::new("git");
    command.current_dir(workspace::root()).args(["ls-files", "--", "*.rs", "*.md"]);
    let said = process::capture(&mut command, LIMIT, Interrupt::Ends)?;
    if !said.status.success() {
        return Err(Failure::refused(format_args!("git: {}", said.complaint())));
    }
    let is_there = |file: &&str| workspace::root().join(file).is_file() && !FREE.iter().any(|(free, _)| free == file);
    Ok(said.stdout.lines().filter(is_there).map(str::to_owned).collect())
}

impl Rule {
    fn judge(&self, places: &[String]) -> Option<String> {
        const SHOWN: usize = 10;
        let name = match self.found {
            Words(words) => format!("\"{}\"", words.join("\", \"")),
            Opening(words) => format!("a comment that opens with {}", words.join(", ")),
        };
        if places.len() > self.most {
            let first = places.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            return Some(format!(
                "{name}: {} places, {} allowed; the field says: {} ({first}, …)",
                places.len(),
                self.most,
                self.field
            ));
        }
        None
    }
}

impl Found {
    /// How often it is in a line.
    fn count(&self, line: &str, is_code: bool) -> usize {
        match self {
            Words(words) => words.iter().map(|word| count(line, word)).sum(),
            Opening(words) if is_code => usize::from(comment(line).is_some_and(|text| {
                words.iter().any(|word| text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(is_of_word)))
            })),
            Opening(_) => 0,
        }
    }
}

/// How often a line has these words, as words.
fn count(line: &str, words: &str) -> usize {
    let is_apart = |(at, _): &(usize, &str)| {
        let before = line.get(..*at).and_then(|before| before.chars().next_back());
        let after = line.get(at + words.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word)
    };
    line.match_indices(words).filter(is_apart).count()
}

fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The text of a line that is a comment or documentation, and nothing else.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_where_it_is_one() {
        assert_eq!(count("anew, and anew", "anew"), 2);
        assert_eq!(count("renew ManewA anew_b", "anew"), 0);
        assert_eq!(count("it waits for ever.", "for ever"), 1);
        assert_eq!(count("for every one", "for ever"), 0);
    }

    #[test]
    fn an_opening_is_one_of_a_comment_and_of_nothing_else() {
        let opening = Opening(&["Who", "What"]);
        for line in ["/// What it is.", "    // Who asks?", "//! What"] {
            assert_eq!(opening.count(line, true), 1, "{line}");
        }
        for line in ["/// Whole numbers.", "let x = 1; // What it is.", "/// The one. What it is.", "What()"] {
            assert_eq!(opening.count(line, true), 0, "{line}");
        }
        assert_eq!(opening.count("// What it is.", false), 0, "a page has no comments");
    }

    #[test]
    fn more_places_than_are_allowed_are_named() {
        let rule = |most| Rule { found: Words(&["anew"]), field: "again", most };
        let places = ["a.rs:1".to_owned(), "b.rs:2".to_owned()];
        assert_eq!(rule(2).judge(&places), None);
        assert!(rule(1).judge(&places).unwrap().contains("a.rs:1"));
        assert_eq!(rule(3).judge(&places), None, "the number is lowered by hand");
    }
}
