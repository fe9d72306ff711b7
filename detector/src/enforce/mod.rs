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
mod watch;
mod tables {
    #[derive(Debug, thiserror::Error)]
    #[error("x")]
    pub struct TableError;
}
