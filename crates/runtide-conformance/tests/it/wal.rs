//! The laws of the log, on the log; each checks as much as `docs/guarantees.md` states.

use runtide_conformance::{
    Kept,
    wal::{RealLog, WalLaw},
};

const BOOK: &str = include_str!("../../../../docs/guarantees.md");

runtide_conformance::wal_suite!(RealLog, as_much_as_the_book_says);

/// Asserts that the law checked at least the amount in its row of the book.
fn as_much_as_the_book_says(law: WalLaw, kept: &Kept) {
    let checked = kept.looked.expect("it counts");
    let row = BOOK.lines().find_map(|line| line.strip_prefix(&format!("| {law} |"))).expect("each law is in the book");
    let cell = row.trim_end_matches(" |").rsplit(" | ").next().expect("a row has cells");
    let (number, what) = cell.split_once(' ').expect("a number, and of what");
    let number: u64 = number.replace(',', "").parse().expect("a number");
    assert_eq!(checked.what, what, "{law}");
    assert!(checked.count >= number, "{law}: {checked}, and the book has {number}");
}
