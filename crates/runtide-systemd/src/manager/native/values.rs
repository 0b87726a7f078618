//! Parsers of values, in the format of unit files.

use std::net::IpAddr;

use zbus::Variant;

use super::super::property::shown;
use crate::names;

pub(super) fn expected(what: &str, got: &str) -> String {
    format!("expected {what}, got '{}'", shown(got))
}

pub(super) fn flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(expected("yes or no", value)),
    }
}

pub(super) fn text(value: &str) -> Result<Variant<'static>, String> {
    if value.is_empty() { Err(expected("a text", value)) } else { Ok(Variant::from(value.to_owned())) }
}

pub(super) fn choice(value: &str, known: &[&str]) -> Result<Variant<'static>, String> {
    if known.contains(&value) { Ok(Variant::from(value.to_owned())) } else { Err(expected(&known.join(", "), value)) }
}

/// Words that are written to a list unescaped: no character may have a meaning there.
pub(super) fn words(value: &str) -> Result<Vec<String>, String> {
    let words: Vec<String> = value.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.is_empty() || words.iter().any(|word| word.contains(['"', '\'', '\\', ';', '$'])) {
        return Err(expected("words with blanks between them, without quotes and backslashes", value));
    }
    Ok(words)
}

pub(super) fn path(value: &str) -> Result<&str, String> {
    if value.starts_with('/')
        && !value.split('/').any(|part| part == "..")
        && !value.contains([' ', '"', '\'', '\\', ':'])
    {
        Ok(value)
    } else {
        Err(expected("an absolute path without blanks, colons, quotes and backslashes", value))
    }
}

pub(super) fn paths(value: &str) -> Result<Vec<String>, String> {
    let words = words(value)?;
    for word in &words {
        path(word.trim_start_matches(['-', '+']))?;
    }
    Ok(words)
}

pub(super) fn units(value: &str, kind: Option<&str>) -> Result<Vec<String>, String> {
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

pub(super) fn number(name: &str, value: &str, least: i32, most: i32) -> Result<Variant<'static>, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    let number: i32 = number.ok_or_else(|| expected(&format!("a number from {least} to {most}"), value))?;
    Ok(match u32::try_from(number) {
        Ok(number) if name == "LogRateLimitBurst" => Variant::from(number),
        _ => Variant::from(number),
    })
}

pub(super) fn within(value: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| expected(&format!("a number from {least} to {most}"), value))
}

pub(super) fn size(value: &str) -> Result<u64, String> {
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

pub(super) fn time(value: &str) -> Result<u64, String> {
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

/// Names by number; capabilities(7).
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

pub(super) fn capabilities(value: &str) -> Result<u64, String> {
    let mut set = 0;
    // An empty set is valid as well.
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        let upper = word.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = CAPABILITIES.iter().position(|known| *known == name);
        set |= 1_u64 << number.ok_or_else(|| expected("capabilities as CAP_NET_ADMIN", word))?;
    }
    Ok(set)
}

/// Flags by name; clone(2), except for that of the time namespace, which systemd 252 does not support.
const NAMESPACES: [(&str, u64); 7] = [
    ("mnt", 0x0002_0000),
    ("cgroup", 0x0200_0000),
    ("uts", 0x0400_0000),
    ("ipc", 0x0800_0000),
    ("user", 0x1000_0000),
    ("pid", 0x2000_0000),
    ("net", 0x4000_0000),
];

/// systemd writes this as an empty assignment in a transient unit's file, which it reads as no restriction at all
/// (252).
const NONE_LEFT: &str = "systemd loses an empty set of a transient unit when it reloads: allow one namespace, as uts";

/// Flags of the namespaces that remain allowed.
pub(super) fn namespaces(value: &str) -> Result<u64, String> {
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

pub(super) fn addresses(value: &str) -> Result<Vec<Prefix>, String> {
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

pub(super) fn prefix(text: &str) -> Option<Prefix> {
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

pub(super) fn devices(value: &str) -> Result<Vec<(String, String)>, String> {
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
