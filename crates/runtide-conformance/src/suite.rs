//! The macro that makes a test of each law.

/// One test per law, named after it: `r1_bracket` to `m8_names`.
///
/// `$start` is an async function without arguments that gives a fresh harness, or [`Absent`](crate::Absent) where there is no
/// runtime to test on. `virtual_time` runs each law on tokio's paused clock.
///
/// The crate's documentation has a whole example.
#[macro_export]
macro_rules! runtime_suite {
    ($start:expr $(,)?) => {
        $crate::__runtime_laws!(Real, $start);
    };
    (virtual_time, $start:expr $(,)?) => {
        $crate::__runtime_laws!(Virtual, $start);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_laws {
    ($clock:ident, $start:expr) => {
        $crate::__runtime_tests! { $clock, $start,
            R1 r1_bracket, R2 r2_contiguous, R3 r3_reliable, R4 r4_ordered, R5 r5_unique, R6 r6_converges, R7 r7_resumable,
            R8 r8_honest_gap, R9 r9_absent_means_removed, R10 r10_dead_link, R11 r11_calm_retry, R12 r12_slow_consumer,
            R13 r13_one_bad_item, R14 r14_partial_list, R15 r15_drop_closes, R16 r16_capabilities, R17 r17_connect,
            R18 r18_errors, R19 r19_incarnation, R20 r20_unknown_events, R21 r21_edges, R22 r22_every_visible_change,
            M1 m1_effect, M2 m2_idempotent, M3 m3_exit, M4 m4_output, M5 m5_cancel, M6 m6_deadlines, M7 m7_undone,
            M8 m8_names
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_tests {
    ($clock:ident, $start:expr, $($law:ident $name:ident),*) => { $(
        #[test]
        fn $name() {
            $crate::run::test($crate::Clock::$clock, $crate::Law::$law, || $start());
        }
    )* };
}
