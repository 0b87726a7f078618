//! The commands that a simulated process can run, as a main process or by `exec`. Words are taken as they are: no shell.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use runtide_core::manager::LogSource;

/// Output that is made as it is read, and so costs no memory: the same bytes for the same seed.
///
/// ```
/// use runtide_memory::Emission;
///
/// let emission = Emission::new(100_000, 7);
/// assert_eq!(emission.chunks().map(|chunk| chunk.len()).sum::<usize>(), 100_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Emission {
    bytes: u64,
    seed: u64,
}

impl Emission {
    /// As many bytes as are made, and read, at once.
    pub const CHUNK: usize = 32 << 10;

    /// So many bytes.
    pub fn new(bytes: u64, seed: u64) -> Self {
        Self { bytes, seed }
    }

    /// Its bytes, [`CHUNK`](Self::CHUNK) at a time.
    pub fn chunks(self) -> impl Iterator<Item = Bytes> + Send {
        (0..).map_while(move |number| self.chunk(number))
    }

    /// `None`: past the end.
    pub(crate) fn chunk(self, number: u64) -> Option<Bytes> {
        let left = self.bytes.checked_sub(number.checked_mul(Self::CHUNK as u64)?).filter(|left| *left > 0)?;
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(Self::CHUNK)];
        fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).fill(&mut chunk);
        Some(chunk.into())
    }

    pub(crate) fn chunk_count(self) -> u64 {
        self.bytes.div_ceil(Self::CHUNK as u64)
    }
}

/// Environment, folder, user and command line of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
}

/// A command that the runtime can simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// Writes this and ends, so.
    Print(LogSource, Bytes, i32),
    /// Writes this much and ends.
    Emit(LogSource, Emission),
    /// Copies its input.
    Cat,
    /// Writes its terminal's size, once for each line of input.
    Size,
    Sleep(Duration),
    /// Not one that the runtime knows.
    Other,
}

impl Program {
    /// | command | effect |
    /// |---|---|
    /// | `echo WORD…` | writes the words and a newline |
    /// | `printf TEXT` | writes the text, with `\n`, `\t`, `\0` and `\\` replaced |
    /// | `cat` | copies input to output |
    /// | `env`, `pwd`, `whoami` | writes its environment, its folder or its user |
    /// | `true`, `false`, `exit N` | ends, so |
    /// | `sleep SECONDS` | ends after so long; fractions will do |
    /// | `emit BYTES SEED [stderr]` | writes the bytes of an [`Emission`] |
    /// | `size` | writes its terminal's columns and rows, again for each line of input |
    pub(crate) fn of(given: &Surroundings) -> Self {
        let words: Vec<&str> = given.argv.iter().map(String::as_str).collect();
        let Some((program, rest)) = words.split_first() else { return Self::Other };
        let print = |text: String| Self::Print(LogSource::Stdout, text.into(), 0);
        let end = |code| Self::Print(LogSource::Stdout, Bytes::new(), code);
        let misused = || Self::Print(LogSource::Stderr, format!("{program}: wrong arguments\n").into(), 2);
        match (*program, rest) {
            ("echo", words) => print(format!("{}\n", words.join(" "))),
            ("printf", [text]) => print(unescaped(text)),
            ("cat", []) => Self::Cat,
            ("size", []) => Self::Size,
            ("env", []) => print(given.env.iter().flat_map(|(key, value)| [key.as_str(), "=", value, "\n"]).collect()),
            ("pwd", []) => print(format!("{}\n", given.working_dir)),
            ("whoami", []) => print(format!("{}\n", given.user)),
            ("true", []) => end(0),
            ("false", []) => end(1),
            ("exit", [code]) => code.parse().map_or_else(|_| misused(), end),
            ("sleep", [seconds]) => {
                let seconds = seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                seconds.map_or_else(misused, Self::Sleep)
            }
            ("emit", [bytes, seed, to @ ..]) => match (bytes.parse(), seed.parse(), to) {
                (Ok(bytes), Ok(seed), []) => Self::Emit(LogSource::Stdout, Emission::new(bytes, seed)),
                (Ok(bytes), Ok(seed), ["stderr"]) => Self::Emit(LogSource::Stderr, Emission::new(bytes, seed)),
                _ => misused(),
            },
            (
                "printf" | "cat" | "size" | "env" | "pwd" | "whoami" | "true" | "false" | "exit" | "sleep" | "emit",
                _,
            ) => misused(),
            _ => Self::Other,
        }
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('0') => out.push('\0'),
                Some('\\') | None => out.push('\\'),
                Some(other) => out.extend(['\\', other]),
            },
            (char, false) => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(argv: &[&str]) -> Program {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        Program::of(&Surroundings { argv, working_dir: "/srv".into(), ..Surroundings::default() })
    }

    #[test]
    fn words_are_taken_as_they_are() {
        assert_eq!(of(&["echo", "$HOME;", "`id`"]), Program::Print(LogSource::Stdout, "$HOME; `id`\n".into(), 0));
        assert_eq!(of(&["printf", "a\\nb\\\\n\\q"]), Program::Print(LogSource::Stdout, "a\nb\\n\\q".into(), 0));
        assert_eq!(of(&["exit", "3"]), Program::Print(LogSource::Stdout, Bytes::new(), 3));
        assert_eq!(of(&["sleep", "0.5"]), Program::Sleep(Duration::from_millis(500)));
        assert_eq!(of(&["nginx", "-g", "daemon off;"]), Program::Other);
    }

    #[test]
    fn wrong_arguments_end_with_code_2() {
        for argv in [&["exit", "x"][..], &["sleep", "-1"], &["sleep", "NaN"], &["emit", "1"], &["cat", "/etc/passwd"]] {
            assert!(matches!(of(argv), Program::Print(LogSource::Stderr, _, 2)), "{argv:?}");
        }
    }

    #[test]
    fn an_emission_is_the_same_read_in_any_way() {
        let emission = Emission::new(3 * Emission::CHUNK as u64 + 5, 1);
        let whole: Vec<Bytes> = emission.chunks().collect();
        assert_eq!(whole.len() as u64, emission.chunk_count());
        assert_eq!(whole.last().map(Bytes::len), Some(5));
        assert_eq!(emission.chunk(2).as_ref(), whole.get(2));
        assert_ne!(whole.first(), Emission::new(1 << 20, 2).chunk(0).as_ref());
        assert_eq!(Emission::new(0, 1).chunks().count(), 0);
    }
}
