//! libFuzzer's way in to [`fuzz::mkto_trk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::mkto_trk(data));
