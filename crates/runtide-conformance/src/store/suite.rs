//! The macro that makes a test of each law of stores.

/// One test per law of stores, named after it: `s1_read_your_write` to `s12_linearizable`.
///
/// `$start` is an async function without arguments that gives a fresh [`StoreHarness`](crate::store::StoreHarness), or
/// [`Absent`](crate::Absent) where there is no server to test on. Each test prints what it looked at; `$and_then`, if given, is
/// called with the law and what was looked at, and may ask for more.
///
/// The crate's documentation has a whole example.
#[macro_export]
macro_rules! store_suite {
    ($start:expr $(,)?) => {
        $crate::store_suite!($start, |_, _| {});
    };
    ($start:expr, $and_then:expr $(,)?) => {
        $crate::__store_tests! { $start, $and_then,
            S1 s1_read_your_write, S2 s2_identity, S3 s3_compare_and_set, S4 s4_order, S5 s5_seamless, S6 s6_expired,
            S7 s7_snapshot, S8 s8_restore, S9 s9_durable, S10 s10_bounded, S11 s11_unchanged, S12 s12_linearizable
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ($start:expr, $and_then:expr, $($law:ident $name:ident),*) => { $(
        #[test]
        fn $name() {
            let law = $crate::store::StoreLaw::$law;
            let and_then: fn($crate::store::StoreLaw, &$crate::store::Kept) = $and_then;
            if let Some(kept) = $crate::store::test(law, || $start()) {
                and_then(law, &kept);
            }
        }
    )* };
}
