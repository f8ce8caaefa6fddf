#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pegel_proto::fuzzing::codec_decode(bytes));
