//! Checks of the laws of stores beyond that they hold.

use runtide_conformance::{Kept, store::StoreLaw};

const BOOK: &str = include_str!("../../../../docs/guarantees.md");

/// Asserts that no part was left out, except the disturbances of a remote store.
pub(crate) fn in_full(law: StoreLaw, kept: &Kept) {
    let elsewhere = matches!(law, StoreLaw::S5 | StoreLaw::S6 | StoreLaw::S12);
    let without: &[&str] = if elsewhere { &["disturbances: this store is in the process that uses it"] } else { &[] };
    assert_eq!(kept.without, without, "{law}");
}

/// Asserts the same, and that the law checked at least the amount in its row of the book.
pub(crate) fn as_much_as_the_book_says(law: StoreLaw, kept: &Kept) {
    in_full(law, kept);
    let row = BOOK.lines().find_map(|line| line.strip_prefix(&format!("| {law} |"))).unwrap();
    let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
    let (number, what) = cell.split_once(' ').unwrap();
    let number: u64 = number.replace(',', "").parse().unwrap();
    let checked = kept.looked.unwrap();
    assert_eq!(checked.what, what, "{law}");
    assert!(checked.count >= number, "{law}: {checked}, and the book has {number}");
}
