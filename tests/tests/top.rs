//! Promise: `top` shows an attack as it happens, takes keys, and leaves the terminal as it was.
use std::{fs, net::SocketAddr, process::Command, time::Duration};

use fail2xdp_tests::{
    ATTACKER, BYSTANDER, Echo, Net, SERVER, Siege, Site, binary, run, tool, until,
};

const SOON: Duration = Duration::from_secs(20);

/// A terminal of its own, which `tmux` keeps; it ends with the value.
struct Terminal {
    name: String,
}

impl Terminal {
    /// Runs a line of shell in a terminal of this size.
    #[track_caller]
    fn start(label: &str, columns: u16, lines: u16, shell: &str) -> Terminal {
        let terminal = Terminal { name: format!("f2x-{}-{label}", std::process::id()) };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &lines,
            "sh",
            "-c",
            shell,
        ]);
        terminal
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> String {
        run("tmux", &[&["-L", &self.name][..], words].concat())
    }

    /// The process that the shell runs now.
    #[track_caller]
    fn child(&self) -> String {
        let pane = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        run("ps", &["-o", "pid=", "--ppid", pane.trim()]).trim().to_owned()
    }

    #[track_caller]
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"][..], keys].concat());
    }

    /// Waits until the screen is as `wanted`; what it shows then.
    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let shown = std::cell::RefCell::new(String::new());
        let found = fail2xdp_tests::within(SOON, || {
            *shown.borrow_mut() = self.screen();
            wanted(&shown.borrow()).then_some(())
        });
        assert!(found.is_some(), "never {what}:\n{}", shown.borrow());
        shown.into_inner()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = Command::new(tool("tmux")).args(["-L", &self.name, "kill-server"]).output();
    }
}

/// Runs `top`, and then says how it left the terminal.
fn shell(site: &Site) -> String {
    let (binary, socket) = (binary().display().to_string(), site.socket().display().to_string());
    let modes = r"stty -a | tr -s '\n' ' ' | grep -o -e '-\?icanon ' -e '-\?echo '";
    format!("{binary} --socket {socket} top; echo ended with $?; {modes}; sleep 60")
}

/// Whether keys are shown and gathered to lines, as before.
fn is_as_before(screen: &str) -> bool {
    ["icanon", "echo"].iter().all(|mode| screen.lines().any(|line| line.trim() == *mode))
}

#[test]
fn it_shows_an_attack_and_takes_keys() {
    let net = Net::new("top");
    let site = Site::new(&net);
    site.jails(&site.jail("guard", "guard.log", "port = 2222\nmaxretry = 2\nbantime = 600"));
    let mut log = site.log("guard.log");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let _daemon = site.start();
    site.wait_following("guard");
    for _ in 0..2 {
        log.wrong_password(ATTACKER.v4);
        log.wrong_password(BYSTANDER.v4);
    }
    site.wait_banned("10.9.0.3");
    let siege = Siege::begin(&net.clients, ATTACKER.v4, echo.address());
    let terminal = Terminal::start("top", 110, 30, &shell(&site));
    let shown = terminal.wait("packets dropped a second", |screen| {
        let rate = screen.split("dropped ").nth(1).and_then(|it| it.split("/s").next());
        rate.and_then(|rate| rate.parse::<u32>().ok()).is_some_and(|rate| rate > 10)
    });
    for text in [
        "s0 (native)  1 jails  2 bans",
        "*busiest banned sources, by packets/s",
        " newest bans",
        "2 failures: ",
        "Failed password for root from 10.9.0.",
        "guard.log",
        "tcp:2222",
    ] {
        assert!(shown.contains(text), "no `{text}`:\n{shown}");
    }
    // Whose packets come is first.
    let first = |screen: &str| {
        let row = screen.lines().position(|line| line.contains("ADDRESS")).expect("a table") + 1;
        screen.lines().nth(row).expect("a row").to_owned()
    };
    assert!(first(&shown).contains("10.9.0.2"), "{shown}");
    terminal.keys(&["s"]);
    terminal.wait_for("by packets ");
    terminal.keys(&["s"]);
    terminal.wait_for("by failures");
    terminal.keys(&["/", "0.3", "Enter"]);
    terminal.wait("only what the filter lets through", |screen| {
        screen.contains("filter `0.3`") && first(screen).contains("10.9.0.3")
    });
    terminal.keys(&["e"]);
    terminal.wait_for("10.9.0.3 is banned");
    terminal.keys(&["x"]);
    terminal.keys(&["u"]);
    terminal.wait_for("lift the ban of 10.9.0.3 by [guard]?");
    terminal.keys(&["n"]);
    terminal.keys(&["u", "y"]);
    terminal.wait_for("1 bans of 10.9.0.3 were lifted");
    until(SOON, "it is lifted", || site.bans_of("10.9.0.3").is_empty().then_some(()));
    terminal.keys(&["Escape"]);
    terminal.wait("everything", |screen| !screen.contains("filter `"));
    terminal.keys(&["Tab"]);
    terminal.wait("the other list", |screen| {
        screen.contains("*newest bans") && screen.contains("10.9.0.2")
    });
    // However small the terminal is.
    terminal.tmux(&["resize-window", "-x", "20", "-y", "4"]);
    terminal.tmux(&["resize-window", "-x", "110", "-y", "30"]);
    terminal.wait_for("*newest bans");
    terminal.keys(&["q"]);
    let left = terminal.wait_for("ended with 0");
    assert!(!left.contains("newest bans"), "{left}");
    terminal.wait("the terminal as it was", is_as_before);
    siege.end();
}

#[test]
fn it_leaves_the_terminal_as_it_was_however_it_ends() {
    let net = Net::new("top-end");
    let site = Site::new(&net);
    site.settings("[Definition]\nmode = none\n");
    let daemon = site.start();
    let terminal = Terminal::start("end", 100, 24, &shell(&site));
    terminal.wait_for("busiest banned sources");
    // A daemon that ends is told, and is no end.
    daemon.terminate();
    terminal.wait_for("Is fail2xdp running?");
    run("kill", &[&terminal.child()]);
    terminal.wait_for("ended with 0");
    terminal.wait("the terminal as it was", is_as_before);

    // A terminal that is gone is an end, too.
    let daemon = site.start();
    let gone = Terminal::start("gone", 100, 24, &shell(&site));
    gone.wait_for("busiest banned sources");
    let process = format!("/proc/{}/cmdline", gone.child());
    drop(gone);
    // Empty once it has ended, though nobody may have waited for it yet: proc_pid_cmdline(5).
    until(SOON, "it ends with its terminal", || {
        fs::read(&process).unwrap_or_default().is_empty().then_some(())
    });
    daemon.terminate();
    let nobody = Terminal::start("none", 100, 24, &shell(&site));
    nobody.wait_for("Is fail2xdp running?");
    nobody.wait_for("ended with 255");
    let refused = site.refused(&["top"]);
    assert!(refused.contains("draws on a terminal, and this is none"), "{refused}");
}
