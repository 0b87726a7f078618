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

/// Characters of an id that name an object: the engines' commands show no fewer.
pub(crate) const SHORT_ID: usize = 12;

/// `true` if `given` is this id, this name, or twelve or more characters of the id's beginning. Both engines take any beginning of an
/// id that only one object has, so that the name of a removed object may lead to another one.
///
/// ```
/// let (id, name) = ("cafe0f6fd7d1aa00", "web");
/// assert!(runtide_engine::is_named("web", id, name) && runtide_engine::is_named("cafe0f6fd7d1", id, name));
/// assert!(!runtide_engine::is_named("cafe", id, name) && !runtide_engine::is_named("we", id, name));
/// ```
pub fn is_named(given: &str, id: &str, name: &str) -> bool {
    given == id || given == name || (given.len() >= SHORT_ID && id.starts_with(given))
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
