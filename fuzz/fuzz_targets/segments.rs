//! A sound log of several segments, with changes to its files.
#![no_main]

libfuzzer_sys::fuzz_target!(|changes: Vec<(u8, u8, u16, u16, u16)>| runtide_fuzz::segments(&changes));
