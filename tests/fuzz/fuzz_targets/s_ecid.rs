//! libFuzzer's way in to [`fuzz::s_ecid`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::s_ecid(data));
