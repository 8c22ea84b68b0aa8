//! libFuzzer's way in to [`fuzz::collected`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::collected(data));
