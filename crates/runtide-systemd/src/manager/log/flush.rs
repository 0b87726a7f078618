//! Makes journald write the output that was printed before the call.
//!
//! A unit's output stays in journald's sockets until journald reads it, even after the unit ended. A reader of the
//! journal finds less than was printed until then. So journald is asked to catch up:
//!
//! * By its own socket (`io.systemd.Journal.Synchronize`, systemd 246), which answers when all that was queued before
//!   is written. Only root may use it, and only from a PID namespace that journald sees.
//! * Else by the signal SIGRTMIN+1, through the manager. It is done when journald writes the time of it to a file, for
//!   whichever client's signal: so it is done twice.
//! * A caller that may do neither waits for a short fixed time.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use runtide_core::{ErrorKind, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{client::Client, config::Scope};

const CALL: &[u8] = b"{\"method\":\"io.systemd.Journal.Synchronize\"}\0";

/// Number of SIGRTMIN+1 in glibc.
const SIGRTMIN_1: i32 = 35;

const POLL: Duration = Duration::from_millis(10);

/// Wait of a caller without permission: journald is rarely behind by more.
const HOPE: Duration = Duration::from_millis(300);

/// Waits until the journal has all output that was printed before the call.
///
/// # Errors
/// `Timeout` if journald does not catch up within the deadline of a call.
pub(super) async fn flush(client: &Client, operation: &'static str, root: &Path) -> Result<()> {
    let deadline = client.config().deadline;
    let site = client.site(operation);
    let flushed = async {
        match synchronize(&root.join("run/systemd/journal/io.systemd.journal")).await {
            Ok(()) => Ok(()),
            Err(why) => {
                tracing::debug!(backend = %client.id(), %why, "journald is not asked by its socket");
                signal(client, operation, root.join("run/systemd/journal/synced")).await
            }
        }
    };
    match tokio::time::timeout(deadline, flushed).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::Cancelled => Err(error),
        Ok(Err(error)) => {
            tracing::debug!(backend = %client.id(), %error, "journald cannot be asked to catch up");
            tokio::time::sleep(HOPE).await;
            Ok(())
        }
        Err(_) => {
            let message = format!("journald did not catch up with what was printed within {deadline:?}");
            Err(site.error(ErrorKind::Timeout, message))
        }
    }
}

async fn synchronize(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(CALL).await?;
    let mut answer = Vec::new();
    let mut chunk = [0; 512];
    while !answer.contains(&0) && answer.len() < 4096 {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    let end = answer.iter().position(|byte| *byte == 0).unwrap_or(answer.len());
    match serde_json::from_slice::<serde_json::Value>(answer.get(..end).unwrap_or_default()) {
        Ok(answer) if answer.get("error").is_none() => Ok(()),
        Ok(answer) => Err(io::Error::other(answer.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Has journald catch up twice: the first time may be one that began, for another client, before the call.
async fn signal(client: &Client, operation: &'static str, noted: PathBuf) -> Result<()> {
    if client.config().scope == Scope::User {
        return Err(client.site(operation).error(ErrorKind::Unsupported, "journald is no unit of this manager"));
    }
    let read = async || tokio::fs::read(&noted).await.ok();
    for _ in 0..2 {
        let before = read().await;
        client.manager(operation, "KillUnit", &("systemd-journald.service", "main", SIGRTMIN_1)).await?;
        while read().await == before {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
