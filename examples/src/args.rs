//! The options that the examples share.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use runtide_core::{Detail, InstanceFilter, LabelMatch, ListOptions, RuntimeKind, WatchOptions};

use crate::duration;

/// The runtime to use, and its address.
#[derive(Args, Clone, Debug, Default)]
pub struct Target {
    /// The runtime: auto, memory, docker, podman, systemd, or k8s where these examples are built with that feature. auto takes the Docker
    /// or Podman that answers on this machine, else the cluster that kubectl would use
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub backend: Choice,
    /// The address of Docker, as unix:///path or tcp://host:port; implies --backend docker, unless that is podman
    #[arg(long, value_name = "ENDPOINT")]
    pub host: Option<String>,
    /// The systemd to use.
    #[command(flatten)]
    pub systemd: Systemd,
    /// Print every runtime that was asked, and its answer
    #[arg(short, long)]
    pub verbose: bool,
}

/// The systemd to use. The environment has the defaults, as for `systemctl`.
#[derive(Args, Clone, Debug, Default)]
pub struct Systemd {
    /// The bus of systemd, as unix:path=/path or tcp:host=name,port=number; implies systemd. Else the system's own, or
    /// DBUS_SYSTEM_BUS_ADDRESS; with RUNTIDE_SYSTEMD=user the user's
    #[arg(long, value_name = "ADDRESS")]
    pub bus: Option<String>,
    /// The root of that systemd's file system as this process sees it, as of a container; implies systemd. Else /
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
}

/// Value of `--backend`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A runtime that answers on this machine.
    #[default]
    Auto,
    /// The runtime of this kind.
    Kind(RuntimeKind),
}

impl Choice {
    /// The runtimes for which this build has a backend.
    pub(crate) const KINDS: &[&str] = if cfg!(feature = "k8s") {
        &["memory", "docker", "podman", "systemd", "k8s"]
    } else {
        &["memory", "docker", "podman", "systemd"]
    };
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        text.parse()
            .map(Self::Kind)
            .map_err(|_| format!("'{text}' is not a runtime: expected one of auto, {}", Self::KINDS.join(", ")))
    }
}

/// The instances to show, and their detail.
#[derive(Args, Clone, Debug, Default)]
pub struct Wanted {
    /// Only instances with this label: KEY or KEY=VALUE; several must all hold
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub filter: Vec<LabelMatch>,
    /// Only instances of this name; several: any of them
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// Inspect each one: start times, exact exits, restarts; may cost one request per instance
    #[arg(long)]
    pub full: bool,
}

impl Wanted {
    /// The filter of the options.
    pub fn filter(&self) -> InstanceFilter {
        InstanceFilter::default().with_labels(self.filter.clone()).with_names(self.name.clone())
    }

    /// The detail of the options.
    pub fn detail(&self) -> Detail {
        if self.full { Detail::Full } else { Detail::Summary }
    }

    /// Options of a watch.
    pub fn watch_options(&self) -> WatchOptions {
        WatchOptions::default().with_filter(self.filter()).with_detail(self.detail())
    }

    /// Options of a list.
    pub fn list_options(&self) -> ListOptions {
        ListOptions::default().with_filter(self.filter()).with_detail(self.detail())
    }
}

fn label(text: &str) -> Result<LabelMatch, String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key is missing: expected KEY or KEY=VALUE".to_owned()),
        None if text.is_empty() => Err("expected KEY or KEY=VALUE".to_owned()),
        None => Ok(LabelMatch::Has(text.to_owned())),
        Some((key, value)) => Ok(LabelMatch::is(key, value)),
    }
}

/// Parses a variable of an environment; one without a value has that of this process.
///
/// # Errors
/// The expected form.
pub fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        None if !text.is_empty() => match std::env::var(text) {
            Ok(value) => Ok((text.to_owned(), value)),
            Err(_) => Err(format!("{text} is not set here: expected KEY=VALUE")),
        },
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Form and duration of the output.
#[derive(Args, Clone, Debug, Default)]
pub struct Output {
    /// End after this time, as 500ms, 10s, 5m or 1h30m; without it, Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub time: Option<Duration>,
    /// One event per line, as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runtimes_are_parsed_leniently() {
        assert_eq!("AUTO".parse(), Ok(Choice::Auto));
        assert_eq!("mem".parse(), Ok(Choice::Kind(RuntimeKind::Memory)));
        assert_eq!("k8s".parse(), Ok(Choice::Kind(RuntimeKind::Kubernetes)));
    }

    #[test]
    fn an_unknown_runtime_is_refused_with_the_accepted_ones() {
        let error = "dokcer".parse::<Choice>().unwrap_err();
        assert!(error.starts_with("'dokcer' is not a runtime"), "{error}");
        assert!(
            error.ends_with(&format!("expected one of auto, {}", Choice::KINDS.join(", "))),
            "what this build has: {error}"
        );
    }

    #[test]
    fn a_variable_without_a_value_has_the_one_of_this_process() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(variable("PATH"), Ok(("PATH".to_owned(), path)));
        for wrong in ["", "=b", "RUNTIDE_NO_SUCH_VARIABLE"] {
            assert!(variable(wrong).unwrap_err().ends_with("expected KEY=VALUE"), "{wrong}");
        }
    }

    #[test]
    fn labels_are_a_key_or_a_key_and_its_value() {
        assert_eq!(label("a"), Ok(LabelMatch::Has("a".to_owned())));
        assert_eq!(label("a=b=c"), Ok(LabelMatch::is("a", "b=c")));
        assert_eq!(label("a="), Ok(LabelMatch::is("a", "")));
        assert!(label("=b").is_err() && label("").is_err());
    }
}
