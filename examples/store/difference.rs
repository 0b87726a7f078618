//! The difference between two bodies, line by line.

use std::{io::Write, time::Duration};

use anstyle::{AnsiColor, Style};
use runtide_core::store::{Document, Resource, ResourceFormat, Revision};
use runtide_examples::{Stop, note};
use similar::{ChangeTag, TextDiff};

use crate::show::harmless;

/// Longest time of a comparison: two different texts of 8 MiB would take very long.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Prints the difference in the form of `diff -u`.
pub(crate) fn show(before: &Resource, after: &Document, revision: Revision) -> Result<(), Stop> {
    let Some((old, new)) = texts(before.written(), after) else {
        note("the change cannot be shown as text");
        return Ok(());
    };
    let diff = TextDiff::configure().timeout(TIMEOUT).diff_lines(&old, &new);
    let mut out = anstream::stdout().lock();
    let (red, green, dim) = (AnsiColor::Red.on_default(), AnsiColor::Green.on_default(), AnsiColor::Cyan.on_default());
    let format = |document: &Document| document.format;
    let mut put = |style: Style, line: &str| writeln!(out, "  {style}{}{style:#}", harmless(line));
    put(Style::new().bold(), &format!("--- {} at {}", format(before.written()), before.revision))?;
    put(Style::new().bold(), &format!("+++ {} at {revision}", format(after)))?;
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        put(dim, &hunk.header().to_string())?;
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ("-", red),
                ChangeTag::Insert => ("+", green),
                ChangeTag::Equal => (" ", Style::new()),
            };
            put(style, &format!("{sign}{}", change.value().trim_end_matches(['\n', '\r'])))?;
        }
    }
    Ok(())
}

/// Both bodies as text in one format: as they were written, or in YAML if the formats differ.
fn texts(before: &Document, after: &Document) -> Option<(String, String)> {
    let text = |document: &Document| String::from_utf8(document.bytes.to_vec()).ok();
    if before.format == after.format
        && let (Some(before), Some(after)) = (text(before), text(after))
    {
        return Some((before, after));
    }
    let yaml = |document: &Document| document.convert(ResourceFormat::Yaml).ok().as_ref().and_then(text);
    Some((yaml(before)?, yaml(after)?))
}
