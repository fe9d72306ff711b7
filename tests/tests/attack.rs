//! Promise: who guesses passwords at a real sshd that logs to a file is dropped, alone and for its time.
use fail2xdp_tests::{
    ATTACKER, BYSTANDER, LogTo, Net, SERVER, Site, Sshd,
    attack::{Cast, is_stopped_and_ends},
};

#[track_caller]
fn check(label: &str, cast: Cast) {
    let net = Net::new(label);
    let site = Site::new(&net);
    let sshd = Sshd::start(&net, &site, LogTo::File);
    site.jails(&format!(
        "[sshd]\nenabled = true\nbackend = pyinotify\nlogpath = {}\nmaxretry = 3\nfindtime = 60\nbantime = 12\n",
        sshd.auth_log().display()
    ));
    let _daemon = site.start();
    let interfaces = &site.json(&["status"])["enforcement"]["interfaces"];
    assert_eq!(interfaces[0]["mode"], "native", "{interfaces}");
    site.wait_following("sshd");
    is_stopped_and_ends(&net, &site, cast);
}

#[test]
fn an_attack_over_ipv4_is_stopped() {
    check("atk4", Cast { attacker: ATTACKER.v4, bystander: BYSTANDER.v4, server: SERVER.v4 });
}

#[test]
fn an_attack_over_ipv6_is_stopped() {
    check("atk6", Cast { attacker: ATTACKER.v6, bystander: BYSTANDER.v6, server: SERVER.v6 });
}
