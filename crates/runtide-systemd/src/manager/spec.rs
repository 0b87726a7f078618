//! Conversion of an [`InstanceSpec`] to systemd's properties: pure; all invalid specs are refused here.

use std::time::Duration;

use runtide_core::manager::{InstanceSpec, MountSource, RestartPolicy};
use zbus::Variant;

use super::{
    fragment, native,
    property::{Properties, shown, whole_milliseconds},
};
use crate::{labels, names};

/// Longest argument that the kernel passes to a process (`MAX_ARG_STRLEN`), its end included.
const LONGEST_WORD: usize = 128 * 1024 - 1;

/// Longest line of a unit's file that systemd reads (`LONG_LINE_MAX`).
const LONGEST_LINE: usize = 1024 * 1024 - 4096;

const MICROSECONDS: u64 = 1_000_000;
/// `rbind`, the default of `BindPaths=` (`MS_BIND | MS_REC`).
const WITH_WHAT_IS_BELOW: u64 = 0x4000;

/// The request to systemd.
#[derive(Debug)]
pub(super) struct Request {
    /// The unit's full name, if the spec has a name.
    pub(super) unit: Option<String>,
    pub(super) properties: Properties,
    /// Arguments of the process, in the form in which systemd keeps them.
    pub(super) command: Vec<String>,
    /// True if the unit's file has to be repaired (see [`fragment`]).
    pub(super) is_at_risk: bool,
    /// True if it is made of processes that run already, so that it runs at once.
    pub(super) is_scope: bool,
    /// Fields that need a controller of the control group, and the name of that.
    pub(super) controllers: Vec<(&'static str, &'static str)>,
}

/// The reason why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Invalid { field: &'static str, message: String },
    Unsupported { feature: &'static str, reason: String },
}

pub(super) fn invalid<T>(field: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid { field, message: message.into() })
}

fn unsupported<T>(feature: &'static str, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unsupported { feature, reason: reason.into() })
}

impl Request {
    pub(super) fn new(spec: &InstanceSpec) -> Result<Self, Refusal> {
        let unit = spec.name.as_deref().map(unit).transpose()?;
        let is_scope = unit.as_deref().and_then(names::type_of) == Some("scope");
        refused(spec)?;
        let mut made = Self {
            unit,
            properties: Properties::new(),
            command: Vec::new(),
            is_at_risk: false,
            is_scope,
            controllers: Vec::new(),
        };
        if is_scope {
            made.scope(spec)?;
        } else {
            made.process(spec)?;
            made.mounts(spec)?;
            made.restart(spec)?;
        }
        made.limits(spec)?;
        for (key, value) in &spec.native {
            if let Err(message) = native::apply(&mut made.properties, is_scope, key, value) {
                return invalid("native", format!("{}: {message}", key.escape_debug()));
            }
        }
        if is_scope && !made.properties.contains_key("PIDs") {
            return invalid("native", "a scope is made of processes that run already: PIDs names them");
        }
        Ok(made)
    }

    fn set(&mut self, property: &'static str, value: impl Into<Variant<'static>>) {
        self.properties.insert(property, value.into());
    }

    /// A scope is a group of existing processes: fields that describe how a process is started do not apply.
    fn scope(&mut self, spec: &InstanceSpec) -> Result<(), Refusal> {
        let has_labels = !spec.labels.is_empty();
        for (is_given, feature) in [
            (spec.entrypoint.is_some() || !spec.command.is_empty(), "command of a scope"),
            (!spec.env.is_empty(), "env of a scope"),
            (has_labels, "labels of a scope"),
            (spec.user.is_some(), "user of a scope"),
            (spec.working_dir.is_some(), "working_dir of a scope"),
            (!spec.mounts.is_empty(), "mounts of a scope"),
            (spec.restart != RestartPolicy::No, "restart of a scope"),
        ] {
            if is_given {
                return unsupported(
                    feature,
                    "systemd does not start a scope's processes, and keeps no environment for them",
                );
            }
        }
        self.stopping(spec)
    }

    fn process(&mut self, spec: &InstanceSpec) -> Result<(), Refusal> {
        let words: Vec<&str> = spec.entrypoint.iter().flatten().chain(&spec.command).map(String::as_str).collect();
        let Some((&program, arguments)) = words.split_first() else {
            return invalid("command", "there is nothing to run: entrypoint or command names a program");
        };
        if program.is_empty()
            || program.chars().any(|one| one.is_whitespace() || one.is_control() || ";$\"'\\".contains(one))
        {
            return invalid("command", format!("'{}' is no program that a unit's file can name", shown(program)));
        }
        if !program.starts_with('/') && program.contains('/') {
            return invalid("command", format!("'{}' is neither an absolute path nor a bare name", shown(program)));
        }
        // systemd expands variables in the arguments of a command, and unescapes `$$` to `$`.
        self.command =
            std::iter::once(program.to_owned()).chain(arguments.iter().map(|word| word.replace('$', "$$"))).collect();
        self.is_at_risk = fragment::is_at_risk(words.iter().copied());
        texts("command", words.iter().copied())?;
        self.set("ExecStart", vec![(program.to_owned(), self.command.clone(), false)]);
        // A start that returns when the program was executed, and fails when it could not be.
        self.set("Type", "exec");
        // The output is kept, byte for byte and line for line.
        self.set("SyslogLevelPrefix", false);
        self.set("LogRateLimitIntervalUSec", 0_u64);

        let mut environment = Vec::new();
        for (key, value) in &spec.env {
            if key == labels::VARIABLE {
                return invalid("env", format!("{key} carries the labels"));
            }
            let is_name =
                |at: usize, byte: u8| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit());
            if key.is_empty() || !key.bytes().enumerate().all(|(at, byte)| is_name(at, byte)) {
                let message =
                    format!("'{}' is no variable's name: letters, digits and '_', no digit first", shown(key));
                return invalid("env", message);
            }
            environment.push(format!("{key}={value}"));
        }
        if !spec.labels.is_empty() {
            match labels::assignment(&spec.labels) {
                Some(assignment) => environment.push(assignment),
                None => return invalid("labels", "together they are longer than a process can be given (128 KiB)"),
            }
        }
        texts("env", environment.iter().map(String::as_str))?;
        if !environment.is_empty() {
            self.set("Environment", environment);
        }
        if let Some(user) = &spec.user {
            let (user, group) = match user.split_once(':') {
                Some((user, group)) => (user, Some(group)),
                None => (user.as_str(), None),
            };
            for name in std::iter::once(user).chain(group) {
                if name.is_empty() || name.chars().any(|one| one.is_whitespace() || one.is_control()) {
                    return invalid(
                        "user",
                        format!("'{}' is no user[:group]", shown(spec.user.as_deref().unwrap_or_default())),
                    );
                }
            }
            self.set("User", user.to_owned());
            if let Some(group) = group {
                self.set("Group", group.to_owned());
            }
        }
        if let Some(dir) = &spec.working_dir {
            self.set("WorkingDirectory", path("working_dir", dir)?);
        }
        self.stopping(spec)
    }

    fn stopping(&mut self, spec: &InstanceSpec) -> Result<(), Refusal> {
        if let Some(signal) = spec.stop_signal {
            if signal.number() > 64 {
                return invalid("stop_signal", format!("there is no signal {signal}"));
            }
            self.set("KillSignal", i32::from(signal.number()));
        }
        if let Some(timeout) = spec.stop_timeout {
            // systemd reads zero as no limit.
            self.set("TimeoutStopUSec", whole_milliseconds(microseconds(timeout).max(1)));
        }
        Ok(())
    }

    fn limits(&mut self, spec: &InstanceSpec) -> Result<(), Refusal> {
        if let Some(bytes) = spec.memory_bytes {
            self.controllers.push(("memory_bytes", "memory"));
            self.set("MemoryMax", bytes.get());
        }
        if let Some(thousandths) = spec.milli_cpus {
            let thousandths = thousandths.get();
            if thousandths % 10 != 0 {
                let reason =
                    format!("systemd keeps whole hundredths of a core, and {thousandths} thousandths are none");
                return unsupported("milli_cpus", reason);
            }
            self.controllers.push(("milli_cpus", "cpu"));
            self.set("CPUQuotaPerSecUSec", u64::from(thousandths) * (MICROSECONDS / 1000));
        }
        if let Some(pids) = spec.pids {
            self.controllers.push(("pids", "pids"));
            self.set("TasksMax", u64::from(pids.get()));
        }
        Ok(())
    }

    fn mounts(&mut self, spec: &InstanceSpec) -> Result<(), Refusal> {
        type Bind = (String, String, bool, u64);
        let (mut binds, mut read_only, mut memory) = (Vec::<Bind>::new(), Vec::<Bind>::new(), Vec::new());
        let mut targets = Vec::new();
        for mount in &spec.mounts {
            let target = unescaped_path(&mount.target)?;
            if target == "/" || target.split('/').any(|part| part == "..") {
                return invalid("mounts", format!("'{}' cannot be mounted at", shown(&target)));
            }
            if targets.contains(&target) {
                return invalid("mounts", format!("'{}' is mounted at twice", shown(&target)));
            }
            targets.push(target.clone());
            match &mount.source {
                MountSource::Bind(source) => {
                    let one = (unescaped_path(source)?, target, false, WITH_WHAT_IS_BELOW);
                    if mount.read_only { read_only.push(one) } else { binds.push(one) }
                }
                MountSource::Tmpfs => memory.push((target, if mount.read_only { "ro" } else { "rw" }.to_owned())),
                MountSource::Volume(_) => return unsupported("volumes", "systemd has none: bind a folder of the host"),
                _ => return unsupported("mounts", "systemd has no such source"),
            }
        }
        if !binds.is_empty() {
            self.set("BindPaths", binds);
        }
        if !read_only.is_empty() {
            self.set("BindReadOnlyPaths", read_only);
        }
        if !memory.is_empty() {
            self.set("TemporaryFileSystem", memory);
        }
        Ok(())
    }

    fn restart(&mut self, spec: &InstanceSpec) -> Result<(), Refusal> {
        // No limit of starts but the requested one: systemd's own is five in ten seconds, manual starts included.
        let (policy, attempts) = match spec.restart {
            RestartPolicy::No | RestartPolicy::OnFailure { attempts: Some(0) } => ("no", None),
            RestartPolicy::OnFailure { attempts } => ("on-failure", attempts),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => ("always", None),
            _ => return unsupported("restart", "systemd has no such policy"),
        };
        self.set("Restart", policy);
        match attempts {
            None => self.set("StartLimitIntervalUSec", 0_u64),
            Some(attempts) => {
                self.set("StartLimitIntervalUSec", u64::MAX);
                self.set("StartLimitBurst", attempts.saturating_add(1));
            }
        }
        Ok(())
    }
}

/// The fields that become properties, and those whose refusal has a reason of its own.
const KNOWN: [&str; 18] = [
    "name",
    "image",
    "entrypoint",
    "command",
    "env",
    "user",
    "working_dir",
    "labels",
    "mounts",
    "ports",
    "networks",
    "memory_bytes",
    "milli_cpus",
    "pids",
    "restart",
    "stop_signal",
    "stop_timeout",
    "native",
];

/// Refuses the fields that systemd has no property for.
fn refused(spec: &InstanceSpec) -> Result<(), Refusal> {
    if let Some(field) = spec.given().into_iter().find(|field| !KNOWN.contains(field)) {
        let reason = match field {
            "ulimits" | "cap_add" | "cap_drop" | "read_only_root" => {
                "systemd has properties of its own for it, with other defaults: see the native keys"
            }
            "init" => "systemd is the init of its services",
            "health_check" => "systemd checks no health",
            _ => "a service shares the host's names and name servers",
        };
        return unsupported(field, reason);
    }
    if spec.image.is_some() {
        return unsupported(
            "image",
            "a service runs what is on the host; native RootDirectory and RootImage name another root",
        );
    }
    if !spec.ports.is_empty() {
        return unsupported("ports", "a service shares the host's network: what it listens on is there as it is");
    }
    if !spec.networks.is_empty() {
        return unsupported("networks", "a service shares the host's network, or has none (native PrivateNetwork)");
    }
    Ok(())
}

/// A unit's full name: the type of a service may be left out.
fn unit(name: &str) -> Result<String, Refusal> {
    let unit = match names::type_of(name) {
        Some("service" | "scope") => name.to_owned(),
        Some(_) => return invalid("name", format!("'{}' is neither a service nor a scope", shown(name))),
        None => format!("{name}.service"),
    };
    if let Some(why) = names::flaw(&unit) {
        return invalid("name", format!("'{}' names no unit: {why}", shown(name)));
    }
    let stem = unit.rsplit_once('.').map_or(unit.as_str(), |(stem, _)| stem);
    if stem.ends_with('@') {
        return invalid("name", format!("'{}' is a template, and no unit", shown(name)));
    }
    Ok(unit)
}

/// Checks that each argument can be passed to a process, and that all fit in one line of a unit's file.
fn texts<'a>(field: &'static str, words: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut line = 0_usize;
    for word in words {
        if word.contains('\0') {
            return invalid(field, "NUL cannot be in it");
        }
        if word.len() >= LONGEST_WORD {
            return invalid(
                field,
                format!("one of {} bytes is longer than a process can be given (128 KiB)", word.len()),
            );
        }
        // Length when escaped in the file: four bytes for a special character, and the quotes.
        line += word
            .bytes()
            .map(|byte| if byte.is_ascii_graphic() && !b"\\\"'%;$".contains(&byte) || byte == b' ' { 1 } else { 4 })
            .sum::<usize>()
            + 3;
    }
    if line > LONGEST_LINE {
        return invalid(field, "together they are longer than a line of a unit's file can be (1 MiB)");
    }
    Ok(())
}

/// An absolute path that can be written to a unit's file as it is.
pub(super) fn path(field: &'static str, text: &str) -> Result<String, Refusal> {
    if !text.starts_with('/') {
        return invalid(field, format!("'{}' is not an absolute path", shown(text)));
    }
    if text.chars().any(char::is_control)
        || text.ends_with(['\\', ' '])
        || text.contains("..") && text.split('/').any(|part| part == "..")
    {
        return invalid(field, format!("'{}' cannot be written in a unit's file", shown(text)));
    }
    Ok(text.to_owned())
}

/// A path that is written to a list, unescaped.
fn unescaped_path(found: &std::path::Path) -> Result<String, Refusal> {
    let Some(text) = found.to_str() else { return invalid("mounts", "a path is not UTF-8") };
    let text = path("mounts", text)?;
    if text.contains([' ', ':', '"', '\'', '\\']) {
        let message = format!(
            "'{}': systemd writes it where blanks, colons, quotes and backslashes have a meaning",
            shown(&text)
        );
        return invalid("mounts", message);
    }
    Ok(text)
}

pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use runtide_core::{Labels, manager::Mount};

    use super::*;

    fn spec(words: &[&str]) -> InstanceSpec {
        let mut spec = InstanceSpec::default();
        spec.command = words.iter().map(ToString::to_string).collect();
        spec
    }

    #[test]
    fn arguments_reach_the_process_unchanged() {
        let made = Request::new(&spec(&["/bin/sh", "-c", "echo $HOME; true %n"])).unwrap();
        assert_eq!(made.command, ["/bin/sh", "-c", "echo $$HOME; true %n"]);
        assert!(made.is_at_risk);
        assert!(!Request::new(&spec(&["sleep", "1"])).unwrap().is_at_risk);
    }

    #[test]
    fn names_are_units() {
        for (name, expected) in [("web", "web.service"), ("web.service", "web.service"), ("a.b", "a.b.service")] {
            assert_eq!(unit(name).unwrap(), expected);
        }
        for name in ["", "a/b", "../a", "a b", "web.socket", "web@", "a\0", &"x".repeat(300)] {
            assert!(unit(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_invalid_spec_is_refused() {
        let long = "x".repeat(LONGEST_WORD);
        for words in [&[][..], &[""], &["./a"], &["a b"], &["/bin/$x"], &["a\0"], &["/bin/a", "b\0"], &["a", &long]] {
            assert!(
                matches!(Request::new(&spec(words)), Err(Refusal::Invalid { field: "command", .. })),
                "{}",
                words.len()
            );
        }
        for (key, value) in
            [("", "x"), ("1A", "x"), ("A=B", "x"), ("A-B", "x"), ("A", "\0"), ("A", &long), ("RUNTIDE_LABELS", "")]
        {
            let mut spec = spec(&["a"]);
            spec.env.insert(key.into(), value.into());
            assert!(matches!(Request::new(&spec), Err(Refusal::Invalid { field: "env", .. })), "{key}");
        }
        for target in ["a", "/", "/a/../b", "/a b", "/a:b", "/a\n"] {
            let mut spec = spec(&["a"]);
            spec.mounts = vec![Mount::new(MountSource::Tmpfs, target)];
            assert!(matches!(Request::new(&spec), Err(Refusal::Invalid { field: "mounts", .. })), "{target}");
        }
        let mut labelled = spec(&["a"]);
        labelled.labels = Labels::from_iter([("a", long)]);
        assert!(matches!(Request::new(&labelled), Err(Refusal::Invalid { field: "labels", .. })));
        let mut image = spec(&["a"]);
        image.image = Some("busybox".into());
        assert!(matches!(Request::new(&image), Err(Refusal::Unsupported { feature: "image", .. })));
    }
}
