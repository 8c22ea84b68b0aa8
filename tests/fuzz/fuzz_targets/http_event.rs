//! libFuzzer's way in to [`fuzz::http_event`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::http_event(data));
