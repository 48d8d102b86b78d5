#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice_http2::properties::conversation(data));
