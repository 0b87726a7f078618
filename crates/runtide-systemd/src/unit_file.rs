//! The syntax of unit files: sections of assignments, as `systemd.syntax(7)` defines it.

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

/// The reason why a file is invalid, and the number of the line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) line: usize,
    pub(crate) why: &'static str,
}

impl UnitFile {
    /// Parses a file. Comments are dropped; continued lines are joined with a space, as systemd does.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let mut file = Self::default();
        let mut pending: Option<(usize, String)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') || trimmed.starts_with(';') {
                continue; // also in the middle of a line that is continued
            }
            let (begin, mut whole) = pending.take().unwrap_or((number, String::new()));
            if let Some(more) = line.strip_suffix('\\').filter(|_| is_continued(line)) {
                whole.push_str(more);
                whole.push(' ');
                pending = Some((begin, whole));
                continue;
            }
            whole.push_str(line);
            file.take(begin, &whole)?;
        }
        if let Some((begin, whole)) = pending {
            file.take(begin, &whole)?;
        }
        Ok(file)
    }

    fn take(&mut self, line: usize, text: &str) -> Result<(), Flaw> {
        let text = text.trim();
        let flaw = |why| Err(Flaw { line, why });
        if text.is_empty() {
            return Ok(());
        }
        if let Some(rest) = text.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']') else { return flaw("a section's name is not closed with ]") };
            if name.is_empty() || name.contains(['[', ']']) || name.chars().any(char::is_control) {
                return flaw("this is no name of a section");
            }
            self.sections.push(Section { name: name.to_owned(), entries: Vec::new() });
            return Ok(());
        }
        let Some((key, value)) = text.split_once('=') else {
            return flaw("this is neither a section nor an assignment");
        };
        let key = key.trim_end();
        if key.is_empty() {
            return flaw("an assignment needs a name");
        }
        let Some(section) = self.sections.last_mut() else {
            return flaw("an assignment comes before the first section");
        };
        section.entries.push((key.to_owned(), value.trim_start().to_owned()));
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
            if name.is_empty() || name.contains(['[', ']']) || name.chars().any(char::is_control) {
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
                text.extend([key, "=", value, "\n"]);
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

/// The reason why an assignment cannot be written to a file.
fn unwritable(key: &str, value: &str) -> Option<&'static str> {
    if key.is_empty() || key.trim() != key || key.contains('=') || key.starts_with(['[', '#', ';']) {
        return Some("this is no name of an assignment");
    }
    if key.chars().chain(value.chars()).any(|char| char.is_control() && char != '\t') {
        return Some("a line break or another control character cannot be in an assignment");
    }
    if value.trim() != value || is_continued(value) {
        return Some("a value neither begins nor ends with a space, nor ends with a backslash that is not escaped");
    }
    None
}

/// True if the next line continues this one: its last byte is a backslash that no other escapes. A space after it ends
/// the line.
fn is_continued(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        let text = "# a comment\n[Unit]\nDescription = two words \n; another\n\n[Service]\nExecStart=/bin/a \\\n  # inside\n  -b \\\n-c\nX=\nExecStart=/bin/z=1\n[Unit]\nAfter=x\n";
        let file = UnitFile::parse(text).unwrap();
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
            let file = UnitFile::parse(&format!("[S]\nA=1 {text}\nB=2\n")).unwrap();
            assert_eq!(file.entries("S").collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_value_that_continues_in_the_next_line_is_not_written() {
        let file = |value: &str| UnitFile {
            sections: vec![Section { name: "S".into(), entries: [("A", value), ("B", "2")].map(own).to_vec() }],
        };
        for value in [r"\\", r"a\\", r"a\\\\", r"a\b", ""] {
            assert_eq!(UnitFile::parse(&file(value).render().unwrap()), Ok(file(value)), "{value}");
        }
        for value in [r"\", r"a\", r"a\\\"] {
            assert_eq!(file(value).render().unwrap_err().0, "A", "{value}");
        }
    }

    fn own((key, value): (&str, &str)) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn flaws_are_named_by_line() {
        for (text, line) in [
            ("a=1", 1),
            ("[Unit\n", 1),
            ("[Unit]\nfoo\n", 2),
            ("[Unit]\n=x", 2),
            ("[]\n", 1),
            ("[Unit]\na=1\\\nb\nfoo", 4),
        ] {
            assert_eq!(UnitFile::parse(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
