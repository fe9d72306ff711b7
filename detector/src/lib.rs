//! fail2xdp: fail2ban's job, done at line rate.
//!
//! The rooms, in the order a log line meets them (rustfmt would sort them, were they not apart).

pub mod source; // bytes from files and journals become lines, and matched lines findings

pub mod engine; // findings become bans, given `now`; nothing in here does I/O

pub mod enforce; // bans become entries in the XDP maps

pub mod store; // bans, counts and positions become rows that outlive the daemon

pub mod action; // bans are told to others, in a process of its own

pub mod config; // text becomes checked settings and a list of problems; opens no file

pub mod config_tree; // the texts it is made from: a directory, or the tree inside the binary

pub mod replay; // past logs through the same engine, in their own time

pub mod control; // the socket: requests in, answers out

mod command; // an operator's command, run with a deadline

mod app; // wiring: the only file that knows every room

pub mod cli; // one file a command

pub mod clock; // the only clock read
