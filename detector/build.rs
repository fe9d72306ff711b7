//! Finds the kernel object that the library embeds.
use std::{env, path::PathBuf, process::ExitCode};

/// Where the object is looked for before the workspace's own.
const OVERRIDE: &str = "FAIL2XDP_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    // The shipped configuration is embedded, too: a file that is added would go unnoticed.
    println!("cargo::rerun-if-changed=../config");
    println!("cargo::rerun-if-changed=build.rs");
    let plain = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf/fail2xdp.o"),
    };
    // The second object logs: `fail2xdp-verbose.o` beside `fail2xdp.o`.
    let mut name = plain.file_stem().unwrap_or_default().to_os_string();
    name.push("-verbose.o");
    let verbose = plain.with_file_name(name);
    for (variable, path) in [("FAIL2XDP_OBJECT_PLAIN", plain), ("FAIL2XDP_OBJECT_VERBOSE", verbose)]
    {
        println!("cargo::rerun-if-changed={}", path.display());
        match path.canonicalize() {
            Ok(path) => println!("cargo::rustc-env={variable}={}", path.display()),
            Err(error) => {
                println!(
                    "cargo::error=no kernel object at `{}` ({error}): run `cargo xtask build`",
                    path.display()
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
