//! Searching the output for a text.

use runtide_core::{
    InstanceId, Result, RuntimeBackend, RuntimeBackendExt,
    manager::{LogOptions, LogSource},
};

/// Returns `true` at the first line that contains the text, `false` at the end of the output.
pub(super) async fn contains(backend: &dyn RuntimeBackend, id: &InstanceId, text: &str) -> Result<bool> {
    let logs = backend.logs().ok_or_else(|| backend.unsupported("logs_follow"))?;
    let mut stream = logs.logs(id, LogOptions::default().with_follow()).await?;
    let (mut out, mut err) = (Window::new(text), Window::new(text));
    while let Some(line) = stream.next().await {
        let line = line?;
        let window = if line.source == LogSource::Stderr { &mut err } else { &mut out };
        if window.push(&line.bytes) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The last bytes of one output, enough to find a text that is split between two chunks.
struct Window<'a> {
    text: &'a [u8],
    tail: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), tail: Vec::new() }
    }

    /// Adds a chunk; `true` if the text is found. The text has no newline, so a match lies in one line.
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        let found = self.tail.windows(self.text.len()).any(|window| window == self.text);
        let keep = self.text.len().saturating_sub(1);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn a_text_that_is_cut_in_two_is_found_and_a_cut_line_is_not_joined() {
        let mut window = Window::new("ready");
        assert!(!window.push(b"not yet rea"));
        assert!(window.push(b"dy to serve"));
        let mut window = Window::new("ready");
        assert!(!window.push(b"rea\n") && !window.push(b"dy\n"));
        assert!(window.tail.len() < 5);
    }
}
