#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pegel_agent::source::log::shape::fuzzing::parsers(bytes));
