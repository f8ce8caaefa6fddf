#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pegel_agent::source::log::syslog::fuzzing::syslog_stream(bytes));
