//! [`follow`]: a process elsewhere, with the input and the outputs of this one.

use std::io::{self, Read, Write};

use runtide_core::{
    ExitCause,
    manager::{ByteWriter, ExecSession, LogLine, LogSource, TtySize},
};
use tokio::{io::AsyncWriteExt, sync::mpsc};

use crate::{Stop, Terminal};

/// Passes everything on, in both directions, to the end of the process.
///
/// # Errors
/// `Exit` with the process's code, or 128 and the number of its signal; `Refused` where its end is not known.
pub async fn follow(session: ExecSession, mut terminal: Option<Terminal>) -> Result<(), Stop> {
    let ExecSession { stdin, mut output, control } = session;
    if let Some(stdin) = stdin {
        tokio::spawn(feed(stdin));
    }
    loop {
        tokio::select! {
            line = output.next() => match line {
                Some(line) => put(&line?)?,
                None => break,
            },
            size = resized(terminal.as_mut()) => if let Some(size) = size {
                // It may end at this very moment, which its output shows.
                let _ = control.resize(size).await;
            },
        }
    }
    drop(terminal);
    let exit = control.wait().await?;
    match exit.map(|exit| exit.end) {
        Some(ExitCause::Code(0)) => Ok(()),
        Some(ExitCause::Code(code)) => Err(Stop::Exit(u8::try_from(code).unwrap_or(u8::MAX))),
        Some(ExitCause::Signal(signal)) => Err(Stop::Exit(128_u8.saturating_add(signal.number()))),
        _ => Err(Stop::refused("how the command ended is not known")),
    }
}

async fn resized(terminal: Option<&mut Terminal>) -> Option<TtySize> {
    match terminal {
        Some(terminal) => terminal.resized().await,
        None => std::future::pending().await,
    }
}

/// Writes the bytes unchanged and flushes: the command may draw on the terminal.
fn put(line: &LogLine) -> io::Result<()> {
    let mut out: Box<dyn Write> = match line.source {
        LogSource::Stderr => Box::new(io::stderr().lock()),
        _ => Box::new(io::stdout().lock()),
    };
    out.write_all(&line.bytes)?;
    out.flush()
}

/// Passes stdin on, to its end. A thread reads it: a read of tokio's own would hold the end of the program back until the next key.
async fn feed(mut stdin: ByteWriter) {
    let (keys, mut read) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut chunk = vec![0; 32 << 10];
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut chunk) {
            let chunk = chunk.get(..count).unwrap_or_default().to_vec();
            if keys.blocking_send(chunk).is_err() {
                return;
            }
        }
    });
    while let Some(chunk) = read.recv().await {
        // A command that has ended, or closed its input, takes no more.
        if stdin.write_all(&chunk).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}
