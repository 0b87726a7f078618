//! A sound log of several segments, to whose files things happened.
#![no_main]

libfuzzer_sys::fuzz_target!(|changes: Vec<(u8, u8, u16, u16, u16)>| runtide_fuzz::segments(&changes));
