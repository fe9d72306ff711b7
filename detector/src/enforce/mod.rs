//! Bans become entries in the XDP maps; program, maps and links outlive the daemon.
//!
//! [`Enforcer`] is the public face. One task drives it: [`Enforcer::ban`] and [`Enforcer::unban`] when they are decided,
//! [`Enforcer::maintain`] when [`Enforcer::next_due`] has come, [`Enforcer::link_changed`] with the news of [`watch`].
//!
//! ```text
//! none --start--> new set of maps -> program attached, all pinned
//! daemon gone     the kernel goes on: bans drop packets and end by themselves
//! start again     pinned maps compared and adopted, program swapped in the links
//!                 (of another layout: new maps filled first, then swapped)
//! detach          links, then program, then maps are removed
//! ```
mod attachments;
mod btf;
mod clock;
mod fault;
mod growth;
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
