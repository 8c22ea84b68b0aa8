//! libFuzzer's way in to [`fuzz::vendor_token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::vendor_token(data));
