//! A port in the text of an address.

/// Reads a port, whose number has digits alone.
pub(crate) fn port_of(text: &str) -> Result<u16, String> {
    let number = text.parse::<u16>().ok().filter(|number| *number != 0 && !text.starts_with('+'));
    number.ok_or_else(|| "the port is not a number from 1 to 65535".to_owned())
}
