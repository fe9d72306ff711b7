//! The action runner: a process of its own that tells others of bans. It reads the configuration itself, runs the commands
//! of `action.d` and the native actions, and has no way to change a ban.
//!
//! The daemon numbers what is to be done ([`wire::Task`]), keeps it in its store until the runner says that it is done, and
//! says it again to the next runner: whatever dies, nothing is lost, and some things are done twice.
//!
//! ```text
//! daemon ─ socket ─ runner ─┬─ worker (one action: its queue, how it stands) ─ commands ─┬─ shell ─ /bin/sh
//!                           └─ worker …                                                  └─ … (a few at once)
//! ```
mod commands;
mod confine;
mod hosts;
pub mod native; // what needs no command: mails, web services, files
mod runner;
mod shell;
mod tags;
mod trial;
mod user;
pub mod wire; // what daemon and runner say to each other
mod worker;

pub use runner::{Door, Options, RunnerError, run};
pub use trial::{Step, Trial, TrialError, Tried};
