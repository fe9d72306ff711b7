//! The program and its maps, run by the kernel itself (`BPF_PROG_TEST_RUN`): no interface, no traffic.
//! Needs root (or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON) and fails without.
mod crash;
mod frame;
mod lab;
mod limits;
mod model;
mod object;
mod packets;
mod property;
mod race;
mod random;
mod time;
