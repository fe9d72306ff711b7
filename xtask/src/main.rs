//! `cargo xtask VERB`: everything that needs more than one cargo line. One file for each verb.

mod build;
mod demo;
mod elf;
mod host;
mod limit;
mod lint;
mod run;
mod setup;
mod sh;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

/// Sets up, builds, runs, shows, tests and checks fail2xdp
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
    Test(test::Args),
    Lint(lint::Args),
    Demo(demo::Args),
    Limit(limit::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(args) => setup::verb(&args),
        Verb::Build(args) => build::verb(&args),
        Verb::Run(args) => run::verb(&args),
        Verb::Test(args) => test::verb(&args),
        Verb::Lint(args) => lint::verb(&args),
        Verb::Demo(args) => demo::verb(&args),
        Verb::Limit(args) => return limit::verb(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
