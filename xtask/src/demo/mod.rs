//! `cargo xtask demo`: one attack and its end, live, between machines that are only namespaces.

mod actors;
mod stage;
mod watch;

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::setup::machine::is_root;
use crate::setup::plan::Purpose;
use crate::{build, limit, setup, sh};
use actors::{Attacker, Bystander};
use stage::{Place, Stage};
use watch::View;

/// Shows an attack and its end, live, in network namespaces of its own
///
/// A server with a real sshd and fail2xdp on its interface, an attacker who guesses passwords
/// and then floods, a bystander who only wants the server's web page. Nothing of this machine's
/// own network is touched; it ends by itself and cleans up, also after Ctrl-C. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// End it after so many seconds at the latest
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=600))]
    seconds: u64,
}

/// How long a ban lasts in the demo, in seconds.
const BANTIME: u64 = 10;
/// How many failures lead to a ban.
const MAXRETRY: u64 = 3;
/// How often the show looks at its actors.
const TICK: Duration = Duration::from_millis(100);

/// The verb.
pub fn verb(args: &Args) -> Result<()> {
    ensure!(
        is_root(),
        "network namespaces take root: run `sudo -E env PATH=\"$PATH\" cargo xtask demo`"
    );
    let (machine, plan) = setup::ensure(Purpose::Demo, None)?;
    build::object(&machine, plan.route)?;
    let binary = build::daemon(true)?;

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    limit::adopt_orphans()?;
    let mut show = Show {
        start: Instant::now(),
        end: Duration::from_secs(args.seconds),
        interrupted,
        colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let result = show.play(&binary);
    let left = limit::end_descendants();
    // Ctrl-C from a terminal reaches the command that we were just waiting for as well.
    ensure!(!show.interrupted.load(Ordering::Relaxed), "interrupted; all is cleaned up");
    result?;
    ensure!(left.is_empty(), "the demo left processes running: {}", left.join(", "));
    Ok(())
}

struct Show {
    start: Instant,
    end: Duration,
    interrupted: Arc<AtomicBool>,
    colours: bool,
}

#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Faint,
    Bad,
    Good,
}

impl Show {
    fn play(&mut self, binary: &std::path::Path) -> Result<()> {
        let mut stage = Stage::set()?;
        self.start = Instant::now();
        self.say(Tone::Plain, "three machines on one switch, none of them this one:");
        for place in [Place::Server, Place::Attacker, Place::Bystander] {
            let [v4, v6] = place.addresses();
            self.say(Tone::Plain, &format!("  {:<9} {v4}, {v6}", place.name()));
        }
        stage.start_server()?;
        actors::serve_pages(&stage)?;
        stage.start_daemon(binary, BANTIME, MAXRETRY)?;
        self.wait_until_ready(&stage)?;
        let mut bystander = Bystander::start(&stage)?;
        let mut log = File::open(stage.auth_log()).context("sshd's log is missing")?;
        // What sshd said while it started is no part of the attack.
        log.read_to_string(&mut String::new())?;
        for target in Place::Server.addresses() {
            self.attack(&stage, target, &bystander, &mut log)?;
        }
        let tally = bystander.stop();
        self.say(
            Tone::Good,
            &format!("the bystander asked for {} pages and got {}", tally.asked, tally.got),
        );
        ensure!(tally.asked > 0 && tally.asked == tally.got, "the bystander was not served always");
        stage.stop_daemon()?;
        self.say(Tone::Plain, "the daemon stopped and took its program off; all is cleaned up");
        Ok(())
    }

    fn wait_until_ready(&mut self, stage: &Stage) -> Result<()> {
        loop {
            self.check_time("the daemon does not become ready")?;
            let lines = stage.daemon_says(TICK)?;
            for line in &lines {
                self.say(Tone::Faint, &format!("daemon:   {line}"));
            }
            if lines.iter().any(|line| line.contains("ready")) {
                return Ok(());
            }
        }
    }

    /// One attack over one family of addresses, from the first guess until the ban has ended and
    /// the attacker connects again.
    fn attack(
        &mut self,
        stage: &Stage,
        target: IpAddr,
        bystander: &Bystander,
        log: &mut File,
    ) -> Result<()> {
        let family = if target.is_ipv4() { "IPv4" } else { "IPv6" };
        self.say(Tone::Plain, &format!("the attacker guesses root's password over {family}"));
        let before = View::of(stage)?;
        let mut attacker = Attacker::guess(stage, target)?;
        let ban = loop {
            self.check_time("the attacker was not banned")?;
            let view = View::of(stage)?;
            self.show_logs(stage, log)?;
            if let Some(ban) = view.bans.into_iter().next() {
                break ban;
            }
        };
        let failures = ban.failures;
        self.say(
            Tone::Bad,
            &format!("BANNED {} after {failures} failures, for {BANTIME} s", ban.prefix),
        );
        attacker.flood();
        self.say(Tone::Plain, "the attacker floods port 22 with new connections");
        let banned_at = Instant::now();
        let mut shown = (Instant::now(), View::of(stage)?.dropped);
        loop {
            self.check_time("the ban did not end")?;
            let view = View::of(stage)?;
            self.show_logs(stage, log)?;
            let seconds = shown.0.elapsed().as_secs_f64();
            if seconds >= 1.0 {
                let rate = view.dropped.saturating_sub(shown.1) as f64 / seconds;
                shown = (Instant::now(), view.dropped);
                let tally = bystander.tally();
                let left = BANTIME.saturating_sub(banned_at.elapsed().as_secs());
                self.say(
                    Tone::Plain,
                    &format!(
                        "dropped {rate:>6.0} packets a second; pages for the bystander: {} of {}; \
                         {left} s left",
                        tally.got, tally.asked
                    ),
                );
            }
            // The flood must not run into the open door: its packets would be new offences.
            if banned_at.elapsed() + Duration::from_millis(1500) > Duration::from_secs(BANTIME) {
                attacker.rest();
            }
            if view.bans.is_empty() {
                break;
            }
        }
        let dropped = View::of(stage)?.dropped.saturating_sub(before.dropped);
        ensure!(dropped > 0, "the ban dropped no packet");
        let seconds = banned_at.elapsed().as_secs_f64();
        self.say(
            Tone::Good,
            &format!("unbanned {} after {seconds:.1} s; {dropped} packets dropped", ban.prefix),
        );
        attacker.connects_again().context("the attacker is still kept out")?;
        self.say(Tone::Good, "the attacker connects again");
        Ok(())
    }

    /// What sshd and the daemon have logged since, the cause before its effect.
    fn show_logs(&self, stage: &Stage, log: &mut File) -> Result<()> {
        let daemon = stage.daemon_says(TICK)?;
        let mut text = String::new();
        log.read_to_string(&mut text)?;
        for line in text.lines().filter(|line| line.contains("Failed password")) {
            self.say(Tone::Faint, &format!("auth.log: {line}"));
        }
        for line in daemon {
            self.say(Tone::Faint, &format!("daemon:   {line}"));
        }
        Ok(())
    }

    /// An error when Ctrl-C was pressed or the time is up.
    fn check_time(&self, otherwise: &str) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if self.start.elapsed() > self.end {
            bail!("{otherwise} within {} s", self.end.as_secs());
        }
        Ok(())
    }

    fn say(&self, tone: Tone, text: &str) {
        let time = self.start.elapsed().as_secs_f64();
        let (on, off) = match tone {
            _ if !self.colours => ("", ""),
            Tone::Plain => ("", ""),
            Tone::Faint => ("\x1b[2m", "\x1b[0m"),
            Tone::Bad => ("\x1b[1;31m", "\x1b[0m"),
            Tone::Good => ("\x1b[32m", "\x1b[0m"),
        };
        println!("{time:6.1} s  {on}{text}{off}");
    }
}

/// `ip`, with words split at blanks.
fn ip(words: &str) -> Result<()> {
    sh::run(Command::new("ip").args(words.split_whitespace()))
}
