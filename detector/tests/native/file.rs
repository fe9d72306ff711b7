//! `file[…]`: one line of JSON an event.
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, slice};

use fail2xdp::action::wire::Kind;
use serde_json::{Value, json};

use super::server::{ban, delivered, host, native, task, undelivered, with};

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn each_event_is_a_line_with_the_wires_names() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("bans.json");
    let action = native("file", &[("path", file.to_str().expect("text"))]);
    let odd = with(ban(8, "203.0.113.9"), |ticket| {
        ticket.ip = Some("203.0.113.10".into());
        ticket.matches = vec!["quote \" newline \n and \u{0}".into()];
        ticket.fields = [("user".into(), "o'root".into())].into();
    });
    delivered(&action, &[task(7, Kind::Start), odd]);
    let again = with(ban(9, "192.0.2.1"), |ticket| ticket.restored = true);
    delivered(&action, &[again, task(10, Kind::Unban)]);
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    // Whatever umask the test has, others may never read it.
    assert_eq!(mode & 0o137, 0, "{mode:o}");
    let lines = lines(&file);
    assert_eq!(
        lines[0],
        json!({ "event": "start", "seq": 7, "jail": "sshd", "action": "tell", "host": host(), "at": 1_790_000_001.5 })
    );
    assert_eq!(
        lines[1],
        json!({
            "event": "ban", "seq": 8, "jail": "sshd", "action": "tell", "host": host(), "at": 1_790_000_001.5,
            "id": "203.0.113.9", "ip": "203.0.113.10", "failures": 5, "time": 1_790_000_000.0, "ban_time": 600,
            "ban_count": 1, "restored": false, "matches": ["quote \" newline \n and \u{0}"],
            "fields": { "user": "o'root" },
        })
    );
    assert_eq!(
        (lines.len(), &lines[2]["event"]),
        (3, &json!("unban")),
        "restored bans are not told"
    );
}

#[test]
fn what_attackers_write_is_bounded() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("bans.json");
    let action = native("file", &[("path", file.to_str().expect("text"))]);
    let long = with(ban(1, "203.0.113.9"), |ticket| {
        ticket.matches = vec!["é".repeat(1 << 20); 1_000];
        let fields = (0..1_000).map(|at| (format!("f{at}"), "x".repeat(1 << 16)));
        ticket.fields = fields.collect();
    });
    delivered(&action, &[long]);
    let length = fs::metadata(&file).expect("a file").len();
    assert!(length < 1 << 20, "{length} bytes");
    assert_eq!(lines(&file)[0]["matches_left_out"], json!(900));
}

#[test]
fn a_rotated_file_is_left_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    let (file, old) = (folder.path().join("bans.json"), folder.path().join("bans.json.1"));
    let action = native("file", &[("path", file.to_str().expect("text")), ("on", "ban")]);
    delivered(&action, &[ban(1, "192.0.2.1")]);
    fs::rename(&file, &old).expect("a rotation");
    delivered(&action, &[ban(2, "192.0.2.2"), task(3, Kind::Unban)]);
    assert_eq!((lines(&old).len(), lines(&file).len()), (1, 1), "`on = ban` leaves the rest out");
}

/// A file system of 64 KiB, gone with the test.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Small {
        let folder = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(folder.path());
        assert!(
            mount.status().expect("mount").success(),
            "this test mounts a tmpfs: run it as root"
        );
        Small(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_no_half_line_and_is_tried_again() {
    let small = Small::mount();
    let (file, ballast) = (small.0.path().join("bans.json"), small.0.path().join("ballast"));
    let action = native("file", &[("path", file.to_str().expect("text"))]);
    delivered(&action, &[ban(1, "192.0.2.1")]);
    // Less than a page is left: a line of several is cut in its middle.
    fs::write(&ballast, vec![0; 52 << 10]).expect("room");
    let long = with(ban(2, "192.0.2.2"), |ticket| ticket.matches = vec!["x".repeat(4000); 4]);
    for _ in 0..2 {
        let fault = undelivered(&action, slice::from_ref(&long));
        assert!(!fault.hopeless && fault.why.contains("bans.json"), "{fault:?}");
        assert_eq!(lines(&file).len(), 1, "no half line");
    }
    fs::remove_file(&ballast).expect("a file");
    delivered(&action, &[long]);
    let seqs: Vec<Value> = lines(&file).into_iter().map(|line| line["seq"].clone()).collect();
    assert_eq!(seqs, [json!(1), json!(2)]);
}

#[test]
fn a_directory_that_is_missing_may_come() {
    let action = native("file", &[("path", "/nonexistent/bans.json")]);
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert!(!fault.hopeless && fault.why.contains("No such file"), "{fault:?}");
}
