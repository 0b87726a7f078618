//! The syntax of unit files: sections of assignments, as systemd's own parser reads them, which accepts more than
//! `systemd.syntax(7)` describes.

#[cfg(test)]
mod differential;

/// Bytes at which systemd refuses a line, and a line with its continuations.
const LONGEST_LINE: usize = 1024 * 1024;

/// The byte order mark, as UTF-8. systemd drops it at the beginning of the first line that has one.
const BOM: char = '\u{feff}';

/// The blanks that systemd strips; any other is part of a name or value.
const BLANKS: [char; 2] = [' ', '\t'];

/// Sections of a file, in order; a section that is opened twice is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitFile {
    pub(crate) sections: Vec<Section>,
}

/// Assignments of a section, in order; the same key may be assigned many times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) entries: Vec<(String, String)>,
}

/// The reason why systemd refuses a file, and the number of the line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) line: usize,
    pub(crate) why: &'static str,
}

impl UnitFile {
    /// Parses a file that systemd would load.
    ///
    /// A line is ignored if systemd ignores it, with a warning or without: one that is neither a section nor an
    /// assignment, an assignment without a name or before the first section, a comment. Continued lines are joined with
    /// a space.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Flaw> {
        match Self::parse_until_flaw(text) {
            (file, None) => Ok(file),
            (_, Some(flaw)) => Err(flaw),
        }
    }

    /// Parses a file up to the line at which systemd stops, if there is one. Of a drop-in systemd keeps what comes
    /// before that line; a unit with such a file is not loaded.
    pub(crate) fn parse_until_flaw(text: &[u8]) -> (Self, Option<Flaw>) {
        let mut file = Self::default();
        let flaw = file.read(text).err();
        (file, flaw)
    }

    fn read(&mut self, text: &[u8]) -> Result<(), Flaw> {
        const TOO_LONG: &str = "a line is longer than a mebibyte, which systemd does not read";
        let mut pending: Option<(usize, Vec<u8>)> = None;
        let mut had_bom = false;
        for (number, mut line) in (1..).zip(Lines(text)) {
            if line.len() >= LONGEST_LINE {
                return Err(Flaw { line: number, why: TOO_LONG });
            }
            let first = line.iter().find(|byte| !b" \t".contains(byte));
            if matches!(first, Some(b'#' | b';')) {
                continue; // also in the middle of a line that is continued
            }
            if !had_bom && let Some(rest) = line.strip_prefix(BOM.encode_utf8(&mut [0; 3]).as_bytes()) {
                (line, had_bom) = (rest, true);
            }
            let (begin, mut whole) = pending.take().unwrap_or((number, Vec::new()));
            if whole.len() + line.len() > LONGEST_LINE {
                return Err(Flaw { line: number, why: TOO_LONG });
            }
            whole.extend_from_slice(line);
            if is_continued(&whole) {
                whole.pop();
                whole.push(b' ');
                pending = Some((begin, whole));
            } else {
                self.take(begin, &whole)?;
            }
        }
        match pending {
            Some((begin, whole)) => self.take(begin, &whole),
            None => Ok(()),
        }
    }

    /// Takes in one line, with its continuations.
    fn take(&mut self, line: usize, text: &[u8]) -> Result<(), Flaw> {
        let flaw = |why| Err(Flaw { line, why });
        let text = match std::str::from_utf8(text) {
            Ok(text) if !text.contains(is_noncharacter) => text.trim_matches(BLANKS),
            _ => return flaw("it is not UTF-8, or has a character that Unicode reserves"),
        };
        if let Some(rest) = text.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']') else { return flaw("a section's name is not closed with ]") };
            if !is_section_name(name) {
                return flaw("a quote, a backslash or a control character is in the name of a section");
            }
            self.sections.push(Section { name: name.to_owned(), entries: Vec::new() });
        } else if let Some((key, value)) = text.split_once('=')
            && let Some(section) = self.sections.last_mut()
        {
            let key = key.trim_end_matches(BLANKS);
            // No key of systemd's is like the others; they have no meaning, and could not be written.
            if is_key(key) {
                section.entries.push((key.to_owned(), value.trim_start_matches(BLANKS).to_owned()));
            }
        }
        Ok(())
    }

    /// Formats the file; parsing the text gives an equal file.
    ///
    /// # Errors
    /// The name or key that cannot be written, and the reason.
    pub(crate) fn render(&self) -> Result<String, (String, &'static str)> {
        let mut text = String::new();
        for section in &self.sections {
            let name = &section.name;
            if !is_section_name(name) || name.contains(is_noncharacter) {
                return Err((name.clone(), "this is no name of a section"));
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.extend(["[", name, "]\n"]);
            for (key, value) in &section.entries {
                if let Some(why) = unwritable(key, value) {
                    return Err((key.clone(), why));
                }
                // A blank after a backslash ends the line, and is not part of the value.
                let end = if is_continued(value.as_bytes()) { " \n" } else { "\n" };
                text.extend([key, "=", value, end]);
            }
        }
        Ok(text)
    }

    /// The assignments of all sections of this name, in order.
    pub(crate) fn entries<'a>(&'a self, section: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let sections = self.sections.iter().filter(move |one| one.name == section);
        sections.flat_map(|one| one.entries.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }
}

/// The lines of a file. Each ends with a line feed, a carriage return or a zero byte, or with one of each of the first
/// two in any order, and a zero byte perhaps after them.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| is_end(*byte)).unwrap_or(self.0.len());
        let (line, mut rest) = self.0.split_at(end);
        let mut ends: &[u8] = b"\n\r\0";
        while let Some((byte, after)) = rest.split_first()
            && ends.contains(byte)
        {
            ends = match (byte, ends) {
                (b'\n', b"\n\r\0") => b"\r\0",
                (b'\r', b"\n\r\0") => b"\n\0",
                (b'\n' | b'\r', _) => b"\0",
                _ => b"",
            };
            rest = after;
        }
        self.0 = rest;
        Some(line)
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0)
}

/// True for the code points that Unicode reserves for internal use; to systemd they are not UTF-8.
fn is_noncharacter(char: char) -> bool {
    let code = u32::from(char);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

fn is_section_name(name: &str) -> bool {
    !name.contains(|char: char| char.is_ascii_control() || matches!(char, '"' | '\'' | '\\'))
}

/// True if an assignment with this key can stand in a line of its own.
fn is_key(key: &str) -> bool {
    !key.is_empty() && !key.starts_with(['[', '#', ';', BOM])
}

/// The reason why an assignment cannot be written to a file.
fn unwritable(key: &str, value: &str) -> Option<&'static str> {
    if !is_key(key) || key.trim_matches(BLANKS) != key || key.contains('=') {
        return Some("this is no name of an assignment");
    }
    if key.bytes().chain(value.bytes()).any(is_end) {
        return Some("a line break or a zero byte cannot be in an assignment");
    }
    if key.contains(is_noncharacter) || value.contains(is_noncharacter) {
        return Some("a character that Unicode reserves cannot be in an assignment");
    }
    if value.trim_matches(BLANKS) != value {
        return Some("a value neither begins nor ends with a space");
    }
    (key.len() + value.len() + 2 >= LONGEST_LINE).then_some("an assignment is longer than a mebibyte")
}

/// True if the next line continues this one: its last byte is a backslash that no other escapes. A space after it ends
/// the line.
fn is_continued(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        let text = "# a comment\n[Unit]\nDescription = two words \n; another\n\n[Service]\nExecStart=/bin/a \\\n  # inside\n  -b \\\n-c\nX=\nExecStart=/bin/z=1\n[Unit]\nAfter=x\n";
        let file = UnitFile::parse(text.as_bytes()).unwrap();
        let names: Vec<&str> = file.sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["Unit", "Service", "Unit"]);
        let service: Vec<_> = file.entries("Service").collect();
        assert_eq!(service, [("ExecStart", "/bin/a    -b  -c"), ("X", ""), ("ExecStart", "/bin/z=1")]);
        let unit: Vec<_> = file.entries("Unit").collect();
        assert_eq!(unit, [("Description", "two words"), ("After", "x")]);
    }

    #[test]
    fn only_a_backslash_that_is_not_escaped_continues_a_line() {
        for (text, expected) in [
            (r"\", vec![("A", "1  B=2")]),
            (r"\\", vec![("A", r"1 \\"), ("B", "2")]),
            (r"\\\", vec![("A", r"1 \\ B=2")]),
            (r"\\\\", vec![("A", r"1 \\\\"), ("B", "2")]),
            ("\\ ", vec![("A", r"1 \"), ("B", "2")]),
        ] {
            let file = UnitFile::parse(format!("[S]\nA=1 {text}\nB=2\n").as_bytes()).unwrap();
            assert_eq!(file.entries("S").collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = |key: &str, value: &str| UnitFile {
            sections: vec![Section { name: "S".into(), entries: [(key, value), ("B", "2")].map(own).to_vec() }],
        };
        for value in
            [r"\", r"a\", r"a\\", r"a\b", "", r"\\", r"a\\\", "a\u{a0}", "\u{feff}a", "\u{b}\u{7f}", "[x]", "#", "a=b"]
        {
            let file = file("A", value);
            assert_eq!(UnitFile::parse(file.render().unwrap().as_bytes()), Ok(file), "{value:?}");
        }
        for (key, value) in [
            ("A", " a"),
            ("A", "a\t"),
            ("A", "a\nb"),
            ("A", "a\rb"),
            ("A", "a\0b"),
            ("A", "\u{fffe}"),
            ("", "1"),
            ("a=b", "1"),
            ("a ", "1"),
            ("#a", "1"),
            ("[a", "1"),
            ("\u{feff}a", "1"),
        ] {
            assert_eq!(file(key, value).render().unwrap_err().0, key, "{value:?}");
        }
        let long = "x".repeat(LONGEST_LINE - 4);
        assert!(UnitFile::parse(file("A", &long).render().unwrap().as_bytes()).is_ok());
        assert!(file("AB", &long).render().is_err());
    }

    fn own((key, value): (&str, &str)) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn what_systemd_only_warns_of_is_no_flaw() {
        for (text, expected) in [
            (&b"\xef\xbb\xbf[S]\nA=1\n"[..], &[("A", "1")][..]),
            (b"[S]\n\xef\xbb\xbfA=1\nB=2\n", &[("A", "1"), ("B", "2")]),
            (b"[S]\nwhat is this\nA=1\n", &[("A", "1")]),
            (b"[S]\n=0\nA=1\n", &[("A", "1")]),
            (b"A=0\n[S]\nA=1\n", &[("A", "1")]),
            (b".include /a/b\n[S]\n.include /a/b\nA=1\n", &[("A", "1")]),
            (b"[S]\rA=1\rB=2", &[("A", "1"), ("B", "2")]),
            (b"[S]\r\nA=1\n\rB=2\0C=3\n\0D=4\r\0E=5", &[("A", "1"), ("B", "2"), ("C", "3"), ("D", "4"), ("E", "5")]),
            (b"# caf\xe9\n[S]\n ; \xff\nA=1\n", &[("A", "1")]),
            (b"[S]\nA=1 \\\n# caf\xe9\n2\n", &[("A", "1  2")]),
            (b"[S]\nA=1 \\\r\n2\r\n", &[("A", "1  2")]),
            (b"[S]\nA=1 \\\n\nB=2\n", &[("A", "1"), ("B", "2")]),
            ("[S]\n\u{a0}A=1\u{a0}\nB = \u{b}2\n".as_bytes(), &[("\u{a0}A", "1\u{a0}"), ("B", "\u{b}2")]),
            (b" [S] \n\tA\t=\t1\t\n", &[("A", "1")]),
        ] {
            let file = UnitFile::parse(text).unwrap();
            assert_eq!(file.entries("S").collect::<Vec<_>>(), expected, "{}", text.escape_ascii());
        }
        let empty = UnitFile::parse(b"[]\n[a]b]\n").unwrap();
        let names: Vec<&str> = empty.sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["", "a]b"], "systemd knows no such section");
    }

    #[test]
    fn flaws_are_named_by_line() {
        let long = [&b"[Unit]\nA="[..], &vec![b'x'; LONGEST_LINE - 2]].concat();
        let long_together = [&b"[Unit]\nA=\\\n"[..], &vec![b'x'; LONGEST_LINE - 2]].concat();
        for (text, line) in [
            (&b"[Unit\n"[..], 1),
            (b"[Unit] # main\n", 1),
            (b"[Unit]\n[Un'it]\n", 2),
            (b"[Unit]\na=1\\\nb\n[\\]", 4),
            (b"[Unit]\r\na=caf\xe9\r\n", 2),
            (b"\xff\n[Unit]\n", 1),
            ("[Unit]\na=1\nb=\u{fffe}".as_bytes(), 3),
            (&long, 2),
            (&long_together, 3),
        ] {
            let shown: Vec<u8> = text.iter().take(40).copied().collect();
            assert_eq!(UnitFile::parse(text).unwrap_err().line, line, "{}", shown.escape_ascii());
        }
        let (before, flaw) = UnitFile::parse_until_flaw(b"[S]\nA=1\n[S\nB=2\n");
        assert_eq!((before.entries("S").collect::<Vec<_>>(), flaw.unwrap().line), (vec![("A", "1")], 3));
    }
}
