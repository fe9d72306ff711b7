//! Any bytes as a message of fail2ban's protocol.
#![no_main]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::pickle(data));
