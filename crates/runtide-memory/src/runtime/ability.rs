//! The verbs that this runtime supports, and those that the script takes away.

use std::sync::Arc;

use runtide_core::{
    Capabilities, Error, ErrorKind, Result,
    capabilities::{Support, WatchSupport},
};

use super::{RuntimeOptions, State};
use crate::fault::Call;

/// The verbs of this runtime, by its options.
pub(super) fn capabilities(options: &RuntimeOptions) -> Capabilities {
    let mut all = Capabilities::default();
    for (_, support) in all.verbs_mut() {
        *support = Support::Yes;
    }
    all.watch = if options.history > 0 { WatchSupport::Resumable } else { WatchSupport::Pushed };
    all.images_save = Support::no("of an archive in memory only size and digest are kept");
    all.images_build = Support::no("nothing in memory carries out a Dockerfile");
    all.sidecars_start = Support::no("sidecars are composed over a backend, not by it");
    all.snapshots_memory = Support::no("a simulated process has no memory to keep");
    all
}

impl State {
    pub(crate) fn capabilities(&self) -> Arc<Capabilities> {
        Arc::clone(&self.capabilities)
    }

    /// Fails with `Unsupported` if the verb of this call is not supported.
    pub(super) fn check_support(&self, call: Call) -> Result<()> {
        call.verb().map_or(Ok(()), |verb| self.check_verb(call, verb))
    }

    pub(crate) fn check_verb(&self, call: Call, verb: &'static str) -> Result<()> {
        match self.capabilities.verbs().find(|(name, _)| *name == verb) {
            Some((_, Support::No { reason })) => Err(unsupported(call, verb, reason)),
            _ => Ok(()),
        }
    }

    /// Takes a verb away for this reason, or restores its support. `false` if there is no such verb.
    pub(super) fn set_support(&mut self, verb: &str, reason: Option<String>) -> bool {
        let mut original = capabilities(&self.options);
        let original = original.verbs_mut().find(|(name, _)| *name == verb);
        let all = Arc::make_mut(&mut self.capabilities);
        let found = all.verbs_mut().find(|(name, _)| *name == verb).zip(original);
        found.map(|((_, slot), (_, original))| *slot = reason.map_or_else(|| original.clone(), Support::no)).is_some()
    }
}

pub(crate) fn unsupported(call: Call, feature: &'static str, reason: &str) -> Error {
    Error::new(ErrorKind::Unsupported, call.operation(), format!("{feature} is not supported: {reason}"))
        .with_context("feature", feature)
        .with_context("reason", reason)
}
