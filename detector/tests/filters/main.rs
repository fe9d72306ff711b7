//! The shipped filters, line by line: whom each must count, and whom nobody can make it count.
mod forged;
mod samples;
mod services;
mod sshd;
