//! Names that become a part of a path, and hostile text in messages.

/// Both engines' rule for the names of containers, networks and volumes; every id obeys it too. No such name changes the path or the query
/// that it stands in.
///
/// ```
/// assert!(runtide_engine::is_name("web-1.x_y") && !runtide_engine::is_name("../x") && !runtide_engine::is_name("-a"));
/// ```
pub fn is_name(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// A name that a resolver can be asked for: no more is checked, since the engines' own resolvers answer for any.
pub fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// One word of printable characters, as the name of a driver.
pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Hostile text for a message: escaped, and at most 80 characters.
pub fn shown(text: &str) -> String {
    text.escape_debug().take(80).collect()
}
