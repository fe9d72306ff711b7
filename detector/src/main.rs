//! The binary: arguments to one command, its result to an exit code.
fn main() -> std::process::ExitCode {
    fail2xdp::cli::main()
}
