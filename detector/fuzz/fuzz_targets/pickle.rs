#![no_main]
#[path = "../targets.rs"]
mod targets;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| targets::pickle(data));
