//! [`Lines`]: events as lines for people.

use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use runtide_core::{
    Failure, Gap, Instance, InstanceFilter, InstanceTable, RuntimeEvent, RuntimeEventKind, event::Continuity,
};

use crate::show::{self, cell, changes, clean, shorten};

/// Most characters of a column; it grows with its content.
const NAME: usize = 32;
const STATE: usize = 20;
const PORTS: usize = 32;

/// Formats events as lines. It keeps its own table, for the values before a change.
pub(crate) struct Lines {
    zone: TimeZone,
    filter: InstanceFilter,
    table: InstanceTable,
    /// Gap of an open resync.
    resync: Option<Gap>,
    name: usize,
    state: usize,
    ports: usize,
}

impl Lines {
    pub(crate) fn new(zone: TimeZone, filter: InstanceFilter) -> Self {
        Self {
            zone,
            filter,
            table: InstanceTable::default(),
            resync: None,
            name: "metrics-board-1".len(),
            state: "running (unhealthy)".len(),
            ports: "127.0.0.1:80->80".len(),
        }
    }

    /// Starts with this table.
    pub(crate) fn after(mut self, known: InstanceTable) -> Self {
        self.table = known;
        self
    }

    /// Appends the lines of an event.
    pub(crate) fn event(&mut self, event: &RuntimeEvent, out: &mut String) {
        let before = event.instance().and_then(|now| self.table.get(&event.backend, &now.id)).cloned();
        let steps = self.table.apply(event);
        match &event.kind {
            RuntimeEventKind::Started(now) => {
                let detail = show::image(now.image.as_ref());
                let detail = if detail == show::UNKNOWN { String::new() } else { detail };
                self.instance(event, "started", AnsiColor::Green.on_default().bold(), now, &detail, out);
            }
            RuntimeEventKind::Stopped(now) => {
                self.instance(event, "stopped", AnsiColor::Yellow.on_default().bold(), now, "", out);
            }
            RuntimeEventKind::Removed(last) => {
                self.instance(event, "removed", AnsiColor::Red.on_default().bold(), last, "", out);
            }
            RuntimeEventKind::Updated { instance, changed } => {
                let detail = match before {
                    Some(before) => changes(changed.iter(), &before, instance),
                    None => "first seen".to_owned(),
                };
                self.instance(event, "updated", AnsiColor::Cyan.on_default().bold(), instance, &detail, out);
            }
            RuntimeEventKind::BackendDisconnected { cause } => {
                let style = AnsiColor::Red.on_default().bold();
                self.resync = None;
                self.say(event, "disconnected", style, &outage(cause.as_ref()), out);
            }
            RuntimeEventKind::BackendReconnected { continuity } => {
                let news = match continuity {
                    Continuity::Resumed => "nothing was missed",
                    _ => "the events since were not reported: a re-list follows",
                };
                self.say(event, "reconnected", AnsiColor::Green.on_default().bold(), news, out);
            }
            RuntimeEventKind::ResyncBegin { gap } => self.resync = Some(*gap),
            RuntimeEventKind::ResyncEnd => {
                let Some(gap) = self.resync.take() else { return };
                let dim = Style::new().dimmed();
                let there = self.table.of(&event.backend).count();
                let there = if there == 1 { "1 instance".to_owned() } else { format!("{there} instances") };
                self.say(event, "resync", dim, &format!("{there}; {}", why(gap)), out);
                let mut rows: Vec<_> = steps.iter().filter_map(|step| Row::of(step, gap, &self.filter)).collect();
                rows.sort_by(|one, other| one.shown.name.cmp(&other.shown.name));
                for row in rows {
                    self.instance(event, row.change, row.style, row.shown, &row.detail, out);
                }
            }
            // The rows of a resync are printed at its end.
            _ => {}
        }
    }

    fn say(&self, event: &RuntimeEvent, change: &str, style: Style, news: &str, out: &mut String) {
        self.begin(event, change, style, out);
        out.push_str(&clean(news));
        out.push('\n');
    }

    fn begin(&self, event: &RuntimeEvent, change: &str, style: Style, out: &mut String) {
        let time = Timestamp::try_from(event.observed_at).map_or_else(
            |_| show::UNKNOWN.to_owned(),
            |at| at.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string(),
        );
        let dim = Style::new().dimmed();
        let backend = shorten_id(&clean(event.backend.as_str()));
        for cell in [cell(&time, 12, dim), cell(&backend, 12, dim), cell(change, 12, style)] {
            out.push_str(&cell);
            out.push_str("  ");
        }
    }

    fn instance(
        &mut self,
        event: &RuntimeEvent,
        change: &str,
        style: Style,
        now: &Instance,
        detail: &str,
        out: &mut String,
    ) {
        self.begin(event, change, style, out);
        let name = shorten(&clean(&now.name), NAME);
        let state = show::state(now);
        let ports = shorten(&show::ports(now.ports.as_deref()), PORTS);
        let plain = Style::new();
        let columns = [
            (name, &mut self.name, NAME, plain.bold()),
            (state, &mut self.state, STATE, show::state_style(now.state)),
            (ports, &mut self.ports, PORTS, plain),
        ];
        for (text, width, most, style) in columns {
            *width = (*width).max(text.chars().count()).min(most);
            out.push_str(&cell(&text, *width, style));
            out.push_str("  ");
        }
        let exit = show::exit(now);
        let bad = !matches!(exit.as_str(), "" | "exit 0" | "exit -");
        out.push_str(&cell(&exit, "exit SIGKILL".len(), if bad { AnsiColor::Red.on_default() } else { plain }));
        if !detail.is_empty() {
            out.push_str("  ");
            out.push_str(detail);
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

/// One row below the line of a resync.
struct Row<'a> {
    change: &'static str,
    style: Style,
    shown: &'a Arc<Instance>,
    detail: String,
}

impl<'a> Row<'a> {
    /// The row of a net effect. It has its own words, since the runtime reported no such event.
    fn of(step: &'a runtide_core::Transition, gap: Gap, filter: &InstanceFilter) -> Option<Self> {
        let row = |change, style, shown, detail| Some(Self { change, style, shown, detail });
        match (&step.before, &step.after) {
            (None, Some(now)) if gap == Gap::Initial => row("present", Style::new().dimmed(), now, String::new()),
            (None, Some(now)) => row("appeared", AnsiColor::Green.on_default(), now, String::new()),
            // It no longer matched the filter, so its absence says nothing.
            (Some(last), None) if !filter.matches(last) => None,
            (Some(last), None) => row("gone", AnsiColor::Red.on_default(), last, String::new()),
            (Some(before), Some(now)) => {
                let changed = runtide_core::event::FieldSet::between(before, now);
                row("differs", AnsiColor::Cyan.on_default(), now, changes(changed.iter(), before, now))
            }
            (None, None) => None,
        }
    }
}

fn outage(cause: Option<&Failure>) -> String {
    match cause {
        Some(cause) => format!("{}; trying again", cause.message),
        None => "the runtime closed the stream; trying again".to_owned(),
    }
}

fn why(gap: Gap) -> String {
    match gap {
        Gap::Initial => gap.to_string(),
        _ => format!("{gap}; below is what is not as before"),
    }
}

/// Shortens `docker:/a/long/path/docker.sock` to its kind and its end.
fn shorten_id(id: &str) -> String {
    const MOST: usize = 24;
    let length = id.chars().count();
    match id.split_once(':') {
        Some((kind, rest)) if length > MOST => {
            let keep = MOST.saturating_sub(kind.chars().count() + 3);
            let from = rest.chars().count().saturating_sub(keep);
            format!("{kind}:..{}", rest.chars().skip(from).collect::<String>())
        }
        _ => shorten(id, MOST),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use runtide_core::{Cursor, ErrorKind, ExitStatus, InstanceKind, InstanceState, event::FieldSet};

    use super::*;

    /// Emits events as a driver does, and returns the lines without their colours.
    struct Emitter(Lines, u64);

    impl Emitter {
        fn new() -> Self {
            Self(Lines::new(TimeZone::UTC, InstanceFilter::default().with_names(["web".to_owned()])), 0)
        }

        fn emit(&mut self, kind: RuntimeEventKind) -> String {
            self.1 += 1;
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(3_723_004);
            let event = RuntimeEvent::new("docker:local".into(), Cursor::new("e".into(), self.1, None), at, kind);
            let mut out = String::new();
            self.0.event(&event, &mut out);
            anstream::adapter::strip_str(&out).to_string()
        }

        fn resync(&mut self, gap: Gap, rows: &[Arc<Instance>]) -> String {
            let mut out = self.emit(RuntimeEventKind::ResyncBegin { gap });
            for row in rows {
                out += &self.emit(RuntimeEventKind::Present(Arc::clone(row)));
            }
            out + &self.emit(RuntimeEventKind::ResyncEnd)
        }
    }

    fn web(state: InstanceState) -> Arc<Instance> {
        Arc::new(Instance::new("docker:local", "1", "web", InstanceKind::Container, state))
    }

    #[test]
    fn the_first_resync_is_a_count_and_its_rows() {
        let out = Emitter::new().resync(Gap::Initial, &[web(InstanceState::Running)]);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "01:02:03.004  docker:local  resync        1 instance; the watch begins");
        assert!(lines[1].starts_with("01:02:03.004  docker:local  present       web "), "{out}");
        assert!(lines[1].ends_with("running              -"), "its ports are unknown: {out}");
    }

    #[test]
    fn a_later_resync_shows_only_net_effects_in_their_own_words() {
        let mut emitter = Emitter::new();
        emitter.resync(Gap::Initial, &[web(InstanceState::Running)]);
        let out = emitter.resync(Gap::Disconnected, &[web(InstanceState::Running)]);
        assert_eq!(out.lines().count(), 1, "{out}");
        let out = emitter.resync(Gap::HistoryExpired, &[web(InstanceState::Paused)]);
        assert!(out.contains("differs") && out.contains("state running -> paused"), "{out}");
        let out = emitter.resync(Gap::Lagged { dropped: 7 }, &[]);
        assert!(out.contains("gone") && out.contains("7 events"), "{out}");
        let out = emitter.resync(Gap::RuntimeRestarted, &[web(InstanceState::Running)]);
        assert!(out.contains("appeared"), "{out}");
    }

    #[test]
    fn an_instance_that_left_the_filter_is_not_called_gone() {
        let mut emitter = Emitter::new();
        emitter.resync(Gap::Initial, &[web(InstanceState::Running)]);
        let mut renamed = Instance::clone(&web(InstanceState::Running));
        renamed.name = "other".to_owned();
        let changed = FieldSet::between(&web(InstanceState::Running), &renamed);
        let out = emitter.emit(RuntimeEventKind::Updated { instance: Arc::new(renamed), changed });
        assert!(out.contains("name web -> other"), "{out}");
        assert!(!emitter.resync(Gap::Disconnected, &[]).contains("gone"));
    }

    #[test]
    fn an_end_shows_its_exit() {
        let mut ended = Instance::clone(&web(InstanceState::Stopped));
        ended.exit = Some(ExitStatus::code(3));
        let out = Emitter::new().emit(RuntimeEventKind::Stopped(Arc::new(ended)));
        assert!(out.contains("stopped") && out.ends_with("exit 3\n"), "{out}");
    }

    #[test]
    fn an_outage_is_printed_with_its_cause_and_the_retry() {
        let mut emitter = Emitter::new();
        let cause = Failure::new(ErrorKind::Unavailable, "docker.events", "the connection\nbroke");
        let out = emitter.emit(RuntimeEventKind::BackendDisconnected { cause: Some(cause) });
        assert!(out.ends_with("disconnected  the connection?broke; trying again\n"), "{out}");
        let out = emitter.emit(RuntimeEventKind::BackendReconnected { continuity: Continuity::Resumed });
        assert!(out.ends_with("nothing was missed\n"), "{out}");
        assert_eq!(emitter.emit(RuntimeEventKind::Bookmark), "");
    }

    #[test]
    fn a_long_id_keeps_its_kind_and_its_end() {
        assert_eq!(shorten_id("docker:local"), "docker:local");
        assert_eq!(shorten_id("docker:/home/username/.colima/default/docker.sock"), "docker:..ult/docker.sock");
    }
}
