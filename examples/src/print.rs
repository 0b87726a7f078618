//! Printing a watch.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use runtide_core::{EventStream, InstanceFilter, InstanceTable};

use crate::{Output, Stop, Until, line::Lines, width::columns};

/// Prints events until `--for` is over, until the output has no reader any more, or until the watch ends.
///
/// # Errors
/// `Unread` for a closed pipe; `Refused` where the watch ends or the output cannot be written.
pub async fn events(events: EventStream, filter: InstanceFilter, output: &Output) -> Result<(), Stop> {
    events_after(InstanceTable::default(), events, filter, output).await
}

/// [`events`], with a table from before the first event.
///
/// # Errors
/// As [`events`].
pub async fn events_after(
    known: InstanceTable,
    mut events: EventStream,
    filter: InstanceFilter,
    output: &Output,
) -> Result<(), Stop> {
    let until = Until::after(output.time);
    let mut printer = Printer::new(known, filter, output.json);
    while let Some(Some(event)) = until.get(events.next()).await {
        printer.print(&*event?)?;
    }
    Ok(())
}

enum Printer {
    Json(io::Stdout),
    Human(Box<Lines>, anstream::Stdout),
}

impl Printer {
    fn new(known: InstanceTable, filter: InstanceFilter, json: bool) -> Self {
        if json {
            Self::Json(io::stdout())
        } else {
            Self::Human(Box::new(Lines::new(TimeZone::system(), filter).after(known)), anstream::stdout())
        }
    }

    /// Prints one event and flushes, so that the reader of a pipe gets it at once.
    fn print(&mut self, event: &runtide_core::RuntimeEvent) -> Result<(), Stop> {
        let mut text = String::new();
        match self {
            Self::Json(out) => {
                text = serde_json::to_string(event)
                    .map_err(|error| Stop::refused(format_args!("an event cannot be written as JSON: {error}")))?;
                text.push('\n');
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Self::Human(lines, out) => {
                lines.cut_at(columns());
                lines.event(event, &mut text);
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
        }
        Ok(())
    }
}
