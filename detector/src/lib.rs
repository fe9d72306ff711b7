//! fail2xdp: fail2ban's job, done at line rate.
//!
//! The rooms, in the order a log line meets them.
pub mod cli;
pub mod config; // text becomes checked settings and a list of problems; opens no file
pub mod config_tree; // the texts it is made from: a directory, or the tree inside the binary
pub mod control; // the socket: requests in, answers out
pub mod enforce; // bans become entries in the XDP maps
pub mod engine; // findings become bans, given `now`; nothing in here does I/O
pub mod source; // bytes from files and journals become lines, and matched lines findings // one file a command
