//! libFuzzer's way in to [`fuzz::shown`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::shown(data));
