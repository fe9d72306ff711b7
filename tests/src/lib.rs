//! What the black-box tests are made of: namespaces, real servers and attackers, the daemon and its configuration.
//!
//! A test builds a [`Net`], starts servers in it, writes a [`Site`] and starts the daemon on it. Everything
//! it made goes away when these values are dropped, also in a failing test; what a killed test run left
//! behind is removed by the next one. Nothing here touches the machine's own interfaces, users or logs.
//!
//! Helpers panic with what was missing: a test that cannot run has failed, and says what to install.
pub mod attack;
mod clock;
mod daemon;
mod guess;
mod guest;
mod kernel_log;
mod log;
mod net;
mod peer;
mod probe;
mod run;
mod server;
mod site;
mod wait;
mod web;

pub use clock::{now, syslog_ago, syslog_now};
pub use daemon::Daemon;
pub use guess::{Login, flood, guess, hold_session};
pub use guest::{Guest, Kernel};
pub use kernel_log::KernelLog;
pub use log::Log;
pub use net::{ATTACKER, BYSTANDER, FRIEND, Host, Namespace, Net, SERVER, host, sweep, unit};
pub use peer::{
    Fail2ban, Fail2banClient, Told, ToldBan, fail2ban, fail2ban_client_script, fail2ban_config,
    fail2ban_samples,
};
pub use probe::{Besieged, Echo, Siege, connect, is_dropped, reaches, ssh_continues, ssh_opened};
pub use run::{artifact, binary, require, run, tool};
pub use server::{LogTo, Sshd};
pub use site::Site;
pub use wait::{until, within};
pub use web::{Credentials, Web, WebServer, get};
