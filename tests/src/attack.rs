//! The attack that all is about, start to end, wherever the server's messages go.
use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Login, Net, Site, guess, is_dropped, now, reaches, ssh_continues, ssh_opened, unit, until,
};

/// Who takes part in an attack.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// Guesses passwords.
    pub attacker: IpAddr,
    /// Logs in with the right one, all along.
    pub bystander: IpAddr,
    /// Is guessed at, on port 22.
    pub server: IpAddr,
}

/// Guesses against the running sshd until the third guess bans, and follows the ban to its end.
///
/// Expects a running daemon whose jail `sshd` has `maxretry = 3`, and a `bantime` of a few seconds.
#[track_caller]
pub fn is_stopped_and_ends(net: &Net, site: &Site, cast: Cast) {
    let ssh = SocketAddr::new(cast.server, 22);
    let attacker = unit(cast.attacker);
    let visit = || {
        let login = guess(&net.clients, cast.bystander, cast.server, true);
        assert_eq!(login, Login::Accepted, "the bystander's login");
    };
    let logins = visited(visit, || {
        let mut established = ssh_opened(&net.clients, cast.attacker, ssh);
        let mut unsuspected = ssh_opened(&net.clients, cast.bystander, ssh);

        for guesses in 1..3 {
            assert_eq!(guess(&net.clients, cast.attacker, cast.server, false), Login::Denied);
            until(Duration::from_secs(5), &format!("{guesses} failures are counted"), || {
                (site.json(&["status", "sshd"])["total_failed"] == guesses).then_some(())
            });
        }
        assert!(site.bans_of(&attacker).is_empty(), "two guesses are allowed");
        let dropped = site.counted("dropped");
        // Its answer may already be dropped.
        assert_ne!(guess(&net.clients, cast.attacker, cast.server, false), Login::Accepted);
        let ban = site.wait_banned(&attacker);
        assert_eq!(
            (&ban["jail"], &ban["failures"]),
            (&Value::from("sshd"), &Value::from(3)),
            "{ban}"
        );

        assert!(is_dropped(&net.clients, cast.attacker, ssh), "a new connection of the attacker");
        assert!(!ssh_continues(&mut established), "the attacker's established connection");
        assert!(ssh_continues(&mut unsuspected), "the bystander's established connection");
        assert!(site.counted("dropped") >= dropped + 2, "the drops are counted");
        let ban = site.bans_of(&attacker).pop().expect("it still holds");
        assert!(ban["packets"].as_u64() >= Some(2), "and counted for the ban: {ban}");

        ends_on_time(site, &ban);
        assert!(
            reaches(&net.clients, cast.attacker, ssh),
            "after its time the attacker connects again"
        );
        assert_eq!(guess(&net.clients, cast.attacker, cast.server, true), Login::Accepted);
    });
    assert!(logins > 5, "the bystander came {logins} times only");
}

/// Lets a bystander visit again and again until the story has ended; says how often they came.
pub fn visited(visit: impl Fn() + Sync, story: impl FnOnce()) -> u32 {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let mut visits = 0;
            while !over.load(Ordering::Relaxed) {
                visit();
                visits += 1;
            }
            visits
        });
        let end = End(&over);
        story();
        drop(end);
        bystander.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits for a ban's end; it must come within a second after it is due, and not before.
#[track_caller]
pub fn ends_on_time(site: &Site, ban: &Value) {
    let prefix = ban["prefix"].as_str().expect("a ban has a prefix");
    let due = ban["until"].as_i64().expect("a ban that ends has a time");
    site.wait_unbanned(prefix, Duration::from_secs(30));
    let late = now() - due as f64;
    // A look at the bans takes its time, also on the slow side.
    assert!((0.0..2.0).contains(&late), "the ban on `{prefix}` ended {late:.2} s after it was due");
}

/// Lets the bystander's thread end also when a promise is broken, else the scope would wait for ever.
struct End<'flag>(&'flag AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
