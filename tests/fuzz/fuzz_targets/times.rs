//! libFuzzer's way in to [`fuzz::times`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::times(data));
