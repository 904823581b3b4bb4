#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| uc_cluster_state::proof::fuzzing::datagram(bytes));
