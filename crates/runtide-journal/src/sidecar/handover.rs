//! A start runs in a separate task: a dropped future interrupts no step, and the objects that were made are removed.

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{sidecars::Sidecars, start, stop};
use crate::blocking::handle;
use runtide_core::{
    Error, ErrorKind, Result,
    manager::{Sidecar, SidecarSpec},
};

const START: &str = "sidecar.start";

/// A started sidecar until the caller takes it; dropped with it, the sidecar is stopped.
struct Handover {
    sidecars: Sidecars,
    sidecar: Option<Sidecar>,
}

impl Drop for Handover {
    fn drop(&mut self) {
        let Some(sidecar) = self.sidecar.take() else { return };
        // The caller is gone. Without a tokio runtime the process is ending, and the operation is complete: the sidecar stays.
        let (sidecars, Ok(runtime)) = (self.sidecars.clone(), handle(START)) else { return };
        runtime.spawn(async move {
            if let Err(error) = stop::stop(&sidecars, &sidecar).await {
                tracing::warn!(
                    backend = %sidecars.backend.id(),
                    error = format_args!("{error:#}"),
                    "the caller gave up, and the sidecar cannot be stopped"
                );
            }
        });
    }
}

pub(super) async fn start(sidecars: &Sidecars, spec: &SidecarSpec) -> Result<Sidecar> {
    let dropped = CancellationToken::new();
    let _signal = dropped.clone().drop_guard();
    let span = tracing::info_span!("runtide.sidecar", backend = %sidecars.backend.id());
    let (sidecars, spec) = (sidecars.clone(), spec.clone());
    let work = async move {
        let sidecar = start::start(&sidecars, &spec, &dropped).await?;
        Ok(Handover { sidecars, sidecar: Some(sidecar) })
    };
    let done = handle(START)?.spawn(work.instrument(span)).await;
    let mut handover: Handover = done.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Cancelled, START, "the tokio runtime is shutting down: recover undoes it"))
    })?;
    handover.sidecar.take().ok_or_else(|| Error::new(ErrorKind::Unexpected, START, "nothing was started"))
}
