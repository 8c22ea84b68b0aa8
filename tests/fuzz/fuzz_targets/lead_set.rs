//! libFuzzer's way in to [`fuzz::lead_set`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::lead_set(data));
