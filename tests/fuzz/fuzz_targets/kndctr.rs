//! libFuzzer's way in to [`fuzz::kndctr`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::kndctr(data));
