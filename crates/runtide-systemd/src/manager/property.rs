//! The map of properties that is sent to systemd, and helpers that a spec and systemd's own settings share.

use std::collections::BTreeMap;

use zbus::Variant;

/// Properties by their names on the bus.
pub(super) type Properties = BTreeMap<&'static str, Variant<'static>>;

/// Rounds up to the precision of a unit's file: systemd drops the rest, and reads zero as no limit.
pub(super) fn whole_milliseconds(microseconds: u64) -> u64 {
    if microseconds == u64::MAX { u64::MAX } else { microseconds.div_ceil(1000).saturating_mul(1000) }
}

/// The caller's text, shortened and escaped for a message.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", short.escape_debug())
}
