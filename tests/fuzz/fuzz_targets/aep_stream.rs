//! libFuzzer's way in to [`fuzz::aep_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::aep_stream(data));
