//! systemd's own settings, by the names and in the format of unit files: `systemd.Slice` or `Slice`, `shop.slice`.
//!
//! Settings that the common fields of a spec cover (memory, environment, restart, …) are accepted there alone.

mod values;

use zbus::Variant;

use self::values::{
    addresses, capabilities, choice, devices, expected, flag, namespaces, number, path, paths, size, text, time, units,
    within, words,
};
use super::property::{Properties, whole_milliseconds};

/// The format of a value in a unit's file.
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
    /// Absolute paths with blanks between them, each optionally after `-` or `+`.
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
    /// `1min 30s`, `500ms`, `infinity`; a number alone is in seconds.
    Time,
    /// Octal number.
    Mode,
    /// Allowed words; after `~` denied ones.
    Filter,
    /// Capabilities with blanks between them.
    Capabilities,
    /// Process ids with blanks between them.
    Processes,
    /// Kinds of namespaces that remain allowed, after `~` those that do not; `no`: all.
    Namespaces,
    /// Addresses with blanks between them, each optionally with the length of its prefix; `any`, `localhost`,
    /// `link-local`, `multicast`.
    Addresses,
    /// Devices with blanks between them, each followed by the allowed access if that is not all:
    /// `/dev/fuse rw char-pts`. A unit's file has a line for each.
    Devices,
}

struct Key {
    /// Name in unit files.
    name: &'static str,
    /// Name on the bus.
    property: &'static str,
    form: Form,
    /// True if a scope accepts it too.
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

/// All accepted settings, in order.
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

/// Settings that a field of the spec covers, with that field.
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

/// Adds one setting, or returns the reason for its refusal.
pub(super) fn apply(properties: &mut Properties, is_scope: bool, given: &str, value: &str) -> Result<(), String> {
    let name = given.strip_prefix("systemd.").unwrap_or(given);
    let Some(key) = KEYS.iter().find(|key| key.name == name) else {
        return Err(match FIELDS.iter().find(|(field, _)| *field == name) {
            Some((_, field)) => format!("that is set by {field}"),
            None => format!("not a supported setting; similar ones are: {}", near(name).join(", ")),
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

/// The three settings with the most similar names.
fn near(name: &str) -> Vec<&'static str> {
    let mut by_distance: Vec<_> = KEYS.iter().map(|key| (distance(name, key.name), key.name)).collect();
    by_distance.sort_unstable();
    by_distance.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Number of letters that must change, in either case; of a long name its beginning counts.
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

/// Each setting of a service, with a valid value.
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
    fn a_refusal_names_what_is_accepted() {
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
