//! libFuzzer's way in to [`fuzz::aam_control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::aam_control(data));
