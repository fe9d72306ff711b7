//! Enforcement.
mod clock;
mod fault;
mod interfaces;
mod link;
mod netlink;
mod pins;
mod protect;
mod sessions;
mod sys;
mod watch;
#[cfg(test)]
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod tables {
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct TableError;
}
