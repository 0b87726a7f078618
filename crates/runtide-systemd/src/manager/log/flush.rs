//! Makes journald read what was printed before.
//!
//! A unit's output lies in journald's sockets until journald comes to it, also after the unit ended. Who asks for the journal
//! in the meantime finds less than was printed. So journald is asked to catch up:
//!
//! * By its own socket (`io.systemd.Journal.Synchronize`, systemd 246), which answers when all that was queued before is
//!   written. Only root may, and only from where journald sees the caller's process.
//! * Else by the signal SIGRTMIN+1, through the manager. It is done when journald notes the time of it in a file. Another's
//!   signal at the same moment may be taken for ours.
//! * Who may neither has to wait a moment and hope.

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

/// The signal, as glibc counts it.
const SIGRTMIN_1: i32 = 35;

const POLL: Duration = Duration::from_millis(10);

/// For who may not ask: journald is rarely behind by more.
const HOPE: Duration = Duration::from_millis(300);

/// Afterwards the journal has what was printed before.
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

async fn signal(client: &Client, operation: &'static str, noted: PathBuf) -> Result<()> {
    if client.config().scope == Scope::User {
        return Err(client.site(operation).error(ErrorKind::Unsupported, "journald is no unit of this manager"));
    }
    let read = async || tokio::fs::read(&noted).await.ok();
    let before = read().await;
    client.manager(operation, "KillUnit", &("systemd-journald.service", "main", SIGRTMIN_1)).await?;
    while read().await == before {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
