//! The file that systemd writes for a transient unit, put right.
//!
//! systemd keeps a transient unit in memory as it was asked for, and reads it from a file after every `daemon-reload`. In that
//! file it escapes `;` and `$` of a command with a backslash (seen in 252), which it does not take off again when it reads: from
//! the next reload on, `a; b` would be `a\; b`. Nothing else of a command is changed on that way, and no other way takes these
//! two: `ExecStartEx` is written under a name that is not read at all.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Whether a command holds what comes back changed.
pub(super) fn is_at_risk<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    words.into_iter().any(|word| word.contains([';', '$']))
}

/// The text without the backslashes that are not read as such; `None`: there are none.
fn mended(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    for line in text.split_inclusive('\n') {
        if !line.starts_with("Exec") {
            out.push_str(line);
            continue;
        }
        let mut rest = line.chars();
        while let Some(next) = rest.next() {
            if next != '\\' {
                out.push(next);
                continue;
            }
            match rest.next() {
                Some(plain @ (';' | '$')) => {
                    changed = true;
                    out.push(plain);
                }
                Some(escaped) => out.extend(['\\', escaped]),
                None => out.push('\\'),
            }
        }
    }
    changed.then_some(out)
}

/// Where the manager's own path lies for us.
pub(super) fn seen_from(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Puts the file right; blocks. Whoever reads it meanwhile finds the one or the other.
pub(super) fn mend(path: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let Some(mended) = mended(&text) else { return Ok(()) };
    let metadata = std::fs::metadata(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // No unit is of this type, so that systemd does not read it.
    name.push(".runtide");
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&beside)?;
        file.set_permissions(metadata.permissions())?;
        file.write_all(mended.as_bytes())?;
        // systemd compares the time with that of its own writing, to say that the file was changed.
        file.set_modified(metadata.modified()?)?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_that_systemd_does_not_read_are_taken_off() {
        for (written, read) in [
            (r#"ExecStart=@/bin/sh "sh" "a\;b""#, Some(r#"ExecStart=@/bin/sh "sh" "a;b""#)),
            (r#"ExecStart="/bin/sh" "\$\$x \" \\""#, Some(r#"ExecStart="/bin/sh" "$$x \" \\""#)),
            (r#"ExecStart="/bin/sh" "\\\;" "\\;""#, Some(r#"ExecStart="/bin/sh" "\\;" "\\;""#)),
            (r#"ExecStart="/bin/sh" "\n \x41 $$""#, None),
            (r#"Environment="A=\$x""#, None),
        ] {
            assert_eq!(mended(written).as_deref(), read, "{written}");
        }
    }
}
