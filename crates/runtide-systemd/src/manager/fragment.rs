//! Repair of the file that systemd writes for a transient unit.
//!
//! systemd keeps a transient unit in memory as requested, and reads it from a file after every `daemon-reload`. In that
//! file it escapes `;` and `$` of a command with a backslash (seen in 252), which it does not remove when it reads:
//! from the next reload on, `a; b` would be `a\; b`. The rest of a command is preserved, and no other property
//! preserves these two: `ExecStartEx` is written under a name that is not read at all.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use crate::files;

/// True if a command has a character that changes on a reload.
pub(super) fn is_at_risk<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    words.into_iter().any(|word| word.contains([';', '$']))
}

/// The text without the backslashes that systemd does not unescape; `None`: there are none.
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

/// The manager's path as seen from this process.
pub(super) fn seen_from(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Repairs the file at this path of the manager; blocks. A concurrent reader gets the old file or the new one.
pub(super) fn mend(root: &Path, path: &str) -> io::Result<()> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = files::open(root, folder, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&folder, name, flags, Mode::empty())?;
    let metadata = File::from(opened.try_clone()?).metadata()?;
    let text = String::from_utf8(files::text(opened)?);
    let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let Some(mended) = mended(&text) else { return Ok(()) };
    // No unit has this type, so systemd does not read the file.
    let temporary = format!("{name}.runtide");
    // Left by an earlier call that was killed.
    let _ = unlinkat(&folder, &temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&folder, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let written = (|| {
        file.set_permissions(metadata.permissions())?;
        file.write_all(mended.as_bytes())?;
        // systemd compares the time with that of its own write, to report that the file was changed.
        file.set_modified(metadata.modified()?)?;
        Ok(renameat(&folder, &temporary, &folder, name)?)
    })();
    if written.is_err() {
        let _ = unlinkat(&folder, &temporary, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_that_systemd_does_not_unescape_are_removed() {
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
