//! Limits and rights of the instance's processes.

use serde::{Deserialize, Serialize};

/// A resource limit of each process of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ulimit {
    /// Name of the resource as in `ulimit`'s long form, as `nofile` or `nproc`.
    pub name: String,
    /// Limit that is enforced, which a process may raise up to the hard one; unlimited if `None`.
    pub soft: Option<u64>,
    /// Ceiling of the soft limit; unlimited if `None`.
    pub hard: Option<u64>,
}

impl Ulimit {
    /// Names of the resources that Linux limits.
    pub const NAMES: [&'static str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];

    /// Makes a limit, soft and hard alike.
    pub fn new(name: impl Into<String>, limit: u64) -> Self {
        Self { name: name.into(), soft: Some(limit), hard: Some(limit) }
    }

    /// Makes a resource unlimited, as far as the runtime may.
    pub fn unlimited(name: impl Into<String>) -> Self {
        Self { name: name.into(), soft: None, hard: None }
    }

    /// Sets another soft limit.
    #[must_use]
    pub fn with_soft(mut self, soft: u64) -> Self {
        self.soft = Some(soft);
        self
    }

    /// `true` if the soft limit is above the hard one, which no kernel accepts.
    pub fn is_inverted(&self) -> bool {
        self.hard.is_some_and(|hard| self.soft.is_none_or(|soft| soft > hard))
    }
}

/// `true` for the name of a kernel capability, with or without `CAP_`, or for `ALL`; in any case.
///
/// ```
/// use runtide_core::manager::is_capability;
///
/// assert!(is_capability("NET_ADMIN") && is_capability("cap_sys_time") && is_capability("all"));
/// assert!(!is_capability("NET_ADMIN,SYS_TIME") && !is_capability(""));
/// ```
pub fn is_capability(name: &str) -> bool {
    const NAMES: [&str; 42] = [
        "ALL",
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    ];
    let upper = name.to_ascii_uppercase();
    NAMES.binary_search(&upper.strip_prefix("CAP_").unwrap_or(&upper)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_above_the_hard_one_is_inverted() {
        let limit = |soft, hard| Ulimit { name: "nofile".to_owned(), soft, hard };
        assert!(limit(Some(2), Some(1)).is_inverted() && limit(None, Some(1)).is_inverted());
        assert!(!limit(Some(1), Some(1)).is_inverted() && !limit(Some(1), None).is_inverted());
        assert!(!limit(None, None).is_inverted());
    }

    #[test]
    fn a_capability_is_one_that_linux_has() {
        for name in ["SYSLOG", "SYS_ADMIN", "cap_chown", "CAP_WAKE_ALARM", "All", "MKNOD"] {
            assert!(is_capability(name), "{name}");
        }
        for name in ["", "CAP_", "CAP_CAP_CHOWN", "ROOT", "NET ADMIN", "CHOWN\0", "NET_ADMIN\n"] {
            assert!(!is_capability(name), "{name}");
        }
    }
}
