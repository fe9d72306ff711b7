//! The action runner: a process of its own that tells others of bans. It reads the configuration itself, runs the commands
//! of `action.d` and the native actions, and has no way to change a ban.
//!
//! The daemon numbers what is to be done ([`wire::Task`]), keeps it in its store until the runner says that it is done, and
//! says it again to the next runner: whatever dies, nothing is lost, and some things are done twice.

pub mod native; // what needs no command: mails, web services, files
pub mod wire; // what daemon and runner say to each other
