//! systemd's own settings, by the names and in the words of unit files: `systemd.Slice` or `Slice`, `shop.slice`.
//!
//! What the common words of a spec say (memory, environment, restart, …) is said there alone.

use std::net::IpAddr;

use zbus::Variant;

use super::spec::{Properties, shown, whole_milliseconds};
use crate::names;

/// How a value is written in a unit's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `yes`, `true`, `on`, `1`, and their opposites.
    Flag,
    /// One line.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Texts with blanks between them.
    Words,
    /// Absolute paths with blanks between them, each after `-` or `+` if so wished.
    Paths,
    /// Units with blanks between them.
    Units,
    /// A unit of this type.
    Unit(&'static str),
    /// A whole number within these bounds.
    Number(i32, i32),
    /// A weight from 1 to 10000.
    Weight,
    /// Bytes, with K, M, G, T for powers of 1024; `infinity`.
    Size,
    /// `soft:hard`, or one for both; `infinity`.
    Limit(&'static str),
    /// `1min 30s`, `500ms`, `infinity`; a number alone is of seconds.
    Time,
    /// Octal.
    Mode,
    /// Words that are allowed; after `~` those that are not.
    Filter,
    /// Capabilities with blanks between them.
    Capabilities,
    /// Numbers of processes with blanks between them.
    Processes,
    /// The kinds of namespaces that are left, after `~` those that are not; `no`: all.
    Namespaces,
    /// Addresses with blanks between them, each with the length of its prefix if so wished; `any`, `localhost`, `link-local`,
    /// `multicast`.
    Addresses,
    /// Devices with blanks between them, each followed by what is allowed if that is not all: `/dev/fuse rw char-pts`. A
    /// unit's file has a line for each.
    Devices,
}

struct Key {
    /// In unit files.
    name: &'static str,
    /// On the bus.
    property: &'static str,
    form: Form,
    /// Whether a scope takes it too.
    is_for_scopes: bool,
}

const fn key(name: &'static str, form: Form) -> Key {
    Key { name, property: name, form, is_for_scopes: false }
}

const fn any(name: &'static str, form: Form) -> Key {
    Key { name, property: name, form, is_for_scopes: true }
}

const fn renamed(name: &'static str, property: &'static str, form: Form) -> Key {
    Key { name, property, form, is_for_scopes: false }
}

use Form::{
    Addresses, Capabilities, Choice, Devices, Filter, Flag, Limit, Mode, Namespaces, Number, Paths, Processes, Size,
    Text, Time, Unit, Units, Weight, Words,
};

/// All that is taken, in order.
const KEYS: &[Key] = &[
    any("After", Units),
    key("AmbientCapabilities", Capabilities),
    any("Before", Units),
    any("BindsTo", Units),
    any("CPUWeight", Weight),
    key("CapabilityBoundingSet", Capabilities),
    any("Conflicts", Units),
    any("Delegate", Flag),
    any("Description", Text),
    any("DeviceAllow", Devices),
    any("DevicePolicy", Choice(&["auto", "closed", "strict"])),
    key("DynamicUser", Flag),
    any("IOWeight", Weight),
    any("IPAddressAllow", Addresses),
    any("IPAddressDeny", Addresses),
    key("IgnoreSIGPIPE", Flag),
    key("InaccessiblePaths", Paths),
    key("KillMode", Choice(&["control-group", "mixed", "process", "none"])),
    key("LimitAS", Limit("LimitASSoft")),
    key("LimitCORE", Limit("LimitCORESoft")),
    key("LimitCPU", Limit("LimitCPUSoft")),
    key("LimitDATA", Limit("LimitDATASoft")),
    key("LimitFSIZE", Limit("LimitFSIZESoft")),
    key("LimitMEMLOCK", Limit("LimitMEMLOCKSoft")),
    key("LimitNOFILE", Limit("LimitNOFILESoft")),
    key("LimitNPROC", Limit("LimitNPROCSoft")),
    key("LimitSTACK", Limit("LimitSTACKSoft")),
    key("LockPersonality", Flag),
    key("LogRateLimitBurst", Number(0, i32::MAX)),
    renamed("LogRateLimitIntervalSec", "LogRateLimitIntervalUSec", Time),
    key("MemoryDenyWriteExecute", Flag),
    any("MemoryHigh", Size),
    any("MemoryLow", Size),
    any("MemoryMin", Size),
    any("MemorySwapMax", Size),
    key("Nice", Number(-20, 19)),
    key("NoNewPrivileges", Flag),
    key("NotifyAccess", Choice(&["none", "main", "exec", "all"])),
    any("OOMPolicy", Choice(&["continue", "stop", "kill"])),
    key("OOMScoreAdjust", Number(-1000, 1000)),
    any("OnFailure", Units),
    any("OnSuccess", Units),
    any("PIDs", Processes),
    any("PartOf", Units),
    key("PrivateDevices", Flag),
    key("PrivateIPC", Flag),
    key("PrivateMounts", Flag),
    key("PrivateNetwork", Flag),
    key("PrivateTmp", Flag),
    key("PrivateUsers", Flag),
    key("ProcSubset", Choice(&["all", "pid"])),
    key("ProtectClock", Flag),
    key("ProtectControlGroups", Flag),
    key("ProtectHome", Choice(&["yes", "true", "no", "false", "read-only", "tmpfs"])),
    key("ProtectHostname", Flag),
    key("ProtectKernelLogs", Flag),
    key("ProtectKernelModules", Flag),
    key("ProtectKernelTunables", Flag),
    key("ProtectProc", Choice(&["noaccess", "invisible", "ptraceable", "default"])),
    key("ProtectSystem", Choice(&["yes", "true", "no", "false", "full", "strict"])),
    key("ReadOnlyPaths", Paths),
    key("ReadWritePaths", Paths),
    key("RemainAfterExit", Flag),
    key("RemoveIPC", Flag),
    any("Requires", Units),
    any("Requisite", Units),
    renamed("RestartSec", "RestartUSec", Time),
    key("RestrictAddressFamilies", Filter),
    key("RestrictNamespaces", Namespaces),
    key("RestrictRealtime", Flag),
    key("RestrictSUIDSGID", Flag),
    key("RootDirectory", Paths),
    key("RootImage", Paths),
    key("RuntimeDirectory", Words),
    Key { name: "RuntimeMaxSec", property: "RuntimeMaxUSec", form: Time, is_for_scopes: true },
    any("SendSIGHUP", Flag),
    any("SendSIGKILL", Flag),
    any("Slice", Unit("slice")),
    key("StandardError", Text),
    key("StandardInput", Choice(&["null", "tty", "tty-force", "tty-fail"])),
    key("StandardOutput", Text),
    key("StateDirectory", Words),
    key("SupplementaryGroups", Words),
    key("SyslogIdentifier", Text),
    key("SyslogLevelPrefix", Flag),
    key("SystemCallArchitectures", Words),
    key("SystemCallFilter", Filter),
    renamed("TimeoutStartSec", "TimeoutStartUSec", Time),
    key("Type", Choice(&["simple", "exec", "forking", "oneshot", "dbus", "notify", "idle"])),
    key("UMask", Mode),
    any("Wants", Units),
    renamed("WatchdogSec", "WatchdogUSec", Time),
];

/// Those that are said by a field of the spec.
const FIELDS: &[(&str, &str)] = &[
    ("BindPaths", "mounts"),
    ("BindReadOnlyPaths", "mounts"),
    ("CPUQuota", "milli_cpus"),
    ("Environment", "env"),
    ("ExecStart", "entrypoint and command"),
    ("Group", "user"),
    ("KillSignal", "stop_signal"),
    ("MemoryMax", "memory_bytes"),
    ("Restart", "restart"),
    ("StartLimitBurst", "restart"),
    ("StartLimitIntervalSec", "restart"),
    ("TasksMax", "pids"),
    ("TemporaryFileSystem", "mounts"),
    ("TimeoutStopSec", "stop_timeout"),
    ("User", "user"),
    ("WorkingDirectory", "working_dir"),
];

/// Adds one setting, or says why not.
pub(super) fn apply(properties: &mut Properties, is_scope: bool, given: &str, value: &str) -> Result<(), String> {
    let name = given.strip_prefix("systemd.").unwrap_or(given);
    let Some(key) = KEYS.iter().find(|key| key.name == name) else {
        return Err(match FIELDS.iter().find(|(field, _)| *field == name) {
            Some((_, field)) => format!("that is said by {field}"),
            None => format!("not a setting that is taken; like it are: {}", near(name).join(", ")),
        });
    };
    if is_scope && !key.is_for_scopes || !is_scope && key.form == Processes {
        let whose = if is_scope { "a service" } else { "a scope" };
        return Err(format!("that is a setting of {whose}"));
    }
    if value.chars().any(char::is_control) || value.ends_with('\\') || value.trim() != value {
        return Err(
            "blanks at its ends, a backslash at its end and control characters cannot be written in a unit's file"
                .to_owned(),
        );
    }
    let read = match key.form {
        Flag => Variant::from(flag(value)?),
        Text => text(value)?,
        Choice(known) => choice(value, known)?,
        Words => Variant::from(words(value)?),
        Paths if matches!(key.name, "RootDirectory" | "RootImage") => Variant::from(path(value)?.to_owned()),
        Paths => Variant::from(paths(value)?),
        Units => Variant::from(units(value, None)?),
        Unit(kind) => Variant::from(units(value, Some(kind))?.pop().unwrap_or_default()),
        Number(least, most) => number(key.name, value, least, most)?,
        Weight => Variant::from(within(value, 1, 10_000)?),
        Size => Variant::from(size(value)?),
        Limit(soft) => {
            let (first, last) = value.split_once(':').unwrap_or((value, value));
            properties.insert(soft, Variant::from(size(first)?));
            Variant::from(size(last)?)
        }
        Time => Variant::from(whole_milliseconds(time(value)?)),
        Mode => Variant::from(
            u32::from_str_radix(value, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| expected("an octal mode", value))?,
        ),
        Filter => {
            let (is_allowed, rest) = value.strip_prefix('~').map_or((true, value), |rest| (false, rest));
            Variant::from((is_allowed, words(rest)?))
        }
        Capabilities => Variant::from(capabilities(value)?),
        Processes => {
            let ids: Option<Vec<u32>> = value.split(' ').map(|id| id.parse().ok().filter(|id| *id > 0)).collect();
            Variant::from(ids.ok_or_else(|| expected("numbers of processes", value))?)
        }
        Namespaces => Variant::from(namespaces(value)?),
        Addresses => Variant::from(addresses(value)?),
        Devices => Variant::from(devices(value)?),
    };
    properties.insert(key.property, read);
    Ok(())
}

fn expected(what: &str, got: &str) -> String {
    format!("expected {what}, got '{}'", shown(got))
}

fn flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(expected("yes or no", value)),
    }
}

fn text(value: &str) -> Result<Variant<'static>, String> {
    if value.is_empty() { Err(expected("a text", value)) } else { Ok(Variant::from(value.to_owned())) }
}

fn choice(value: &str, known: &[&str]) -> Result<Variant<'static>, String> {
    if known.contains(&value) { Ok(Variant::from(value.to_owned())) } else { Err(expected(&known.join(", "), value)) }
}

/// Written among others, unescaped: nothing that has a meaning there.
fn words(value: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = value.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.is_empty() || words.iter().any(|word| word.contains(['"', '\'', '\\', ';', '$'])) {
        return Err(expected("words with blanks between them, without quotes and backslashes", value));
    }
    Ok(words)
}

fn path(value: &str) -> Result<&str, String> {
    if value.starts_with('/')
        && !value.split('/').any(|part| part == "..")
        && !value.contains([' ', '"', '\'', '\\', ':'])
    {
        Ok(value)
    } else {
        Err(expected("an absolute path without blanks, colons, quotes and backslashes", value))
    }
}

fn paths(value: &str) -> Result<Vec<String>, String> {
    let words = words(value)?;
    for word in &words {
        path(word.trim_start_matches(['-', '+']))?;
    }
    Ok(words)
}

fn units(value: &str, kind: Option<&str>) -> Result<Vec<String>, String> {
    let words = words(value)?;
    for word in &words {
        if let Some(why) = names::flaw(word) {
            return Err(format!("'{}' is no unit: {why}", shown(word)));
        }
        if let Some(kind) = kind.filter(|kind| names::type_of(word) != Some(kind) || words.len() > 1) {
            return Err(expected(&format!("one unit of type {kind}"), value));
        }
    }
    Ok(words)
}

fn number(name: &str, value: &str, least: i32, most: i32) -> Result<Variant<'static>, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    let number: i32 = number.ok_or_else(|| expected(&format!("a number from {least} to {most}"), value))?;
    Ok(match u32::try_from(number) {
        Ok(number) if name == "LogRateLimitBurst" => Variant::from(number),
        _ => Variant::from(number),
    })
}

fn within(value: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| expected(&format!("a number from {least} to {most}"), value))
}

fn size(value: &str) -> Result<u64, String> {
    if value == "infinity" {
        return Ok(u64::MAX);
    }
    let (digits, shift) = match value.as_bytes().last() {
        Some(b'K') => (value.len() - 1, 10),
        Some(b'M') => (value.len() - 1, 20),
        Some(b'G') => (value.len() - 1, 30),
        Some(b'T') => (value.len() - 1, 40),
        _ => (value.len(), 0),
    };
    let number: Option<u64> =
        value.get(..digits).filter(|digits| !digits.starts_with('+')).and_then(|digits| digits.parse().ok());
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes != u64::MAX).ok_or_else(|| expected("a number, with K, M, G or T, or infinity", value))
}

fn time(value: &str) -> Result<u64, String> {
    if value == "infinity" {
        return Ok(u64::MAX);
    }
    let wrong = || expected("a time as 1min 30s, or infinity", value);
    let mut total = 0_u64;
    let mut rest = value;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let microseconds: u64 = match unit {
            "us" | "usec" => 1,
            "ms" | "msec" => 1000,
            "s" | "sec" | "second" | "seconds" => 1_000_000,
            "" if digits == value.len() => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(microseconds)).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after.trim_start_matches(' ');
    }
    Ok(total)
}

/// By their numbers; capabilities(7).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn capabilities(value: &str) -> Result<u64, String> {
    let mut set = 0;
    // None at all is a set as well.
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        let upper = word.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = CAPABILITIES.iter().position(|known| *known == name);
        set |= 1_u64 << number.ok_or_else(|| expected("capabilities as CAP_NET_ADMIN", word))?;
    }
    Ok(set)
}

/// By their flags; clone(2), but for that of the time, which systemd 252 does not know.
const NAMESPACES: [(&str, u64); 7] = [
    ("mnt", 0x0002_0000),
    ("cgroup", 0x0200_0000),
    ("uts", 0x0400_0000),
    ("ipc", 0x0800_0000),
    ("user", 0x1000_0000),
    ("pid", 0x2000_0000),
    ("net", 0x4000_0000),
];

/// systemd writes this as an empty assignment in a transient unit's file, which it reads as no restriction at all (252).
const NONE_LEFT: &str = "that none is left, systemd forgets of a transient unit when it reloads: leave one, as uts";

/// The flags of those that are left.
fn namespaces(value: &str) -> Result<u64, String> {
    let all = NAMESPACES.iter().fold(0, |all, (_, flag)| all | flag);
    if flag(value) == Ok(false) {
        return Ok(all);
    }
    if flag(value) == Ok(true) {
        return Err(NONE_LEFT.to_owned());
    }
    let (is_left, rest) = value.strip_prefix('~').map_or((true, value), |rest| (false, rest));
    let mut named = 0;
    for word in words(rest)? {
        let known = NAMESPACES.iter().find(|(name, _)| *name == word);
        named |= known.ok_or_else(|| expected("no, or namespaces as ipc and net", &word))?.1;
    }
    match if is_left { named } else { all & !named } {
        0 => Err(NONE_LEFT.to_owned()),
        left => Ok(left),
    }
}

/// The family, the address and the length of its prefix.
type Prefix = (i32, Vec<u8>, u32);

fn addresses(value: &str) -> Result<Vec<Prefix>, String> {
    let mut all = Vec::new();
    for word in words(value)? {
        let prefixes: &[&str] = match word.as_str() {
            "any" => &["0.0.0.0/0", "::/0"],
            "localhost" => &["127.0.0.0/8", "::1/128"],
            "link-local" => &["169.254.0.0/16", "fe80::/64"],
            "multicast" => &["224.0.0.0/4", "ff00::/8"],
            one => &[one],
        };
        for one in prefixes {
            let wrong = || expected("addresses as 10.0.0.0/8, any, localhost, link-local or multicast", one);
            all.push(prefix(one).ok_or_else(wrong)?);
        }
    }
    Ok(all)
}

fn prefix(text: &str) -> Option<Prefix> {
    const AF_INET: i32 = 2;
    const AF_INET6: i32 = 10;
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let (family, octets, bits) = match address.parse().ok()? {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec(), 32),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec(), 128),
    };
    let length = match length {
        None => bits,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    (length <= bits).then_some((family, octets, length))
}

fn devices(value: &str) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = Vec::new();
    for word in words(value)? {
        let is_device = ["/dev/", "char-", "block-"].iter().any(|start| word.starts_with(start));
        match all.last_mut() {
            _ if is_device && !word.split('/').any(|part| part == "..") => all.push((word, String::new())),
            Some((_, allowed)) if allowed.is_empty() && word.bytes().all(|byte| b"rwm".contains(&byte)) => {
                *allowed = word;
            }
            _ => return Err(expected("devices as /dev/fuse or char-pts, each perhaps with some of rwm", &word)),
        }
    }
    Ok(all)
}

/// The three settings whose names are most like this one.
fn near(name: &str) -> Vec<&'static str> {
    let mut by_distance: Vec<_> = KEYS.iter().map(|key| (distance(name, key.name), key.name)).collect();
    by_distance.sort_unstable();
    by_distance.into_iter().take(3).map(|(_, name)| name).collect()
}

/// How many letters must change, capital or not; of a long name its beginning counts.
fn distance(given: &str, known: &str) -> usize {
    let given: Vec<u8> = given.bytes().take(64).map(|byte| byte.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=given.len()).collect();
    for (above, byte) in known.bytes().map(|byte| byte.to_ascii_lowercase()).enumerate() {
        let mut next = vec![above + 1];
        for ((other, diagonal), up) in given.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(*other != byte)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Each setting of a service, with a value that can be taken.
#[cfg(test)]
pub(super) fn samples() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYS.iter().filter(|key| key.form != Processes).map(|key| {
        let value = match (key.name, key.form) {
            ("RootImage" | "RootDirectory", _) => "/srv",
            ("StandardOutput" | "StandardError", _) => "null",
            ("Type", _) => "simple",
            ("OnFailure" | "OnSuccess" | "After" | "Before", _) => "vb-a.service vb-b.service",
            ("RestrictAddressFamilies", _) => "~AF_PACKET AF_INET",
            ("SystemCallFilter", _) => "@system-service",
            ("SupplementaryGroups", _) => "adm",
            ("SystemCallArchitectures", _) => "native",
            (_, Flag) => "yes",
            (_, Choice([.., last])) => last,
            (_, Text | Words) => "vb",
            (_, Paths) => "-/srv /opt",
            (_, Units) => "vb-a.service",
            (_, Unit(_)) => "vbx.slice",
            (_, Number(..)) => "5",
            (_, Weight) => "50",
            (_, Size) => "64M",
            (_, Limit(_)) => "50:100",
            (_, Mode) => "0022",
            (_, Capabilities) => "CAP_CHOWN CAP_KILL",
            (_, Namespaces) => "~user net",
            (_, Addresses) => "localhost 10.0.0.0/8 2001:db8::1",
            (_, Devices) => "/dev/null rw char-pts /dev/zero",
            _ => "1min 30s",
        };
        (key.name, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, value: &str) -> Result<Properties, String> {
        let mut properties = Properties::new();
        apply(&mut properties, false, name, value)?;
        Ok(properties)
    }

    #[test]
    fn the_keys_are_in_order_and_no_field_is_one() {
        assert!(KEYS.is_sorted_by_key(|key| key.name));
        assert!(FIELDS.iter().all(|(name, _)| KEYS.iter().all(|key| key.name != *name)));
    }

    #[test]
    fn values_are_read_as_in_unit_files() {
        let cases = [
            ("systemd.Slice", "shop.slice", "Slice", Variant::from("shop.slice".to_owned())),
            ("RemainAfterExit", "yes", "RemainAfterExit", Variant::from(true)),
            ("RestartSec", "1min 30s", "RestartUSec", Variant::from(90_000_000_u64)),
            ("TimeoutStartSec", "5", "TimeoutStartUSec", Variant::from(5_000_000_u64)),
            ("WatchdogSec", "infinity", "WatchdogUSec", Variant::from(u64::MAX)),
            ("MemoryHigh", "64M", "MemoryHigh", Variant::from(64_u64 << 20)),
            ("Nice", "-5", "Nice", Variant::from(-5_i32)),
            ("UMask", "0077", "UMask", Variant::from(0o77_u32)),
            ("CapabilityBoundingSet", "CAP_CHOWN cap_kill", "CapabilityBoundingSet", Variant::from(33_u64)),
            ("RestrictNamespaces", "no", "RestrictNamespaces", Variant::from(0x7e02_0000_u64)),
            ("RestrictNamespaces", "ipc net", "RestrictNamespaces", Variant::from(0x4800_0000_u64)),
            ("RestrictNamespaces", "~ipc net", "RestrictNamespaces", Variant::from(0x3602_0000_u64)),
            (
                "IPAddressDeny",
                "any",
                "IPAddressDeny",
                Variant::from(vec![(2, vec![0_u8; 4], 0_u32), (10, vec![0; 16], 0)]),
            ),
            ("IPAddressAllow", "10.1.0.0/16", "IPAddressAllow", Variant::from(vec![(2, vec![10_u8, 1, 0, 0], 16_u32)])),
            (
                "DeviceAllow",
                "/dev/fuse rw char-pts",
                "DeviceAllow",
                Variant::from(
                    [("/dev/fuse", "rw"), ("char-pts", "")].map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec(),
                ),
            ),
        ];
        for (name, value, property, expected) in cases {
            assert_eq!(made(name, value).unwrap().get(property), Some(&expected), "{name}");
        }
        let limit = made("LimitNOFILE", "10:20").unwrap();
        assert_eq!(
            (&limit["LimitNOFILESoft"], &limit["LimitNOFILE"]),
            (&Variant::from(10_u64), &Variant::from(20_u64))
        );
    }

    #[test]
    fn what_is_not_taken_says_what_is() {
        let unknown = made("PrivateTemp", "yes").unwrap_err();
        assert!(unknown.contains("PrivateTmp"), "{unknown}");
        assert!(made("MemoryMax", "1").unwrap_err().contains("memory_bytes"));
        for (name, value) in [
            ("Slice", "a.service"),
            ("Slice", "a.slice b.slice"),
            ("RemainAfterExit", "maybe"),
            ("RestartSec", "5 parsecs"),
            ("RestartSec", ""),
            ("MemoryHigh", "99999999999999999999"),
            ("MemoryHigh", "20000000T"),
            ("Nice", "30"),
            ("Description", "a\n[Service]\nUser=root"),
            ("Description", "a\\"),
            ("ReadOnlyPaths", "etc"),
            ("AmbientCapabilities", "CAP_X"),
            ("After", "a/b.service"),
            ("PIDs", "1"),
            ("Type", "fork"),
            ("RestrictNamespaces", ""),
            ("RestrictNamespaces", "yes"),
            ("RestrictNamespaces", "~cgroup ipc mnt net pid user uts"),
            ("RestrictNamespaces", "net time"),
            ("IPAddressAllow", "10.0.0.0/33"),
            ("IPAddressAllow", "10.0.0.0/+8"),
            ("IPAddressAllow", "example.org"),
            ("DeviceAllow", "rw"),
            ("DeviceAllow", "/etc/passwd r"),
            ("DeviceAllow", "/dev/../etc r"),
            ("DeviceAllow", "/dev/null rx"),
            ("DeviceAllow", "/dev/null r w"),
        ] {
            assert!(made(name, value).is_err(), "{name}={value}");
        }
    }
}
