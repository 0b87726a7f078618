//! What is asked of the laws of stores beyond that they hold.

use runtide_conformance::{Kept, store::StoreLaw};

const BOOK: &str = include_str!("../../../../docs/guarantees.md");

/// Nothing is left out, but what can happen to a store that is elsewhere.
pub(crate) fn in_full(law: StoreLaw, kept: &Kept) {
    let elsewhere = matches!(law, StoreLaw::S5 | StoreLaw::S6 | StoreLaw::S12);
    let without: &[&str] = if elsewhere { &["disturbances: this store is in the process that uses it"] } else { &[] };
    assert_eq!(kept.without, without, "{law}");
}

/// And the law's row in the book ends with at least how much was looked at.
pub(crate) fn as_much_as_the_book_says(law: StoreLaw, kept: &Kept) {
    in_full(law, kept);
    let row = BOOK.lines().find_map(|line| line.strip_prefix(&format!("| {law} |"))).unwrap();
    let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
    let (number, what) = cell.split_once(' ').unwrap();
    let number: u64 = number.replace(',', "").parse().unwrap();
    let looked = kept.looked.unwrap();
    assert_eq!(looked.what, what, "{law}");
    assert!(looked.count >= number, "{law}: {looked}, and the book says {number}");
}
