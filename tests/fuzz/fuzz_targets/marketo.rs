//! libFuzzer's way in to [`fuzz::marketo`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::marketo(data));
