//! Enforcement.
mod clock;
mod fault;
mod interfaces;
#[cfg(test)]
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod link;
mod netlink;
mod pins;
mod protect;
mod sessions;
mod sys;
pub mod tables; // bans become entries of the maps
mod watch;
