//! libFuzzer's way in to [`fuzz::amcv`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::amcv(data));
