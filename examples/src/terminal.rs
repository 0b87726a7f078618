//! [`Terminal`]: the terminal of this process, for a program that runs elsewhere.

use std::{io, num::NonZeroU16};

use runtide_core::manager::TtySize;

/// The terminal that stdin is, in raw mode until it is dropped: every key goes to the program, Ctrl-C too, and the program alone says
/// what is shown.
#[derive(Debug)]
pub struct Terminal {
    #[cfg(unix)]
    before: rustix::termios::Termios,
    #[cfg(unix)]
    resized: tokio::signal::unix::Signal,
}

impl Terminal {
    /// Size of the terminal that stdout or stdin is; `None` where neither is one.
    pub fn size() -> Option<TtySize> {
        let size =
            terminal_size::terminal_size_of(io::stdout()).or_else(|| terminal_size::terminal_size_of(io::stdin()));
        let (columns, rows) = size?;
        Some(TtySize::new(NonZeroU16::new(columns.0)?, NonZeroU16::new(rows.0)?))
    }

    /// Sets raw mode.
    ///
    /// # Errors
    /// That of the terminal; `Unsupported` on this platform if it has no such terminals.
    #[cfg(unix)]
    pub fn raw() -> io::Result<Self> {
        use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
        use tokio::signal::unix::{SignalKind, signal};
        let resized = signal(SignalKind::window_change())?;
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before, resized })
    }

    /// Sets raw mode.
    ///
    /// # Errors
    /// `Unsupported`: this platform has no such terminals.
    #[cfg(not(unix))]
    pub fn raw() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Waits for another size, and returns it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn resized(&mut self) -> Option<TtySize> {
        #[cfg(unix)]
        self.resized.recv().await;
        Self::size()
    }
}

#[cfg(unix)]
impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.before);
    }
}
