//! The macro that makes a test of each law of the log.

/// One test per law of the log, named after it: `w1_durable` to `w11_hostile`.
///
/// `$log` is a [`LogHarness`](crate::wal::LogHarness). Each test prints what it looked at; `$and_then`, if given, is called with the
/// law and what was looked at, and may ask for more.
///
/// ```
/// runtide_conformance::wal_suite!(runtide_conformance::wal::RealLog);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! wal_suite {
    ($log:expr $(,)?) => {
        $crate::wal_suite!($log, |_, _| {});
    };
    ($log:expr, $and_then:expr $(,)?) => {
        $crate::__wal_tests! { $log, $and_then,
            W1 w1_durable, W2 w2_torn_tail, W3 w3_corruption, W4 w4_sequence, W5 w5_one_writer, W6 w6_failed_sync,
            W7 w7_chain, W8 w8_retention, W9 w9_cost, W10 w10_bounded, W11 w11_hostile
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __wal_tests {
    ($log:expr, $and_then:expr, $($law:ident $name:ident),*) => { $(
        #[test]
        fn $name() {
            let law = $crate::wal::WalLaw::$law;
            let and_then: fn($crate::wal::WalLaw, $crate::wal::Looked) = $and_then;
            and_then(law, $crate::wal::test(law, &$log));
        }
    )* };
}
