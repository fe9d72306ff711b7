//! Native actions against real servers on loopback.
mod file;
mod mail;
mod presets;
mod server;
mod webhook;
