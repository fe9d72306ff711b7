//! What actions mean.
use super::*;

#[track_caller]
fn check(action: &str, expect: &str) {
    check_with(action, [], expect);
}

#[track_caller]
fn check_with<'a>(action: &str, files: impl IntoIterator<Item = (&'a str, &'a str)>, expect: &str) {
    let section = format!("[j]\nenabled = true\naction = {action}\n");
    let mut files: Vec<(&str, &str)> = files.into_iter().collect::<Vec<_>>();
    files.push(("jail.conf", &section));
    assert_eq!(jail("j", files).scope.to_string(), expect, "{action}");
}

#[test]
fn firewall_actions_become_scopes() {
    check("xdp", "tcp");
    check("xdp[port=ssh]", "tcp:22");
    check(
        "xdp[port=\"http,https,8000:8080\", protocol=\"tcp,udp\"]",
        "tcp:80,443,8000-8080+udp:80,443,8000-8080",
    );
    check("xdp[type=allports]", "tcp");
    check("xdp[type=allports, protocol=all]", "all");
    check("iptables-multiport[name=x, port=\"22,2222\", protocol=tcp]", "tcp:22,2222");
    check("iptables-allports[name=x, port=22]", "tcp");
    check("iptables-allports[protocol=all]", "all");
    check("iptables-ipset-proto6-allports[port=22, protocol=udp]", "udp");
    check("nftables[type=allports][port=\"0:65535\", protocol=\"tcp\"]", "tcp");
    check("nftables-multiport[port=22]", "tcp:22");
    check("firewallcmd-ipset[actiontype=<allports>, port=22]", "tcp");
    check("firewallcmd-ipset[port=22]", "tcp:22");
    check("ufw[port=22]", "all");
    check("ufw[application=OpenSSH, port=22]", "tcp:22");
    check("route", "all");
    check("shorewall[port=22]", "all");
    check("hostsdeny", "tcp");
    check("xdp[port=22, protocol=sctp]", "proto-132");
    check(
        "iptables[port=22, name=j-tcp] iptables[port=53, protocol=udp, name=j-udp]",
        "tcp:22+udp:53",
    );
    check("xdp[port=22]\n  sendmail-whois[dest=\"root@localhost\"]", "tcp:22");
}

#[test]
fn parameters_that_a_jail_does_not_give_come_from_the_actions_file() {
    let files = [
        (
            "action.d/iptables.conf",
            "[Definition]\nactionban = x %%\ntype = oneport\n[Init]\nport = ssh\nprotocol = tcp\nblocktype = REJECT --reject-with x\n",
        ),
        (
            "action.d/iptables-allports.conf",
            "[INCLUDES]\nbefore = iptables.conf\n[Definition]\ntype = allports\n",
        ),
    ];
    check_with("iptables[name=x]", files, "tcp:22");
    check_with("iptables-allports[name=x]", files, "tcp");
    check_with("iptables[port=\"<known/port>,2222\"]", files, "tcp:22,2222");
    let local = files.into_iter().chain([("action.d/iptables.local", "[Init]\nport = 25\n")]);
    check_with("iptables", local, "tcp:25");
}

#[test]
fn translated_actions_are_noted_once() {
    let jails = "[a]\nenabled=1\naction=iptables[port=22, blocktype=REJECT]\n[b]\nenabled=1\naction=iptables[port=25]\n[c]\nenabled=1\n";
    let notes = load_with([("jail.conf", jails)]).expect("jails").notes;
    assert_eq!(
        notes,
        [
            "action `iptables` becomes an XDP ban; where it would reject, packets are dropped in silence"
        ]
    );
}

#[test]
fn an_action_that_lets_in_is_never_turned_into_a_ban() {
    for allow in [
        "blocktype=RETURN, returntype=DROP",
        "blocktype=ACCEPT",
        "blocktype=\"allow in\"",
        "blocktype?family=inet6=RETURN",
    ] {
        let section = format!("[j]\nenabled=1\naction = iptables-multiport[port=22, {allow}]\n");
        let loaded = load_with([("jail.conf", section.as_str())]).expect("no jail");
        assert!(loaded.settings.jails.is_empty(), "{allow}");
        assert!(
            loaded.problems[0].what.contains("lets banned addresses in"),
            "{}",
            loaded.problems[0]
        );
    }
}

#[test]
fn ports_nobody_knows_are_left_out_and_told() {
    check("xdp[port=\"22,nosuch\"]", "tcp:22");
    check_problem(
        "action = xdp[port=\"22,nosuch\"]",
        "error /etc/x/jail.conf:3: jail `j`: action `xdp`: port `nosuch` is not known by name; it is left out; write its number, 0 to 65535",
    );
    check_problem("action = xdp[port=\"90:80\"]", "\
error /etc/x/jail.conf:3: jail `j`: action `xdp`: `90:80` is no range of ports; it is left out; write the lower port first, as in `8000:8080`
error /etc/x/jail.conf:3: jail `j`: action `xdp` names no port that is known: the jail does not run; write port numbers, or `0:65535` for all");
    check_problem("action = xdp[protocol=tpc]", "\
error /etc/x/jail.conf:3: jail `j`: action `xdp`: protocol `tpc` is not known; it is left out; write `tcp`, `udp`, `icmp`, `icmpv6`, `all` or a protocol number
error /etc/x/jail.conf:3: jail `j`: action `xdp` names no port that is known: the jail does not run; write port numbers, or `0:65535` for all");
}

#[test]
fn other_actions_are_handed_on_with_their_commands() {
    let jails =
        "[a]\nenabled=1\naction = xdp\n  tell[x=1]\n[c]\nenabled=1\naction=tell\n  own.py\n";
    let tell = "[Definition]\nactionban = tell <x> <ip>\n[Init]\nx = 0\n";
    let files = [("jail.conf", jails), ("action.d/tell.conf", tell), ("action.d/own.py", "")];
    assert_eq!(problems(files), "\
warning /etc/x/jail.conf:7: jail `c`: no action bans anybody: failures are counted and reported, nothing is dropped; add `xdp` to `action`, or set `banaction = xdp`
warning /etc/x/jail.conf:8: action `own.py` is not run by this version (jail `c`); nothing need be done for the bans; what it would have done is missing");
    assert!(jail("c", files).scope.is_nothing());
    let actions = jail("a", files).actions;
    let [ActionSettings { name, place, kind: ActionKind::Commands(properties) }] = &actions[..]
    else {
        panic!("{actions:?}");
    };
    let place = place.as_ref().map(ToString::to_string);
    assert_eq!((name.as_str(), place.as_deref()), ("tell", Some("/etc/x/jail.conf:4")));
    let is = |option: &str, value: &str| {
        properties.iter().any(|(name, text)| (name.as_str(), text.as_str()) == (option, value))
    };
    assert!(is("actionban", "tell 1 <ip>") && is("x", "1") && is("name", "a"), "{properties:?}");
}

#[test]
fn a_timeout_that_is_no_time_is_told() {
    let tell = "[Definition]\nactionban = tell <ip>\n[Init]\ntimeout = soon\n";
    let jails = "[a]\nenabled=1\naction = xdp\n  tell\n";
    assert_eq!(
        problems([("jail.conf", jails), ("action.d/tell.conf", tell)]),
        "error /etc/x/jail.conf:4: jail `a`: action `tell`: `timeout = soon` is no time; 60 is used; write seconds, or a span such as `2m`"
    );
}
