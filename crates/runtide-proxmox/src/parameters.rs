//! [`Parameters`]: the one encoder for queries and forms.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All bytes but RFC 3986's unreserved ones. Proxmox splits a pair at every `=`, takes `;` for `&` and `+` for a space.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parameters of one call, in the order in which they were added: a query for GET and DELETE, a form for POST and PUT.
///
/// A DELETE with a body is refused with 501, so its parameters go into the query. A key that is not in the API's schema is refused
/// with 400, so an unset field must not be added, not even as an empty text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Adds a text.
    #[must_use]
    pub fn with_text(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.push((key.into(), value.into()));
        self
    }

    /// Adds a flag as `1` or `0`: `true` in a form is refused with 400.
    #[must_use]
    pub fn with_flag(self, key: impl Into<String>, is_set: bool) -> Self {
        self.with_text(key, if is_set { "1" } else { "0" })
    }

    /// Adds a number.
    #[must_use]
    pub fn with_number(self, key: impl Into<String>, number: u64) -> Self {
        self.with_text(key, number.to_string())
    }

    /// Adds `sshkeys`, one public key a line. The API wants this value percent-encoded a second time, inside of the form.
    #[must_use]
    pub fn with_ssh_keys(self, keys: &str) -> Self {
        self.with_text("sshkeys", segment(keys))
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// The text of the query or of the form.
    pub fn encode(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(key, value)| format!("{}={}", segment(key), segment(value))).collect();
        pairs.join("&")
    }
}

/// Shows the keys alone: a value may be a password.
impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parameters").field(&self.keys().collect::<Vec<_>>()).finish()
    }
}

/// A text as one segment of a path, or one half of a pair.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::*;

    /// Decodes as the server does: pairs end at `&` or `;`, a pair keeps two parts of those between its `=`, and `+` is a space.
    fn decode(form: &str) -> Vec<(String, String)> {
        let part = |text: Option<&str>| {
            percent_decode_str(&text.unwrap_or_default().replace('+', " ")).decode_utf8().unwrap().into_owned()
        };
        form.split(['&', ';'])
            .map(|pair| {
                let mut parts = pair.split('=');
                (part(parts.next()), part(parts.next()))
            })
            .collect()
    }

    #[test]
    fn a_value_with_reserved_bytes_survives_the_decoder_of_the_server() {
        for value in ["virtio=AA:BB,bridge=vmbr0", "a;b", "a+b c", "100%", "ü\n", "a&b=c", ""] {
            let form =
                Parameters::default().with_text("net0", value).with_flag("start", true).with_number("memory", 512);
            let expected = [("net0", value), ("start", "1"), ("memory", "512")];
            assert_eq!(decode(&form.encode()), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
    }

    #[test]
    fn ssh_keys_are_encoded_twice() {
        let keys = "ssh-ed25519 AAAA+B/C== me+you@home desk";
        let decoded = decode(&Parameters::default().with_ssh_keys(keys).encode()).remove(0).1;
        assert!(!decoded.contains([' ', '+', '=', '/']), "{decoded}");
        assert_eq!(percent_decode_str(&decoded).decode_utf8().unwrap(), keys);
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!("{:?}", Parameters::default().with_text("password", "hunter2"));
        assert!(shown.contains("password") && !shown.contains("hunter2"), "{shown}");
    }
}
