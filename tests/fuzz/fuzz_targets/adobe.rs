//! libFuzzer's way in to [`fuzz::adobe`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::adobe(data));
