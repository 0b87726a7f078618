//! [`Guest`]: a row of a list of guests.

use std::{collections::BTreeSet, time::Duration};

use runtide_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use crate::loose;

/// Kind of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GuestKind {
    /// An LXC container.
    Lxc,
    /// A QEMU machine.
    Qemu,
}

/// State of a guest, as its row says it. Every row has one: a status that is not known is [`Unknown`](Self::Unknown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestState {
    /// Nothing is known at present: its node is offline, or no status has been broadcast yet. The guest is there.
    Unknown,
    /// A clone, restore or creation is under way; the row is there before the guest is whole.
    Creating,
    /// The guest does not run.
    Stopped,
    /// The memory of the guest is on the disk: the next start resumes it.
    Hibernated,
    /// The memory of the guest is being written to the disk.
    Suspending,
    /// The guest runs. A row without `qmpstatus`, as in `/cluster/resources`, says the same of a machine that is paused.
    Running,
    /// The guest is there, and none of its processors runs.
    Paused,
}

impl GuestState {
    fn of(row: &Map<String, Value>) -> Self {
        let lock = loose::text(row, "lock");
        let lock = lock.as_deref();
        if matches!(lock, Some("create" | "clone")) {
            return Self::Creating;
        }
        match loose::text(row, "status").as_deref() {
            Some("stopped") if lock == Some("suspended") => Self::Hibernated,
            Some("stopped") => Self::Stopped,
            Some("running") if lock == Some("suspending") => Self::Suspending,
            Some("running") => match loose::text(row, "qmpstatus").as_deref() {
                Some("paused" | "suspended" | "prelaunch") => Self::Paused,
                _ => Self::Running,
            },
            _ => Self::Unknown,
        }
    }
}

/// One guest, as a row of `/cluster/resources`, of `/nodes/{node}/lxc` or of `/nodes/{node}/qemu` shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Guest {
    /// Number of the guest, unique in its cluster among those that exist. It is used again: alone it is no identity.
    pub vmid: u32,
    /// Kind of the guest.
    pub kind: GuestKind,
    /// Node that the guest is on. A migration changes it.
    pub node: String,
    /// Name, if one is known: a guest on an offline node has none.
    pub name: Option<String>,
    /// State of the guest.
    pub state: GuestState,
    /// Age of the process, to the second, unless it is zero or not known. It goes on while the guest is paused, and a reset from
    /// within keeps it.
    pub uptime: Option<Duration>,
    /// Process of the guest on its node, if the row says it.
    pub pid: Option<u32>,
    /// Lock in the config: the operation that is under way, or was when it broke off.
    pub lock: Option<String>,
    /// Tags. The server keeps them in lower case, sorted and without doubles.
    pub tags: BTreeSet<String>,
    /// True if the guest is a template, which cannot be started.
    pub is_template: bool,
}

/// A list of guests.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Guests {
    /// The rows that are guests, in the order of the answer.
    pub guests: Vec<Guest>,
    /// Rows that should be guests and could not be read, at most one text for each: while there is any, the list proves no absence.
    pub unread: Vec<String>,
}

impl Guests {
    /// Reads the data of a list. `node` is the one that a node's list was asked of, whose rows do not repeat it; `None` for
    /// `/cluster/resources`, where rows of other types (nodes, storages) are left out.
    ///
    /// An empty list is no proof that there is no guest: a token without rights gets the same one.
    ///
    /// # Errors
    ///
    /// [`Protocol`](ErrorKind::Protocol) if it is no list.
    pub fn of(data: &Value, node: Option<&str>) -> Result<Self> {
        let rows = data
            .as_array()
            .ok_or_else(|| Error::new(ErrorKind::Protocol, "proxmox.list", "the answer is not a list of guests"))?;
        let mut guests = Self::default();
        for row in rows {
            let Some(row) = row.as_object() else {
                guests.unread.push("a row is no object".to_owned());
                continue;
            };
            // A node's list of machines has no type in its rows.
            let kind = match (loose::text(row, "type").as_deref(), node) {
                (Some("lxc"), _) => GuestKind::Lxc,
                (Some("qemu"), _) | (None, Some(_)) => GuestKind::Qemu,
                (Some(_), _) => continue,
                (None, None) => {
                    guests.unread.push("a row has no type".to_owned());
                    continue;
                }
            };
            match Guest::of(row, kind, node) {
                Ok(guest) => guests.guests.push(guest),
                Err(why) => guests.unread.push(why.to_owned()),
            }
        }
        Ok(guests)
    }
}

impl Guest {
    fn of(row: &Map<String, Value>, kind: GuestKind, node: Option<&str>) -> Result<Self, &'static str> {
        let small = |key| loose::number(row, key).and_then(|number| u32::try_from(number).ok());
        let state = GuestState::of(row);
        Ok(Self {
            vmid: small("vmid").ok_or("a guest has no vmid")?,
            kind,
            node: node.map(str::to_owned).or_else(|| loose::text(row, "node")).ok_or("a guest has no node")?,
            name: loose::text(row, "name"),
            state,
            uptime: loose::number(row, "uptime").filter(|seconds| *seconds > 0).map(Duration::from_secs),
            pid: small("pid").filter(|pid| *pid > 0),
            lock: loose::text(row, "lock"),
            tags: loose::text(row, "tags")
                .unwrap_or_default()
                .split([';', ',', ' '])
                .filter(|tag| !tag.is_empty())
                .map(str::to_lowercase)
                .collect(),
            is_template: loose::flag(row, "template"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(fields: &Value) -> GuestState {
        GuestState::of(fields.as_object().unwrap())
    }

    #[test]
    fn every_combination_of_status_and_lock_has_a_state() {
        assert_eq!(state(&json!({"status": "running"})), GuestState::Running);
        assert_eq!(state(&json!({"status": "running", "qmpstatus": "paused"})), GuestState::Paused);
        assert_eq!(state(&json!({"status": "running", "lock": "suspending"})), GuestState::Suspending);
        assert_eq!(state(&json!({"status": "running", "lock": "backup"})), GuestState::Running);
        assert_eq!(state(&json!({"status": "stopped", "qmpstatus": "stopped"})), GuestState::Stopped);
        assert_eq!(state(&json!({"status": "stopped", "lock": "suspended"})), GuestState::Hibernated);
        assert_eq!(state(&json!({"status": "stopped", "lock": "clone"})), GuestState::Creating);
        assert_eq!(state(&json!({"status": "unknown", "lock": "create"})), GuestState::Creating);
        for fields in [json!({}), json!({"status": "unknown"}), json!({"status": 7}), json!({"status": "melted"})] {
            assert_eq!(state(&fields), GuestState::Unknown);
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_counted_and_not_dropped() {
        let list = Guests::of(
            &json!([7, {"type": "node", "node": "a"}, {"type": "lxc", "node": "a"}, {"vmid": 1}, {"type": "qemu", "vmid": 2},
                {"type": "qemu", "vmid": "100", "node": "a", "template": "1"}, {"type": "lxc", "vmid": 1_u64 << 40, "node": "a"}]),
            None,
        )
        .unwrap();
        assert_eq!((list.guests.len(), list.unread.len()), (1, 5));
        assert!(list.guests.iter().all(|guest| guest.is_template && guest.vmid == 100 && guest.name.is_none()));
        assert!(Guests::of(&json!(null), None).is_err());
    }
}
