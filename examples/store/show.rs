//! Output of the commands.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use anstyle::{AnsiColor, Style};
use runtide_core::store::{Document, Resource, StoreEvent, StoreStream};
use runtide_examples::{Output, Stop, Until};

/// Prints one line.
pub(crate) fn line(line: impl fmt::Display) -> Result<(), Stop> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// Prints a body unchanged, with a newline if its text has none at the end. A terminal gets it without control characters.
pub(crate) fn body(document: &Document, out: &mut io::StdoutLock<'_>) -> Result<(), Stop> {
    let text = std::str::from_utf8(&document.bytes);
    match text {
        Ok(text) if out.is_terminal() => out.write_all(harmless(text).as_bytes())?,
        Err(_) if out.is_terminal() => out.write_all(b"(bytes that are no text)\n")?,
        _ => out.write_all(&document.bytes)?,
    }
    if text.is_ok_and(|text| !text.ends_with('\n')) {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Replaces control characters, which a terminal would obey.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|char| if char.is_control() && !matches!(char, '\n' | '\t') { '?' } else { char }).collect()
}

/// Prints the resources, one per line.
pub(crate) fn table(resources: &[Arc<Resource>]) -> Result<(), Stop> {
    let rows = resources.iter().map(|resource| {
        let document = resource.written();
        [
            resource.reference.to_string(),
            resource.revision.to_string(),
            document.format.to_string(),
            document.bytes.len().to_string(),
        ]
    });
    let head = ["RESOURCE", "REVISION", "FORMAT", "BYTES"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    let mut out = io::stdout().lock();
    for [resource, revision, format, bytes] in &rows {
        writeln!(out, "{resource:<first$}  {revision:>second$}  {format:<third$}  {bytes:>7}")?;
    }
    Ok(())
}

/// Prints events until `--for` is over, until the output has no reader any more, or until the watch ends.
pub(crate) async fn events(mut events: StoreStream, output: &Output) -> Result<(), Stop> {
    let until = Until::after(output.time);
    let mut out = anstream::stdout();
    while let Some(Some(event)) = until.get(events.next()).await {
        let event = event?;
        if output.json {
            let json = serde_json::to_string(&event);
            let json = json.map_err(|error| Stop::refused(format_args!("an event is no JSON: {error}")))?;
            writeln!(io::stdout(), "{json}")?;
        } else {
            let (style, text) = styled(&event);
            writeln!(out, "{style}{text}{style:#}")?;
        }
    }
    Ok(())
}

fn styled(event: &StoreEvent) -> (Style, String) {
    let (green, cyan, red, dim) = (
        AnsiColor::Green.on_default(),
        AnsiColor::Cyan.on_default(),
        AnsiColor::Red.on_default(),
        Style::new().dimmed(),
    );
    match event {
        StoreEvent::Added(resource) => (green, format!("added      {} at {}", resource.reference, resource.revision)),
        StoreEvent::Modified(resource) => (cyan, format!("modified   {} at {}", resource.reference, resource.revision)),
        StoreEvent::Deleted { reference, revision } => (red, format!("deleted    {reference} at {revision}")),
        StoreEvent::Reset { gap, revision } => (dim, format!("reset      {gap}; the resources at {revision} follow")),
        StoreEvent::Bookmark { revision } => (dim, format!("bookmark   every change up to {revision} was emitted")),
        _ => (dim, "unknown event".to_owned()),
    }
}
