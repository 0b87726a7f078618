//! Injected faults: [`Faults`] hold until they are cleared, and act on the wire.
//!
//! Faults that happen once (`sever`, `half_open`, `lose_history`, …) are verbs of [`MemoryRuntime`](crate::MemoryRuntime).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use runtide_core::InstanceId;

macro_rules! calls {
    ($($(#[$doc:meta])* $call:ident $operation:literal $(=> $verb:literal)?;)*) => {
        /// A call, as the runtime counts it and as faults choose it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Call { $( $(#[$doc])* $call, )* }

        impl Call {
            /// Every call.
            pub fn all() -> BTreeSet<Self> {
                [$( Self::$call, )*].into()
            }

            /// The operation, as errors name it.
            pub fn operation(self) -> &'static str {
                match self { $( Self::$call => $operation, )* }
            }

            /// The verb of [`Capabilities`](runtide_core::Capabilities) that it needs.
            pub fn verb(self) -> Option<&'static str> {
                match self { $( Self::$call => calls!(@verb $($verb)?), )* }
            }
        }
    };
    (@verb) => { None };
    (@verb $verb:literal) => { Some($verb) };
}

calls! {
    /// Probe and negotiate.
    Connect "memory.connect";
    /// List the instances.
    List "memory.list";
    /// Inspect some instances.
    Inspect "memory.inspect";
    /// The event stream.
    Events "memory.events";
    /// Start an instance.
    Start "memory.start" => "lifecycle_start";
    /// Stop an instance.
    Stop "memory.stop" => "lifecycle_stop";
    /// Send a signal.
    Kill "memory.kill" => "lifecycle_kill";
    /// Stop and start.
    Restart "memory.restart" => "lifecycle_restart";
    /// Freeze.
    Pause "memory.pause" => "lifecycle_pause";
    /// Thaw.
    Unpause "memory.unpause" => "lifecycle_pause";
    /// Wait for the end of a run.
    Wait "memory.wait" => "lifecycle_wait";
    /// Give an instance another name.
    Rename "memory.rename" => "lifecycle_rename";
    /// Remove an instance.
    Remove "memory.remove" => "lifecycle_remove";
    /// Create an instance.
    Create "memory.create" => "provision_create";
    /// Read output.
    Logs "memory.logs" => "logs_read";
    /// Run a process inside.
    Exec "memory.exec" => "exec_run";
    /// Attach to the main process.
    Attach "memory.attach" => "exec_attach";
    /// Resize a terminal.
    Resize "memory.resize" => "exec_resize";
    /// List, inspect, tag, remove and prune images.
    Images "memory.images" => "images_manage";
    /// Pull an image.
    Pull "memory.pull" => "images_pull";
    /// Import an image.
    Import "memory.import" => "images_import";
    /// Save images.
    Save "memory.save" => "images_save";
    /// Build an image.
    Build "memory.build" => "images_build";
    /// Create, list and remove networks.
    Networks "memory.networks" => "networks_manage";
    /// Connect and disconnect instances.
    Links "memory.links" => "networks_connect";
    /// Create, list and remove volumes.
    Volumes "memory.volumes" => "volumes_manage";
    /// Export and import a volume's contents.
    Transfer "memory.transfer" => "volumes_transfer";
    /// Snapshots of instances.
    Snapshots "memory.snapshots" => "snapshots_manage";
    /// Resource usage.
    Stats "memory.stats" => "stats_read";
}

/// The present faults. The default is a healthy runtime.
///
/// ```
/// use runtide_memory::{Call, MemoryRuntime};
///
/// let runtime = MemoryRuntime::new();
/// runtime.faults(|faults| faults.deny.insert(Call::List));
/// runtime.heal();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own; all combinations make sense")]
pub struct Faults {
    /// Every connection is refused with `Unavailable`.
    pub refuse: bool,
    /// These calls are `PermissionDenied`.
    pub deny: BTreeSet<Call>,
    /// These calls are accepted and then hang, before they have any effect, until this is cleared.
    pub stall: BTreeSet<Call>,
    /// These calls have their effect, and the answer does not come until this is cleared.
    pub mute: BTreeSet<Call>,
    /// These calls take this long: half of it before their effect (or answer), half of it after.
    pub slow: BTreeMap<Call, Duration>,
    /// Event streams end cleanly as soon as they are open.
    pub close_at_once: bool,
    /// Event streams that open now are dead from the start: they stay open and deliver nothing.
    pub dead_streams: bool,
    /// Listings end after this number of items, and report that they are cut.
    pub truncate_list: Option<usize>,
    /// These instances cannot be decoded, in a listing or alone.
    pub bad_items: BTreeSet<InstanceId>,
    /// A lie: listings and inspections leave these instances out as if they did not exist.
    pub hide: BTreeSet<InstanceId>,
    /// Events cannot be decoded.
    pub garble: Option<Garble>,
    /// Each event is reported twice.
    pub duplicate: bool,
    /// Neighbouring events of different instances are swapped.
    pub reorder: bool,
    /// Delay of events behind the answers that show their facts.
    pub delay: Option<Duration>,
    /// A lie: changes are not reported, and a resumed stream shows no hole.
    pub swallow: bool,
}

/// Corruption of an event's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Garble {
    /// The instance's id can still be read.
    Body,
    /// No part of the event can be read.
    Whole,
}

/// One attempt to reach the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dial {
    /// Time since the runtime was made, by tokio's clock.
    pub at: Duration,
    /// The call.
    pub call: Call,
    /// `true` if it was refused or denied.
    pub refused: bool,
}

impl Dial {
    pub(crate) fn new(at: Duration, call: Call, refused: bool) -> Self {
        Self { at, call, refused }
    }
}
