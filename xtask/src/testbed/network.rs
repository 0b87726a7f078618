//! An engine's changes to the machine's network, and undoing them: bridges, packet filter rules, network namespaces, switches in
//! `/proc/sys`.
//!
//! The earlier state stays, and so do the additions of others in between: only objects with the engine's names are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{mounts, packages};
use crate::failure::{Doing, Failure, Outcome};
use crate::process::{self, Interrupt};

const LIMIT: Duration = Duration::from_secs(30);

/// `iptables` and `ip6tables`: programs that take the same commands.
const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// Folder of the named network namespaces, in which Podman keeps those of its containers.
const NAMESPACES: &str = "/run/netns";

/// Switches that some version of Docker or of Podman turns.
const SWITCHES: [&str; 5] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];

/// Has frames that a bridge passes on skip the packet filter: where they do not, Docker's policy for FORWARD drops them, and containers of a
/// private network of Podman's do not reach each other. The record of the machine has the earlier value.
pub(super) fn pass_bridged() {
    for switch in SWITCHES.iter().filter(|switch| switch.starts_with("net/bridge/")) {
        // A kernel without that filter has no such switch.
        let _ = fs::write(Path::new("/proc/sys").join(switch), "0");
    }
}

/// The engine whose names the objects have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Owner {
    #[default]
    Docker,
    Podman,
}

/// The network as it was before the daemon came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Network {
    rules: BTreeMap<String, String>,
    switches: BTreeMap<String, String>,
    links: BTreeSet<String>,
    #[serde(default)]
    namespaces: BTreeSet<String>,
}

impl Network {
    pub(super) fn now() -> Outcome<Self> {
        let mut rules = BTreeMap::new();
        for family in FAMILIES {
            if let Some(text) = saved_rules(family)? {
                rules.insert(family.to_owned(), text);
            }
        }
        Ok(Self { rules, switches: switches(), links: links(), namespaces: entries(NAMESPACES) })
    }

    /// Takes the switches of an earlier record: another daemon of a testbed has turned them since.
    pub(super) fn with_switches_of(self, earlier: &Self) -> Self {
        Self { switches: earlier.switches.clone(), ..self }
    }

    /// Undoes the owner's changes; returns those that could not be undone, one line each.
    pub(super) fn restore(&self, owner: Owner) -> Vec<String> {
        let mut left = Vec::new();
        let bridges: BTreeSet<_> =
            links().into_iter().filter(|link| owner.is_bridge(link) && !self.links.contains(link)).collect();
        let cables: Vec<_> = links().into_iter().filter(|link| owner.is_cable(link, &bridges)).collect();
        if owner == Owner::Podman {
            left.extend(self.remove_namespaces());
        }
        for family in FAMILIES {
            let before = self.rules.get(family).map_or("", String::as_str);
            if let Err(failure) = restore_rules(family, before, &bridges, owner) {
                left.push(failure.to_string());
            }
        }
        // A daemon that is killed while it starts a container leaves the container's cable behind.
        for link in bridges.iter().chain(&cables).filter(|link| !self.links.contains(*link)) {
            // One end of a cable takes the other with it.
            if links().contains(link)
                && let Err(failure) = run("ip", &["link", "delete", link])
                && links().contains(link)
            {
                left.push(failure.to_string());
            }
        }
        left
    }

    /// Sets the switches back; returns those that could not be, one line each.
    pub(super) fn restore_switches(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (switch, value) in &self.switches {
            let path = Path::new("/proc/sys").join(switch);
            let now = fs::read_to_string(&path).unwrap_or_default();
            if now.trim() != value
                && let Err(error) = fs::write(&path, value)
            {
                left.push(format!("{switch} is {}, was {value}: {error}", now.trim()));
            }
        }
        left
    }

    /// Containers of a service that was killed leave their namespaces mounted.
    fn remove_namespaces(&self) -> Vec<String> {
        let is_new = |name: &String| name.starts_with("netns-") && !self.namespaces.contains(name);
        let new = entries(NAMESPACES).into_iter().filter(is_new).map(|name| Path::new(NAMESPACES).join(name));
        new.filter(|at| !mounts::unmount_all(at) || fs::remove_file(at).is_err())
            .map(|at| format!("network namespace {}", at.display()))
            .collect()
    }
}

fn switches() -> BTreeMap<String, String> {
    let value = |switch: &str| fs::read_to_string(Path::new("/proc/sys").join(switch)).ok();
    let read = |switch: &&str| Some(((*switch).to_owned(), value(switch)?.trim().to_owned()));
    SWITCHES.iter().filter_map(read).collect()
}

/// The links of this process's network, which need not be the one that `/sys` shows.
fn links() -> BTreeSet<String> {
    parse_links(&fs::read_to_string("/proc/self/net/dev").unwrap_or_default())
}

fn parse_links(text: &str) -> BTreeSet<String> {
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

fn entries(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The bridge that a link is plugged into.
fn bridge_of(link: &str) -> Option<String> {
    let mut command = packages::command("ip");
    let said =
        process::capture(command.args(["-oneline", "link", "show", "dev", link]), LIMIT, Interrupt::Waits).ok()?;
    let mut words = said.stdout.split_whitespace().skip_while(|word| *word != "master");
    words.nth(1).map(str::to_owned)
}

impl Owner {
    /// Docker: `docker0`, `docker_gwbridge`, and `br-` with the first twelve digits of a network's id. Podman: `podman` and a
    /// number.
    fn is_bridge(self, link: &str) -> bool {
        let user_made = |id: &str| id.len() == 12 && id.chars().all(|c| c.is_ascii_hexdigit());
        let numbered = |number: &str| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        match self {
            Self::Docker => {
                link == "docker0" || link == "docker_gwbridge" || link.strip_prefix("br-").is_some_and(user_made)
            }
            Self::Podman => link.strip_prefix("podman").is_some_and(numbered),
        }
    }

    /// Docker calls both ends `veth` with seven digits. Podman's have the kernel's names, so that only the bridge tells.
    fn is_cable(self, link: &str, bridges: &BTreeSet<String>) -> bool {
        let Some(id) = link.strip_prefix("veth") else { return false };
        match self {
            Self::Docker => id.len() == 7 && id.chars().all(|c| c.is_ascii_hexdigit()),
            Self::Podman => bridge_of(link).is_some_and(|bridge| bridges.contains(&bridge)),
        }
    }

    fn is_chain(self, name: &str) -> bool {
        match self {
            Self::Docker => name == "DOCKER" || name.starts_with("DOCKER-"),
            Self::Podman => name.starts_with("NETAVARK-") || name.starts_with("NETAVARK_"),
        }
    }

    fn is_rule(self, rule: &str, bridges: &BTreeSet<String>) -> bool {
        let words: Vec<&str> = rule.split(' ').collect();
        let after = |option: &str| words.iter().zip(words.iter().skip(1)).find(|(o, _)| **o == option).map(|(_, v)| *v);
        // A port published by Docker: its way back to its own container names no bridge.
        let hairpin = words.last() == Some(&"MASQUERADE") && after("-s").is_some() && after("-s") == after("-d");
        self == Self::Docker && hairpin || words.iter().any(|word| self.is_chain(word) || bridges.contains(*word))
    }
}

pub(super) fn has_docker0() -> bool {
    links().contains("docker0")
}

/// The output of `iptables-save`; `None` if the kernel does not support the family.
fn saved_rules(family: &str) -> Outcome<Option<String>> {
    let program = format!("{family}-save");
    if packages::find(&program).is_none() {
        return Ok(None);
    }
    let said = process::capture(&mut packages::command(&program), LIMIT, Interrupt::Waits)?;
    Ok(said.status.success().then_some(said.stdout))
}

fn run(program: &str, arguments: &[&str]) -> Outcome<()> {
    let said = process::capture(packages::command(program).args(arguments), LIMIT, Interrupt::Waits)?;
    if said.status.success() {
        return Ok(());
    }
    Err(Failure::failed(format_args!("{program} {}: {}", arguments.join(" "), said.complaint())))
}

fn restore_rules(family: &str, before: &str, bridges: &BTreeSet<String>, owner: Owner) -> Outcome<()> {
    let Some(now) = saved_rules(family)? else { return Ok(()) };
    let before = parse(before);
    let script = undo(&before, &parse(&now), bridges, owner);
    if !script.is_empty() {
        feed(&format!("{family}-restore"), &script)?;
    }
    // The daemon's first rule also made the table; one that has nothing in it was not there before, either.
    for (name, table) in parse(&saved_rules(family)?.unwrap_or_default()) {
        let bare = table.rules.is_empty() && table.chains.values().all(|policy| policy == "ACCEPT");
        if bare && !before.contains_key(&name) {
            remove_table(family, &name);
        }
    }
    Ok(())
}

/// Removes a table without rules, so far as it can be: `iptables` itself has no verb for it, and where tables are the
/// kernel's own (legacy) they stay, and cost nothing.
fn remove_table(family: &str, name: &str) {
    let protocol = if family == "ip6tables" { "ip6" } else { "ip" };
    if packages::find("nft").is_none() {
        return;
    }
    let listed = process::capture(
        packages::command("nft").args(["--json", "list", "table", protocol, name]),
        LIMIT,
        Interrupt::Waits,
    );
    // It may hold what `iptables-save` does not show.
    if listed.is_ok_and(|said| said.status.success() && holds_only_chains(&said.stdout)) {
        let _ = run("nft", &["delete", "table", protocol, name]);
    }
}

fn holds_only_chains(json: &str) -> bool {
    let Ok(listed) = serde_json::from_str::<serde_json::Value>(json) else { return false };
    let Some(items) = listed.get("nftables").and_then(|items| items.as_array()) else { return false };
    let harmless = |key: &String| matches!(key.as_str(), "metainfo" | "table" | "chain");
    items.iter().all(|item| item.as_object().is_some_and(|item| item.keys().all(harmless)))
}

/// Changes all tables in one go each, or not at all.
fn feed(program: &str, script: &str) -> Outcome<()> {
    use std::io::Write as _;
    let mut command = packages::command(program);
    // `-w` waits for others who change rules, and must be bounded.
    command.args(["-w", "20", "--noflush"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().doing(program)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).doing(program)?;
    }
    let output = child.wait_with_output().doing(program)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Failure::failed(format_args!("{program}: {}", complaint.lines().next().unwrap_or("failed"))))
}

/// A table as `iptables-save` prints it.
#[derive(Debug, Default)]
struct Table {
    /// Policy by chain; `-` for a chain that is not built in.
    chains: BTreeMap<String, String>,
    /// `-A CHAIN …`, in order.
    rules: Vec<String>,
}

fn parse(text: &str) -> BTreeMap<String, Table> {
    let mut tables = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            table.clone_into(&mut name);
            tables.insert(name.clone(), Table::default());
        } else if let Some(table) = tables.get_mut(&name) {
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                if let (Some(chain), Some(policy)) = (words.next(), words.next()) {
                    table.chains.insert(chain.to_owned(), policy.to_owned());
                }
            } else if line.starts_with("-A ") {
                table.rules.push(line.to_owned());
            }
        }
    }
    tables
}

/// The script for `iptables-restore --noflush` that takes the owner's rules and chains of `now` away, so far as they
/// were not there `before`.
fn undo(
    before: &BTreeMap<String, Table>,
    now: &BTreeMap<String, Table>,
    bridges: &BTreeSet<String>,
    owner: Owner,
) -> String {
    let nothing = Table::default();
    let mut script = String::new();
    for (name, table) in now {
        let was = before.get(name).unwrap_or(&nothing);
        let mut lines = Vec::new();
        // A rule can stand there twice: count those that stay.
        let mut stays: Vec<&String> = was.rules.iter().collect();
        for rule in &table.rules {
            if let Some(at) = stays.iter().position(|stay| *stay == rule) {
                stays.swap_remove(at);
            } else if owner.is_rule(rule, bridges) {
                lines.push(rule.replacen("-A ", "-D ", 1));
            }
        }
        for chain in table.chains.keys().filter(|chain| owner.is_chain(chain) && !was.chains.contains_key(*chain)) {
            lines.push(format!("-X {chain}"));
        }
        // Docker sets it to DROP; Podman leaves it as it is.
        if name == "filter"
            && owner == Owner::Docker
            && let Some(policy) = table.chains.get("FORWARD")
        {
            let was = was.chains.get("FORWARD").map_or("ACCEPT", String::as_str);
            if policy != was {
                lines.push(format!("-P FORWARD {was}"));
            }
        }
        if !lines.is_empty() {
            let _ = writeln!(script, "*{name}\n{}\nCOMMIT", lines.join("\n"));
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "\
# Generated by iptables-save
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -i lo -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i tun0 -m comment --comment \"the user's own\" -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.0.0.0/8 -o eth0 -j MASQUERADE
COMMIT
";

    fn bridges() -> BTreeSet<String> {
        BTreeSet::from(["docker0".to_owned()])
    }

    #[test]
    fn only_dockers_rules_go_and_chains_go_after_them() {
        let expected = "\
*filter
-D FORWARD -j DOCKER-USER
-D FORWARD -o docker0 -j DOCKER
-D DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -j ACCEPT
-D DOCKER-USER -j RETURN
-X DOCKER
-X DOCKER-USER
-P FORWARD ACCEPT
COMMIT
*nat
-D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-D POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-X DOCKER
COMMIT
";
        assert_eq!(undo(&BTreeMap::new(), &parse(NOW), &bridges(), Owner::Docker), expected);
    }

    #[test]
    fn the_earlier_network_state_stays() {
        assert_eq!(undo(&parse(NOW), &parse(NOW), &bridges(), Owner::Docker), "");
        assert_eq!(undo(&BTreeMap::new(), &BTreeMap::new(), &bridges(), Owner::Docker), "");
    }

    #[test]
    fn a_rule_that_stood_there_once_and_now_twice_goes_once() {
        let before = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -o docker0 -j ACCEPT\nCOMMIT\n";
        let now = before.replace("COMMIT", "-A FORWARD -o docker0 -j ACCEPT\nCOMMIT");
        let script = undo(&parse(before), &parse(&now), &bridges(), Owner::Docker);
        assert_eq!(script, "*filter\n-D FORWARD -o docker0 -j ACCEPT\nCOMMIT\n");
    }

    #[test]
    fn a_table_with_anything_but_chains_is_not_empty() {
        assert!(holds_only_chains(r#"{"nftables":[{"metainfo":{}},{"table":{"name":"nat"}},{"chain":{}}]}"#));
        assert!(!holds_only_chains(r#"{"nftables":[{"metainfo":{}},{"chain":{}},{"rule":{}}]}"#));
        assert!(!holds_only_chains(r#"{"nftables":[{"set":{}}]}"#));
        assert!(!holds_only_chains("table ip nat"));
    }

    #[test]
    fn an_engine_takes_away_no_more_than_its_own() {
        let now = "\
*filter
:FORWARD DROP [0:0]
:NETAVARK_FORWARD - [0:0]
-A FORWARD -m comment --comment \"netavark firewall plugin rules\" -j NETAVARK_FORWARD
-A FORWARD -o docker0 -j DOCKER
-A NETAVARK_FORWARD -s 10.88.0.0/16 -j ACCEPT
COMMIT
*nat
:NETAVARK-HOSTPORT-DNAT - [0:0]
-A OUTPUT -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
COMMIT
";
        let expected = "\
*filter
-D FORWARD -m comment --comment \"netavark firewall plugin rules\" -j NETAVARK_FORWARD
-D NETAVARK_FORWARD -s 10.88.0.0/16 -j ACCEPT
-X NETAVARK_FORWARD
COMMIT
*nat
-D OUTPUT -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT
-X NETAVARK-HOSTPORT-DNAT
COMMIT
";
        let bridges = BTreeSet::from(["podman0".to_owned()]);
        assert_eq!(undo(&BTreeMap::new(), &parse(now), &bridges, Owner::Podman), expected);
    }

    #[test]
    fn links_are_read() {
        let text = "Inter-|   Receive\n face |bytes\n    lo:  77 1 0\npodman0: 0 0 0\n";
        assert_eq!(parse_links(text), BTreeSet::from(["lo".to_owned(), "podman0".to_owned()]));
    }

    #[test]
    fn dockers_cables_are_known_by_name() {
        let is_cable = |link| Owner::Docker.is_cable(link, &bridges());
        assert!(is_cable("veth9e63544") && is_cable("vethd67a182"));
        assert!(!is_cable("veth0") && !is_cable("vethernet01") && !is_cable("eth0"));
    }

    #[test]
    fn bridges_are_known_by_name() {
        let dockers = |link| Owner::Docker.is_bridge(link);
        assert!(dockers("docker0") && dockers("docker_gwbridge") && dockers("br-0123456789ab"));
        assert!(!dockers("br-lan") && !dockers("eth0") && !dockers("br-0123456789abc") && !dockers("podman0"));
        let podmans = |link| Owner::Podman.is_bridge(link);
        assert!(podmans("podman0") && podmans("podman12"));
        assert!(!podmans("podman") && !podmans("podmanx") && !podmans("docker0"));
    }
}
