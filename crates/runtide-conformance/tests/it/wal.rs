//! The laws of the log, on the log; and as much of it as the book says.

use runtide_conformance::{
    Kept,
    wal::{RealLog, WalLaw},
};

const BOOK: &str = include_str!("../../../../docs/guarantees.md");

runtide_conformance::wal_suite!(RealLog, as_much_as_the_book_says);

/// The law's row in the book ends with at least how much is looked at.
fn as_much_as_the_book_says(law: WalLaw, kept: &Kept) {
    let looked = kept.looked.expect("it counts");
    let row = BOOK.lines().find_map(|line| line.strip_prefix(&format!("| {law} |"))).expect("each law is in the book");
    let cell = row.trim_end_matches(" |").rsplit(" | ").next().expect("a row has cells");
    let (number, what) = cell.split_once(' ').expect("a number, and of what");
    let number: u64 = number.replace(',', "").parse().expect("a number");
    assert_eq!(looked.what, what, "{law}");
    assert!(looked.count >= number, "{law}: {looked}, and the book says {number}");
}
