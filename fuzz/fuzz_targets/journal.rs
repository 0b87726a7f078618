//! Lines as the records of a journal of events, and of operations.
#![no_main]

libfuzzer_sys::fuzz_target!(|lines: &[u8]| runtide_fuzz::journal(lines));
