//! Logs of sshd and others, for benchmarks.
use fail2xdp::engine::Timestamp;

/// 21 November 2026, 14:00 UTC; the logs end here.
pub const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);

/// Other services of the same host.
pub const NOISE: [&str; 4] = [
    "web systemd[1]: Started Session 4711 of User deploy.",
    "web CRON[{p}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
    "web kernel: [12345.678901] TCP: request_sock_TCP: Possible SYN flooding on port 443. Sending cookies.",
    "web dhclient[812]: DHCPREQUEST for 192.0.2.77 on eth0 to 192.0.2.1 port 67",
];
/// sshd when nobody attacks.
pub const LOGINS: [&str; 4] = [
    "web sshd[{p}]: Accepted publickey for deploy from 198.51.100.{a} port 40022 ssh2: ED25519 SHA256:abcdefgh",
    "web sshd[{p}]: pam_unix(sshd:session): session opened for user deploy(uid=1000) by (uid=0)",
    "web sshd[{p}]: Received disconnect from 198.51.100.{a} port 40022:11: disconnected by user",
    "web sshd[{p}]: Disconnected from user deploy 198.51.100.{a} port 40022",
];
/// sshd under attack.
pub const ATTACK: [&str; 3] = [
    "web sshd[{p}]: Failed password for root from 203.0.113.{a} port 50022 ssh2",
    "web sshd[{p}]: Invalid user admin from 203.0.113.{a} port 50022",
    "web sshd[{p}]: Failed password for invalid user admin from 203.0.113.{a} port 50022 ssh2",
];

/// Lines of the last ten minutes, so many in a hundred of them of the second kind.
pub fn log(often: &[&str], rare: &[&str], percent: usize, count: usize) -> Vec<String> {
    let lines = (0..count).map(|nth| {
        let of = if nth * 61 % 100 < percent { rare } else { often };
        let second = 600 * nth / count;
        let text = of[nth % of.len()]
            .replace("{p}", &(1_000 + nth % 9_000).to_string())
            .replace("{a}", &(nth % 250).to_string());
        format!("Nov 21 13:{:02}:{:02} {text}", 50 + second / 60, second % 60)
    });
    lines.collect()
}
