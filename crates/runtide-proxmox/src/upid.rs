//! [`Upid`]: the name of a task.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use runtide_core::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::parameters::segment;

/// Longest text that is taken for a task's name, in bytes. A node's name has at most 63, the others together less than 200.
const LONGEST: usize = 512;

/// Name of one task: `UPID:node:pid:pstart:starttime:type:id:user:`.
///
/// Two are the same task if their texts are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upid {
    text: String,
    node: String,
    pid: u32,
    started: u32,
    kind: String,
    id: String,
    user: String,
}

impl Upid {
    /// Reads the text of a task's name, or returns `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let fields: Vec<_> = text.split(':').collect();
        let ["UPID", node, pid, pstart, started, kind, id, user, ""] = fields[..] else { return None };
        let is_host = |name: &str| {
            let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = name.as_bytes();
            is_edge(bytes.first())
                && is_edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        };
        if !is_host(node) || kind.is_empty() || user.is_empty() {
            return None;
        }
        hex(pstart, 8..=9)?;
        Some(Self {
            text: text.to_owned(),
            node: node.to_owned(),
            pid: u32::try_from(hex(pid, 8..=8)?).ok()?,
            started: u32::try_from(hex(started, 8..=8)?).ok()?,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
        })
    }

    /// The task that the answer to a change names.
    ///
    /// # Errors
    ///
    /// [`Protocol`](ErrorKind::Protocol) if the answer names none.
    pub fn of(data: &Value) -> Result<Self> {
        let upid = data.as_str().and_then(Self::parse);
        upid.ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "proxmox.task", "the answer to a change does not name its task")
        })
    }

    /// The node that runs the task, and the only one that is sure to know it. After an upload it is the node that received the file.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Process that runs the task, on its node.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Time of the node's clock at which the task started, to the second.
    pub fn started_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.started.into())
    }

    /// Type of the task, such as `vzstart` or `qmstop`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The object that the task is about, as a rule a vmid; empty if there is none.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// User or API token that started the task: `root@pam`, `root@pam!name`.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Path at which the task's node answers what became of it.
    pub fn status_path(&self) -> String {
        format!("/nodes/{}/tasks/{}/status", self.node, segment(&self.text))
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads hexadecimal digits. A sign is none, which `from_str_radix` would take.
fn hex(digits: &str, width: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let is_hex = width.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dashes_empty_ids_tokens_and_nine_digits_are_read() {
        let upid = Upid::parse("UPID:pve-1-a:000002B6:1003B5910:6B006C72:aptupdate::root@pam!t1:").unwrap();
        assert_eq!(
            (upid.node(), upid.pid(), upid.kind(), upid.id(), upid.user()),
            ("pve-1-a", 0x2B6, "aptupdate", "", "root@pam!t1")
        );
        assert_eq!(upid.started_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(0x6B00_6C72));
        assert_eq!(
            upid.status_path(),
            "/nodes/pve-1-a/tasks/UPID%3Apve-1-a%3A000002B6%3A1003B5910%3A6B006C72%3Aaptupdate%3A%3Aroot%40pam%21t1%3A/status"
        );
    }

    #[test]
    fn texts_that_name_no_task_are_refused() {
        let long = format!("UPID:pve1:00000123:00037927:6B006BD7:vzstart:{}:root@pam:", "1".repeat(600));
        for text in [
            "",
            "UPID:bad",
            "UPID:pve1:00000123:00037927:6B006BD7:vzstart:100:root@pam",
            "UPID:pve1:00000123:00037927:6B006BD7:vzstart:100:root@pam:x",
            "UPID:pve1:+0000123:00037927:6B006BD7:vzstart:100:root@pam:",
            "UPID:pve1:00000123:0000037927:6B006BD7:vzstart:100:root@pam:",
            "UPID:../pve1:00000123:00037927:6B006BD7:vzstart:100:root@pam:",
            "UPID:pve1-:00000123:00037927:6B006BD7:vzstart:100:root@pam:",
            "UPID:pve1:00000123:00037927:6B006BD7::100:root@pam:",
            "UPID:pve1:00000123:00037927:6B006BD7:vzstart:1 0:root@pam:",
            &long,
        ] {
            assert_eq!(Upid::parse(text), None, "{text}");
        }
        assert_eq!(Upid::of(&Value::Null).unwrap_err().kind(), ErrorKind::Protocol);
    }
}
