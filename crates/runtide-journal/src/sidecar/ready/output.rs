//! Looking for a text in the output.

use runtide_core::{
    InstanceId, Result, RuntimeBackend, RuntimeBackendExt,
    manager::{LogOptions, LogSource},
};

/// Whether a line contains the text, as soon as it does; `false`: the output is over.
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

/// The end of one output, just long enough that a text which is cut in two is found.
struct Window<'a> {
    text: &'a [u8],
    tail: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), tail: Vec::new() }
    }

    /// Whether the text is there. It has no newline in it, so what is found is in one line.
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
