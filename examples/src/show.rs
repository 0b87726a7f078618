//! Fields of an instance as short text. An unknown field is `-`, one that is known to be empty is blank; no value is invented.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anstyle::{AnsiColor, Style};
use runtide_core::{
    Address, ExitCause, ExitStatus, Group, Health, ImageRef, Instance, InstanceState, Labels, Port, Protocol,
};

/// Text of an unknown field.
pub(crate) const UNKNOWN: &str = "-";

/// Replaces control characters: names and labels come from outside and must not reach the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Cuts the text to `most` characters, and marks the cut.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(2)).collect();
    short.push_str("..");
    short
}

/// Fills the text up with blanks to this width, and colours it: escapes have no width.
pub(crate) fn cell(text: &str, width: usize, style: Style) -> String {
    format!("{style}{text}{style:#}{:gap$}", "", gap = width.saturating_sub(text.chars().count()))
}

pub(crate) fn state_style(state: InstanceState) -> Style {
    match state {
        InstanceState::Running => AnsiColor::Green.on_default(),
        InstanceState::Failed => AnsiColor::Red.on_default(),
        InstanceState::Created | InstanceState::Stopped => Style::new().dimmed(),
        _ => AnsiColor::Yellow.on_default(),
    }
}

/// The state, with the health if the runtime reports one.
pub(crate) fn state(instance: &Instance) -> String {
    match instance.health {
        Some(verdict) => format!("{} ({})", instance.state, health(verdict)),
        None => instance.state.to_string(),
    }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
        _ => "?",
    }
}

/// Exit of the last run; blank while it runs.
pub(crate) fn exit(instance: &Instance) -> String {
    match instance.exit {
        Some(exit) if !instance.state.is_alive() => format!("exit {}", cause(exit)),
        None if instance.state.is_ended() => format!("exit {UNKNOWN}"),
        _ => String::new(),
    }
}

fn cause(exit: ExitStatus) -> String {
    let mut text = match exit.end {
        ExitCause::Code(code) => code.to_string(),
        ExitCause::Signal(signal) => signal.to_string(),
        _ => "?".to_owned(),
    };
    if exit.oom_killed == Some(true) {
        text.push_str(" (out of memory)");
    }
    text
}

pub(crate) fn ports(ports: Option<&[Port]>) -> String {
    let Some(ports) = ports else { return UNKNOWN.to_owned() };
    let mut shown: Vec<String> = Vec::new();
    for port in ports {
        let inside = match port.protocol {
            Protocol::Tcp => port.number.to_string(),
            other => format!("{}/{other}", port.number),
        };
        if port.published.is_empty() {
            shown.push(inside);
            continue;
        }
        for host in &port.published {
            let text = format!("{}->{inside}", outside(*host));
            if !shown.contains(&text) {
                shown.push(text); // Once for IPv4 and IPv6.
            }
        }
    }
    shown.join(",")
}

/// The host's address and port; only the port for an unspecified address.
fn outside(host: SocketAddr) -> String {
    if host.ip().is_unspecified() { host.port().to_string() } else { host.to_string() }
}

pub(crate) fn addresses(addresses: Option<&[Address]>) -> String {
    let Some(addresses) = addresses else { return UNKNOWN.to_owned() };
    addresses.iter().map(|address| address.ip.to_string()).collect::<Vec<_>>().join(",")
}

pub(crate) fn image(image: Option<&ImageRef>) -> String {
    let Some(image) = image else { return UNKNOWN.to_owned() };
    let image = image.as_str();
    clean(image.strip_prefix("sha256:").and_then(|digest| digest.get(..12)).unwrap_or(image))
}

pub(crate) fn group(group: Option<&Group>) -> String {
    let Some(group) = group else { return UNKNOWN.to_owned() };
    match &group.service {
        Some(service) => clean(&format!("{}/{service}", group.name)),
        None => clean(&group.name),
    }
}

/// Time since then, in its largest unit; 0s if the other clock is ahead of ours.
pub(crate) fn age(since: Option<SystemTime>, now: SystemTime) -> String {
    let Some(since) = since else { return UNKNOWN.to_owned() };
    let seconds = now.duration_since(since).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The values of a field before and after; only its name if they are too long for a line.
fn change(field: &str, before: &Instance, after: &Instance) -> String {
    const MOST: usize = 28;
    if field == "labels" {
        return labels(before.labels.as_ref(), after.labels.as_ref());
    }
    if field == "reason" {
        let reason = after.reason.as_deref().map_or("none".to_owned(), clean);
        return shorten(&format!("reason: {reason}"), 200);
    }
    match (value(field, before), value(field, after)) {
        (Some(before), Some(after)) if before.chars().count() <= MOST && after.chars().count() <= MOST => {
            format!("{field} {before} -> {after}")
        }
        _ => field.to_owned(),
    }
}

/// The field's value as text; `None` for a field that no line shows.
fn value(field: &str, instance: &Instance) -> Option<String> {
    let text = match field {
        "name" => clean(&instance.name),
        "state" => instance.state.to_string(),
        "health" => instance.health.map_or(UNKNOWN, health).to_owned(),
        "exit" => instance.exit.map_or(UNKNOWN.to_owned(), cause),
        "image" => image(instance.image.as_ref()),
        "ports" => ports(instance.ports.as_deref()),
        "addresses" => addresses(instance.addresses.as_deref()),
        "group" => group(instance.group.as_deref()),
        "node" => clean(instance.node.as_deref().unwrap_or(UNKNOWN)),
        "restarts" => instance.restarts.map_or(UNKNOWN.to_owned(), |count| count.to_string()),
        _ => return None,
    };
    Some(if text.is_empty() { "none".to_owned() } else { text })
}

fn is_unknown(field: &str, instance: &Instance) -> bool {
    match field {
        // Its coming is the news.
        "reason" => false,
        "incarnation" => instance.incarnation.is_none(),
        "labels" => instance.labels.is_none(),
        "created_at" => instance.created_at.is_none(),
        "started_at" => instance.started_at.is_none(),
        "finished_at" => instance.finished_at.is_none(),
        _ => value(field, instance).as_deref() == Some(UNKNOWN),
    }
}

/// Most newly known fields that are named.
const LEARNT: usize = 2;

/// The changed fields, and those that are newly known: a field that was unknown before has not changed.
pub(crate) fn changes<'a>(fields: impl Iterator<Item = &'a str>, before: &Instance, after: &Instance) -> String {
    let (learnt, changed): (Vec<&str>, Vec<&str>) = fields.partition(|field| is_unknown(field, before));
    let mut parts: Vec<String> = changed.into_iter().map(|field| change(field, before, after)).collect();
    if !learnt.is_empty() {
        // An inspection makes half a dozen known at once; a line has room for the names of two.
        let more = learnt.len().saturating_sub(LEARNT);
        let more = if more > 0 { format!(" +{more}") } else { String::new() };
        let names: Vec<&str> = learnt.into_iter().take(LEARNT).collect();
        parts.push(format!("now known: {}{more}", names.join(" ")));
    }
    parts.join(", ")
}

/// The labels that were added, removed and changed.
fn labels(before: Option<&Labels>, after: Option<&Labels>) -> String {
    let (Some(before), Some(after)) = (before, after) else { return "labels".to_owned() };
    let mut text = "labels".to_owned();
    for (key, value) in after.iter().filter(|(key, value)| before.get(key) != Some(*value)) {
        let _ = write!(text, " +{}={}", clean(key), clean(value));
    }
    for (key, _) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        let _ = write!(text, " -{}", clean(key));
    }
    shorten(&text, 80)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use runtide_core::InstanceKind;

    use super::*;

    fn web() -> Instance {
        Instance::new("docker:local", "1", "web", InstanceKind::Container, InstanceState::Running)
    }

    fn port(number: u16, protocol: Protocol, hosts: &[&str]) -> Port {
        let port = Port::new(NonZeroU16::new(number).unwrap(), protocol);
        hosts.iter().fold(port, |port, host| port.published_at(host.parse().unwrap()))
    }

    #[test]
    fn unknown_and_none_are_not_the_same() {
        assert_eq!(ports(None), "-");
        assert_eq!(ports(Some(&[])), "");
        assert_eq!(addresses(None), "-");
        assert_eq!(addresses(Some(&[])), "");
        assert_eq!(age(None, SystemTime::now()), "-");
    }

    #[test]
    fn a_port_on_every_address_is_shown_once() {
        let both = port(80, Protocol::Tcp, &["0.0.0.0:8080", "[::]:8080"]);
        let one = port(53, Protocol::Udp, &["127.0.0.1:5353"]);
        let inside = port(9000, Protocol::Tcp, &[]);
        assert_eq!(ports(Some(&[both, one, inside])), "8080->80,127.0.0.1:5353->53/udp,9000");
    }

    #[test]
    fn a_reason_is_shown_when_it_comes() {
        let mut failed = web();
        failed.reason = Some("port is already allocated".into());
        assert_eq!(changes(["reason"].into_iter(), &web(), &failed), "reason: port is already allocated");
    }

    #[test]
    fn an_unknown_exit_has_no_code() {
        let mut web = web();
        assert_eq!(exit(&web), "");
        web.state = InstanceState::Stopped;
        assert_eq!(exit(&web), "exit -");
        web.exit = Some(ExitStatus::signal(runtide_core::UnixSignal::KILL).with_oom_killed(true));
        assert_eq!(exit(&web), "exit SIGKILL (out of memory)");
        web.exit = Some(ExitStatus::code(137));
        assert_eq!(exit(&web), "exit 137");
    }

    #[test]
    fn a_change_shows_the_values_before_and_after() {
        let (mut before, mut after) = (web(), web());
        (before.health, after.health) = (Some(Health::Starting), Some(Health::Healthy));
        (before.ports, after.ports) = (Some(vec![port(80, Protocol::Tcp, &[])]), Some(vec![]));
        (before.started_at, after.started_at) = (Some(SystemTime::UNIX_EPOCH), Some(SystemTime::now()));
        assert_eq!(change("health", &before, &after), "health starting -> healthy");
        assert_eq!(change("ports", &before, &after), "ports 80 -> none");
        assert_eq!(change("started_at", &before, &after), "started_at");
        after.name = "n".repeat(60);
        assert_eq!(change("name", &before, &after), "name", "too long for a line");
    }

    #[test]
    fn a_field_that_was_unknown_has_not_changed() {
        let (before, mut after) = (web(), web());
        (after.name, after.ports, after.started_at) = ("w".to_owned(), Some(vec![]), Some(SystemTime::now()));
        let fields = ["name", "ports", "started_at"].into_iter();
        assert_eq!(changes(fields, &before, &after), "name web -> w, now known: ports started_at");
        let fields = ["ports", "addresses", "health", "started_at"].into_iter();
        assert_eq!(changes(fields, &before, &after), "now known: ports addresses +2");
    }

    #[test]
    fn labels_show_additions_and_removals() {
        let (mut before, mut after) = (web(), web());
        before.labels = Some([("a", "1"), ("b", "2")].into_iter().collect());
        after.labels = Some([("a", "3")].into_iter().collect());
        assert_eq!(change("labels", &before, &after), "labels +a=3 -b");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = SystemTime::now();
        for (seconds, text) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")]
        {
            assert_eq!(age(Some(now - Duration::from_secs(seconds)), now), text);
        }
        assert_eq!(age(Some(now + Duration::from_secs(5)), now), "0s", "clocks differ");
    }

    #[test]
    fn no_escape_from_outside_reaches_the_terminal() {
        assert_eq!(clean("a\x1b[31m\nb"), "a?[31m?b");
        assert_eq!(cell("ab", 4, AnsiColor::Red.on_default()), "\x1b[31mab\x1b[0m  ");
        assert_eq!(shorten("abcdef", 5), "abc..");
    }
}
