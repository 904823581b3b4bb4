#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| uc_compose::fuzzing::load(bytes));
