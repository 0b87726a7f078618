//! The keys of `InstanceSpec::native`: options of Docker that the common fields do not cover.
//!
//! | keys | value |
//! |---|---|
//! | `auto_remove` `init` `oom_kill_disable` `open_stdin` `privileged` `publish_all_ports` `read_only` `stdin_once` `tty` | `true` or `false` |
//! | `cgroup_parent` `cgroupns_mode` `cpuset_cpus` `cpuset_mems` `domainname` `hostname` `ipc_mode` `log_driver` `network_mode` `pid_mode` `runtime` `userns_mode` `uts_mode` | text |
//! | `cpu_shares` `memory_reservation` `memory_swap` `oom_score_adj` `shm_size` | a whole number; sizes in bytes |
//! | `cap_add` `cap_drop` `dns` `dns_options` `dns_search` `extra_hosts` `group_add` `security_opt` | a list: `a,b`, or a JSON array of strings where an item has a comma |
//! | `log_options` `sysctls` | a JSON object of strings |
//! | `devices` `healthcheck` `ulimits` | JSON as the Engine API has it: `[{"PathOnHost":"/dev/kvm", …}]`, `{"Test":["CMD","true"],"Interval":1000000000}`, `[{"Name":"nofile","Soft":64,"Hard":64}]` |

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig};
use serde::de::DeserializeOwned;

type Apply = fn(&mut ContainerCreateBody, &str) -> Result<(), String>;

/// Sets one key; the error message names the accepted keys or values.
pub(super) fn apply(body: &mut ContainerCreateBody, key: &str, value: &str) -> Result<(), String> {
    match KEYS.iter().find(|(known, _)| *known == key) {
        Some((_, apply)) if !value.contains('\0') => apply(body, value),
        Some(_) => Err("NUL cannot be in it".to_owned()),
        None => {
            let known: Vec<_> = KEYS.iter().map(|(known, _)| *known).collect();
            Err(format!("no such key; accepted are {}", known.join(", ")))
        }
    }
}

/// A field of `HostConfig`, set to the parsed value.
macro_rules! host {
    ($field:ident, $parse:path) => {
        |body, value| {
            host(body).$field = Some($parse(value)?);
            Ok(())
        }
    };
}

/// A field of the body itself, set to the parsed value.
macro_rules! own {
    ($field:ident, $parse:path) => {
        |body, value| {
            body.$field = Some($parse(value)?);
            Ok(())
        }
    };
}

const KEYS: &[(&str, Apply)] = &[
    ("auto_remove", host!(auto_remove, flag)),
    ("cap_add", host!(cap_add, list)),
    ("cap_drop", host!(cap_drop, list)),
    ("cgroup_parent", host!(cgroup_parent, text)),
    ("cgroupns_mode", host!(cgroupns_mode, cgroupns_mode)),
    ("cpu_shares", host!(cpu_shares, number)),
    ("cpuset_cpus", host!(cpuset_cpus, text)),
    ("cpuset_mems", host!(cpuset_mems, text)),
    ("devices", host!(devices, json)),
    ("dns", host!(dns, list)),
    ("dns_options", host!(dns_options, list)),
    ("dns_search", host!(dns_search, list)),
    ("domainname", own!(domainname, text)),
    ("extra_hosts", host!(extra_hosts, list)),
    ("group_add", host!(group_add, list)),
    ("healthcheck", own!(healthcheck, json)),
    ("hostname", own!(hostname, text)),
    ("init", host!(init, flag)),
    ("ipc_mode", host!(ipc_mode, text)),
    ("log_driver", |body, value| {
        log_config(body).typ = Some(text(value)?);
        Ok(())
    }),
    ("log_options", |body, value| {
        log_config(body).config = Some(json::<HashMap<String, String>>(value)?);
        Ok(())
    }),
    ("memory_reservation", host!(memory_reservation, number)),
    ("memory_swap", host!(memory_swap, number)),
    ("network_mode", host!(network_mode, text)),
    ("oom_kill_disable", host!(oom_kill_disable, flag)),
    ("oom_score_adj", host!(oom_score_adj, number)),
    ("open_stdin", own!(open_stdin, flag)),
    ("pid_mode", host!(pid_mode, text)),
    ("privileged", host!(privileged, flag)),
    ("publish_all_ports", host!(publish_all_ports, flag)),
    ("read_only", host!(readonly_rootfs, flag)),
    ("runtime", host!(runtime, text)),
    ("security_opt", host!(security_opt, list)),
    ("shm_size", host!(shm_size, number)),
    ("stdin_once", own!(stdin_once, flag)),
    ("sysctls", host!(sysctls, json)),
    ("tty", own!(tty, flag)),
    ("ulimits", host!(ulimits, json)),
    ("userns_mode", host!(userns_mode, text)),
    ("uts_mode", host!(uts_mode, text)),
];

pub(super) fn host(body: &mut ContainerCreateBody) -> &mut HostConfig {
    body.host_config.get_or_insert_default()
}

fn log_config(body: &mut ContainerCreateBody) -> &mut HostConfigLogConfig {
    host(body).log_config.get_or_insert_default()
}

fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("expected true or false, got '{}'", value.escape_debug()))
}

fn number(value: &str) -> Result<i64, String> {
    value.parse().map_err(|_| format!("expected a whole number, got '{}'", value.escape_debug()))
}

fn text(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("expected a value, got nothing".to_owned()) } else { Ok(value.to_owned()) }
}

fn list(value: &str) -> Result<Vec<String>, String> {
    if value.trim_start().starts_with('[') {
        return json(value);
    }
    Ok(value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
}

fn json<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| format!("expected JSON as in the Engine API: {error}"))
}

fn cgroupns_mode(value: &str) -> Result<HostConfigCgroupnsModeEnum, String> {
    match value {
        "private" => Ok(HostConfigCgroupnsModeEnum::PRIVATE),
        "host" => Ok(HostConfigCgroupnsModeEnum::HOST),
        _ => Err(format!("expected private or host, got '{}'", value.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(key: &str, value: &str) -> Result<serde_json::Value, String> {
        let mut body = ContainerCreateBody::default();
        apply(&mut body, key, value)?;
        Ok(serde_json::to_value(body).unwrap())
    }

    #[test]
    fn every_documented_key_is_there_and_every_key_is_documented() {
        let table: String = include_str!("native.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
        let keys: Vec<_> = table
            .split("//! |")
            .filter_map(|row| row.split('|').next())
            .flat_map(|keys| keys.split('`').filter(|key| !key.trim().is_empty()))
            .collect();
        for (key, _) in KEYS {
            assert!(keys.contains(key), "{key} is not in the table");
        }
        assert_eq!(keys.len(), KEYS.len());
        assert!(KEYS.is_sorted_by_key(|(key, _)| *key));
    }

    #[test]
    fn values_are_in_the_engines_form() {
        use serde_json::json;
        let cases = [
            ("init", "true", json!({"HostConfig": {"Init": true}})),
            ("hostname", "web", json!({"Hostname": "web"})),
            ("tty", "true", json!({"Tty": true})),
            ("read_only", "true", json!({"HostConfig": {"ReadonlyRootfs": true}})),
            ("cap_add", "NET_ADMIN, SYS_TIME", json!({"HostConfig": {"CapAdd": ["NET_ADMIN", "SYS_TIME"]}})),
            ("security_opt", r#"["a=b,c"]"#, json!({"HostConfig": {"SecurityOpt": ["a=b,c"]}})),
            ("shm_size", "1024", json!({"HostConfig": {"ShmSize": 1024}})),
            (
                "sysctls",
                r#"{"net.core.somaxconn":"1"}"#,
                json!({"HostConfig": {"Sysctls": {"net.core.somaxconn": "1"}}}),
            ),
            (
                "healthcheck",
                r#"{"Test":["CMD","true"],"Interval":1000000000,"Retries":2}"#,
                json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 2}}),
            ),
            ("log_driver", "none", json!({"HostConfig": {"LogConfig": {"Type": "none"}}})),
            ("network_mode", "host", json!({"HostConfig": {"NetworkMode": "host"}})),
            (
                "ulimits",
                r#"[{"Name":"nofile","Soft":64,"Hard":64}]"#,
                json!({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 64}]}}),
            ),
        ];
        for (key, value, expected) in cases {
            assert_eq!(made(key, value).unwrap(), expected, "{key}");
        }
    }

    #[test]
    fn invalid_values_are_refused_and_the_accepted_keys_are_listed() {
        let unknown = made("hostnam", "x").unwrap_err();
        assert!(unknown.contains("hostname") && unknown.contains("shm_size"), "{unknown}");
        for (key, value) in
            [("init", "yes"), ("shm_size", "64m"), ("healthcheck", "true"), ("hostname", ""), ("runtime", "a\0b")]
        {
            assert!(made(key, value).is_err(), "{key}={value}");
        }
    }
}
