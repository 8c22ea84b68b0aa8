//! libFuzzer's way in to [`fuzz::rows`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rows(data));
