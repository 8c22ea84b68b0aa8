//! libFuzzer's way in to [`fuzz::compressed`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::compressed(data));
