//! The manager's properties of a unit, unconverted. A missing property is `None`; unused ones are not decoded.

use zbus::{DeserializeDict, OwnedObjectPath, Type};

/// Properties of `org.freedesktop.systemd1.Unit`.
#[derive(Clone, Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub(crate) struct UnitProperties {
    pub(crate) id: Option<String>,
    pub(crate) load_state: Option<String>,
    pub(crate) active_state: Option<String>,
    pub(crate) sub_state: Option<String>,
    pub(crate) freezer_state: Option<String>,
    pub(crate) fragment_path: Option<String>,
    pub(crate) drop_in_paths: Option<Vec<String>>,
    pub(crate) transient: Option<bool>,
    pub(crate) triggered_by: Option<Vec<String>>,
    #[zbus(rename = "InvocationID")]
    pub(crate) invocation_id: Option<Vec<u8>>,
    /// Time of the last start, before its conditions were checked.
    pub(crate) condition_timestamp_monotonic: Option<u64>,
    /// Time at which it last left the inactive state: a run began.
    pub(crate) inactive_exit_timestamp: Option<u64>,
    pub(crate) inactive_exit_timestamp_monotonic: Option<u64>,
    /// Time at which it last became inactive: a run ended.
    pub(crate) inactive_enter_timestamp: Option<u64>,
    pub(crate) state_change_timestamp_monotonic: Option<u64>,
    /// The pending job, by its number and object; 0: none.
    pub(crate) job: Option<(u32, OwnedObjectPath)>,
}

/// Properties of `org.freedesktop.systemd1.Service` and, as far as it has them, `….Scope`.
#[derive(Clone, Debug, Default, DeserializeDict, Type)]
#[zbus(signature = "a{sv}", rename_all = "PascalCase")]
pub(crate) struct ServiceProperties {
    #[zbus(rename = "Type")]
    pub(crate) kind: Option<String>,
    #[zbus(rename = "MainPID")]
    pub(crate) main_pid: Option<u32>,
    pub(crate) result: Option<String>,
    #[zbus(rename = "NRestarts")]
    pub(crate) restarts: Option<u32>,
    pub(crate) exec_main_start_timestamp_monotonic: Option<u64>,
    pub(crate) exec_main_exit_timestamp: Option<u64>,
    pub(crate) exec_main_code: Option<i32>,
    pub(crate) exec_main_status: Option<i32>,
    pub(crate) slice: Option<String>,
    pub(crate) control_group: Option<String>,
    pub(crate) environment: Option<Vec<String>>,
}
