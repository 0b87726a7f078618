//! The macros that make a test of each law.

/// One test per law, named after it: `r1_bracket` to `m8_names`.
///
/// `$start` is an async function without arguments that gives a fresh harness, or [`Absent`](crate::Absent) where there is no
/// runtime to test on. `virtual_time` runs each law on tokio's paused clock.
///
/// The crate's documentation has a whole example.
#[macro_export]
macro_rules! runtime_suite {
    ($start:expr $(,)?) => {
        $crate::__runtime_laws! { __law_tests [$crate::Law, Real, |_| $start(), |_, _| {}] }
    };
    (virtual_time, $start:expr $(,)?) => {
        $crate::__runtime_laws! { __law_tests [$crate::Law, Virtual, |_| $start(), |_, _| {}] }
    };
}

/// One test per law of stores, named after it: `s1_read_your_write` to `s12_linearizable`.
///
/// `$start` is an async function without arguments that gives a fresh [`StoreHarness`](crate::store::StoreHarness), or
/// [`Absent`](crate::Absent) where there is no server to test on. Each test prints the extent of its inspection; `$and_then`,
/// if given, is called with the law and that extent, and may require more.
///
/// `by_law` calls `$start` with the law: laws that leave the server as it is can then share it, and run in parallel. Those that expire a
/// position (S6), crash the store (S9) or disturb it (S12) cannot.
///
/// The crate's documentation has a whole example.
#[macro_export]
macro_rules! store_suite {
    (by_law, $start:expr $(,)?) => {
        $crate::__store_laws! { __law_tests [$crate::store::StoreLaw, Real, $start, |_, _| {}] }
    };
    ($start:expr $(,)?) => {
        $crate::store_suite!($start, |_, _| {});
    };
    ($start:expr, $and_then:expr $(,)?) => {
        $crate::__store_laws! { __law_tests [$crate::store::StoreLaw, Real, |_| $start(), $and_then] }
    };
}

/// One test per law of the log, named after it: `w1_durable` to `w11_hostile`.
///
/// `$log` is a [`LogHarness`](crate::wal::LogHarness). Each test prints the extent of its inspection; `$and_then`, if given, is
/// called with the law and that extent, and may require more.
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
        $crate::__wal_laws! {
            __law_tests [
                $crate::wal::WalLaw, None, |_| ::std::future::ready(::std::result::Result::Ok::<_, $crate::Absent>($log)), $and_then
            ]
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __law_tests {
    (
        [$laws:ty, $clock:ident, $start:expr, $and_then:expr]
        $($law:ident $test:ident in $($module:ident)::+, $name:literal $text:literal;)*
    ) => { $(
        #[test]
        fn $test() {
            let and_then: fn($laws, &$crate::Kept) = $and_then;
            if let Some(kept) = $crate::run::test_by_law(<$laws>::$law, $crate::Clock::$clock, $start, |harness| harness) {
                and_then(<$laws>::$law, &kept);
            }
        }
    )* };
}
