//! libFuzzer's way in to [`fuzz::stored`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stored(data));
