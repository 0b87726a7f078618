//! [`Lines`]: events as lines for people.

use std::{fmt::Write as _, sync::Arc};

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use runtide_core::{
    Completeness, Failure, Gap, Instance, InstanceFilter, InstanceTable, RuntimeEvent, RuntimeEventKind,
    event::Continuity,
};

use crate::show::{self, cell, changes, clean, shorten};

/// Most characters of a name; its column grows with its content.
const NAME: usize = 24;

/// Characters of the other columns. Longer text moves what is behind it, on that line alone.
const TIME: usize = 12;
const CHANGE: usize = 8;
const STATE: usize = 8;

/// A part of a line behind the columns.
type Detail = (String, Style);

/// Formats events as lines that fit into 80 columns unless their details are long. It keeps its own table, for the values before
/// a change.
pub(crate) struct Lines {
    zone: TimeZone,
    filter: InstanceFilter,
    table: InstanceTable,
    /// Gap of an open resync.
    resync: Option<Gap>,
    /// Width of the column of names.
    name: usize,
    /// Columns at which a line is cut.
    columns: Option<usize>,
}

impl Lines {
    pub(crate) fn new(zone: TimeZone, filter: InstanceFilter) -> Self {
        Self {
            zone,
            filter,
            table: InstanceTable::default(),
            resync: None,
            name: "metrics-board-1".len(),
            columns: None,
        }
    }

    /// Starts with this table.
    pub(crate) fn after(mut self, known: InstanceTable) -> Self {
        self.table = known;
        self
    }

    /// Cuts lines at this number of columns.
    pub(crate) fn cut_at(&mut self, columns: Option<usize>) {
        self.columns = columns;
    }

    /// Appends the lines of an event.
    pub(crate) fn event(&mut self, event: &RuntimeEvent, out: &mut String) {
        let before = event.instance().and_then(|now| self.table.get(&event.backend, &now.id)).cloned();
        let steps = self.table.apply(event);
        match &event.kind {
            RuntimeEventKind::Started(now) => {
                let image = show::image(now.image.as_ref());
                let details = [ports(now), plain(if image == show::UNKNOWN { String::new() } else { image })];
                self.instance(event, "started", AnsiColor::Green.on_default().bold(), now, &details, out);
            }
            RuntimeEventKind::Stopped(now) => {
                self.instance(event, "stopped", AnsiColor::Yellow.on_default().bold(), now, &[exit(now)], out);
            }
            RuntimeEventKind::Removed(last) => {
                self.instance(event, "removed", AnsiColor::Red.on_default().bold(), last, &[exit(last)], out);
            }
            RuntimeEventKind::Updated { instance, changed } => {
                let detail = match before {
                    Some(before) => changes(changed.iter(), &before, instance),
                    None => "first seen".to_owned(),
                };
                self.instance(event, "updated", AnsiColor::Cyan.on_default().bold(), instance, &[plain(detail)], out);
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
            RuntimeEventKind::ResyncEnd(completeness) => {
                let Some(gap) = self.resync.take() else { return };
                let dim = Style::new().dimmed();
                let there = self.table.of(&event.backend).count();
                let there = if there == 1 { "1 instance".to_owned() } else { format!("{there} instances") };
                self.say(event, "resync", dim, &format!("{there}{}; {gap}", lacks(completeness)), out);
                let mut rows: Vec<_> = steps.iter().filter_map(|step| Row::of(step, gap, &self.filter)).collect();
                rows.sort_by(|one, other| one.shown.name.cmp(&other.shown.name));
                for row in rows {
                    self.instance(event, row.change, row.style, row.shown, &row.details, out);
                }
            }
            // The rows of a resync are printed at its end.
            _ => {}
        }
    }

    /// A line of the link; it is never cut, since a cause is worth a second line.
    fn say(&self, event: &RuntimeEvent, change: &str, style: Style, news: &str, out: &mut String) {
        self.begin(event, change, style, out);
        let backend = shorten_id(&clean(event.backend.as_str()));
        let _ = writeln!(out, "{backend}: {}", clean(news));
    }

    fn begin(&self, event: &RuntimeEvent, change: &str, style: Style, out: &mut String) {
        let time = Timestamp::try_from(event.observed_at).map_or_else(
            |_| show::UNKNOWN.to_owned(),
            |at| at.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string(),
        );
        let dim = Style::new().dimmed();
        let _ = write!(out, "{}  {}  ", cell(&time, TIME, dim), cell(change, CHANGE, style));
    }

    fn instance(
        &mut self,
        event: &RuntimeEvent,
        change: &str,
        style: Style,
        now: &Instance,
        details: &[Detail],
        out: &mut String,
    ) {
        self.begin(event, change, style, out);
        let used = TIME + 2 + change.chars().count().max(CHANGE) + 2;
        let most = self.columns.map_or(NAME, |columns| NAME.min(columns.saturating_sub(used) / 2));
        let name = shorten(&clean(&now.name), most);
        self.name = self.name.max(name.chars().count()).min(most);
        let most = self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(used + self.name + 2));
        // An update of the health is among its details.
        let state = if matches!(change, "updated" | "differs") { now.state.to_string() } else { show::state(now) };
        let state = shorten(&state, most);
        let (bold, coloured) = (Style::new().bold(), show::state_style(now.state));
        let _ = write!(out, "{}  {}", cell(&name, self.name, bold), cell(&state, STATE, coloured));
        let used = used + self.name + 2 + state.chars().count().max(STATE);
        let mut room = self.columns.map_or(usize::MAX, |columns| columns.saturating_sub(used));
        for (text, style) in details.iter().filter(|(text, _)| !text.is_empty()) {
            room = room.saturating_sub(2);
            if room < "a..".len() {
                break;
            }
            let text = shorten(text, room);
            room -= text.chars().count();
            let _ = write!(out, "  {}", cell(&text, 0, *style));
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

/// Text for the instances that the rows of a resync may lack.
fn lacks(completeness: &Completeness) -> String {
    match completeness.failures() {
        _ if completeness.is_complete() => String::new(),
        [] => ", perhaps not all".to_owned(),
        [only] => format!(", not all: {}", only.message),
        [first, ..] => format!(", not all: {}, and others", first.message),
    }
}

fn plain(text: String) -> Detail {
    (text, Style::new())
}

fn ports(now: &Instance) -> Detail {
    plain(show::ports(now.ports.as_deref()))
}

fn exit(now: &Instance) -> Detail {
    let exit = show::exit(now);
    let bad = !matches!(exit.as_str(), "" | "exit 0" | "exit -");
    (exit, if bad { AnsiColor::Red.on_default() } else { Style::new() })
}

/// One row below the line of a resync.
struct Row<'a> {
    change: &'static str,
    style: Style,
    shown: &'a Arc<Instance>,
    details: Vec<Detail>,
}

impl<'a> Row<'a> {
    /// The row of a net effect. It has its own words, since the runtime reported no such event.
    fn of(step: &'a runtide_core::Transition, gap: Gap, filter: &InstanceFilter) -> Option<Self> {
        let row = |change, style, shown, details| Some(Self { change, style, shown, details });
        match (&step.before, &step.after) {
            (None, Some(now)) if gap == Gap::Initial => {
                row("present", Style::new().dimmed(), now, vec![exit(now), ports(now)])
            }
            (None, Some(now)) => row("appeared", AnsiColor::Green.on_default(), now, vec![exit(now), ports(now)]),
            // It no longer matched the filter, so its absence says nothing.
            (Some(last), None) if !filter.matches(last) => None,
            (Some(last), None) => row("gone", AnsiColor::Red.on_default(), last, vec![exit(last)]),
            (Some(before), Some(now)) => {
                let changed = runtide_core::event::FieldSet::between(before, now);
                row("differs", AnsiColor::Cyan.on_default(), now, vec![plain(changes(changed.iter(), before, now))])
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

    use runtide_core::{Cursor, ErrorKind, ExitStatus, Health, InstanceKind, InstanceState, event::FieldSet};

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
            self.resync_that_is(Completeness::Complete, gap, rows)
        }

        fn resync_that_is(&mut self, completeness: Completeness, gap: Gap, rows: &[Arc<Instance>]) -> String {
            let mut out = self.emit(RuntimeEventKind::ResyncBegin { gap });
            for row in rows {
                out += &self.emit(RuntimeEventKind::Present(Arc::clone(row)));
            }
            out + &self.emit(RuntimeEventKind::ResyncEnd(completeness))
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
        assert_eq!(lines[0], "01:02:03.004  resync    docker:local: 1 instance; the watch begins");
        assert_eq!(lines[1], "01:02:03.004  present   web              running   -", "its ports are unknown");
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
    fn a_resync_that_lacks_something_says_what() {
        let failure = Failure::new(ErrorKind::Protocol, "docker.list", "no number\nin 'db'");
        let partial = Completeness::Partial(vec![failure]);
        let out = Emitter::new().resync_that_is(partial, Gap::Initial, &[]);
        assert_eq!(
            out,
            "01:02:03.004  resync    docker:local: 0 instances, not all: no number?in 'db'; the watch begins\n"
        );
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
    fn a_line_is_cut_at_the_columns_and_fits_into_80_without_a_cut() {
        let mut emitter = Emitter::new();
        let mut long = Instance::clone(&web(InstanceState::Running));
        long.name = "a-name-that-is-longer-than-its-column".to_owned();
        (long.image, long.health) = (Some("registry.example/shop/web:2.0.1-alpine".into()), Some(Health::Unhealthy));
        let start = RuntimeEventKind::Started(Arc::new(long));
        for columns in [40, 60, 80] {
            emitter.0.cut_at(Some(columns));
            let out = emitter.emit(start.clone());
            assert!(out.trim_end().chars().count() <= columns, "{columns}: {out}");
            assert!(out.contains("a-name"), "{out}");
        }
        emitter.0.cut_at(None);
        assert!(emitter.emit(start).ends_with("registry.example/shop/web:2.0.1-alpine\n"));
        let mut job = Instance::clone(&web(InstanceState::Stopped));
        (job.name, job.exit) = ("shop-report-17".to_owned(), Some(ExitStatus::code(137).with_oom_killed(true)));
        let out = Emitter::new().emit(RuntimeEventKind::Stopped(Arc::new(job)));
        assert!(out.trim_end().chars().count() <= 80, "{out}");
    }

    #[test]
    fn an_outage_is_printed_with_its_cause_and_the_retry() {
        let mut emitter = Emitter::new();
        let cause = Failure::new(ErrorKind::Unavailable, "docker.events", "the connection\nbroke");
        let out = emitter.emit(RuntimeEventKind::BackendDisconnected { cause: Some(cause) });
        assert!(out.ends_with("disconnected  docker:local: the connection?broke; trying again\n"), "{out}");
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
