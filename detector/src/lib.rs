//! fail2xdp: fail2ban's job, done at line rate.
//!
//! The rooms, in the order a log line meets them.
pub mod clock; // the only reading of clocks
pub mod config; // text becomes checked settings and a list of problems; opens no file
pub mod source; // bytes from files and journals become lines, and matched lines findings
pub mod engine; // findings become bans, given `now`; nothing in here does I/O
pub mod enforce; // bans become entries in the XDP maps
pub mod control; // the socket: requests in, answers out
pub mod cli; // one file a command
