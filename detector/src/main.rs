//! The binary: arguments to one command, its result to an exit code.
fn main() {}
