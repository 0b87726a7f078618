//! Compaction: drops the history before a revision.

use runtide_core::{Result, store::Revision};

use crate::{call::Call, error::Recovery, shared::Shared, view::signed, wire::CompactionRequest};

impl Shared {
    pub(crate) async fn compact(&self, revision: Revision) -> Result<()> {
        let mut call = Call::new("etcd.compact", self.request_timeout);
        let request = CompactionRequest { revision: signed(revision.0), physical: true };
        call.writes = true;
        let done =
            self.client.with_retries(&mut call, |connection| async move { connection.compact(&request).await }).await;
        match done {
            Ok(_) => Ok(()),
            // By this call, or by an earlier one. A member that is still at it answers once it is through.
            Err(fault) if fault.recovery == Recovery::Compacted => Ok(()),
            Err(fault) => Err(fault.error),
        }
    }
}
