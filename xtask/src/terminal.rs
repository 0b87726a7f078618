//! Printing that does not panic after the reader is gone (`cargo xtask … | head`).

use std::fmt;
use std::io::{self, Write};

/// A line on stdout.
macro_rules! say {
    ($($text:tt)*) => { crate::terminal::stdout(format_args!($($text)*)) };
}

/// A line on stderr.
macro_rules! complain {
    ($($text:tt)*) => { crate::terminal::stderr(format_args!($($text)*)) };
}

pub(crate) use {complain, say};

pub(crate) fn stdout(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

pub(crate) fn stderr(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
