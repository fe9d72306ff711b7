//! What a running daemon knows.
use super::Findings;
use crate::{clock, control::wire};

/// A jail that found nothing for so long, in seconds, while attackers are everywhere, may be blind.
const QUIET: i64 = 86_400;
/// Failures after a ban that are no coincidence: open connections may time out two minutes later.
const LINGERING: u64 = 3;
/// Failures of an action, one after the other, that are more than a bad moment.
const FAILING: u64 = 3;

pub(super) fn look(status: &wire::Status, findings: &mut Findings) {
    let wire::Status { version, bans, jails, .. } = status;
    findings.good("daemon", format!("{version} runs: {} jails, {bans} bans", jails.len()));
    enforcement(&status.enforcement, findings);
    for jail in jails {
        for alarm in &jail.alarms {
            findings.fault(
                "sources",
                format!("[{}] {alarm}: see the service's log settings, and `logpath`", jail.name),
            );
        }
        for gave_up in &jail.gave_up {
            let what = format!(
                "[{}] {} was given up on {} lines",
                jail.name, gave_up.pattern, gave_up.lines
            );
            findings.doubt("filters", what, "write it so that it tries less, as without `.*.*`");
        }
    }
    let never_matched = jails.iter().filter(|jail| jail.never_matched);
    let never_matched: Vec<&str> = never_matched.map(|jail| jail.name.as_str()).collect();
    quiet(&never_matched, clock::now().seconds() - status.since, findings);
    lingering(status, findings);
    if let Some(store) = &status.store
        && !matches!(store.state.as_str(), "works" | "opening")
    {
        let what = format!("nothing is stored in `{}`: {}", store.path, store.state);
        findings.doubt("store", what, "bans hold all the same; after a reboot they would be gone");
    }
    actions(status, findings);
    if let Some(why) = &status.log.fault {
        let what = format!("the log cannot be written to {}: {why}", status.log.target);
        findings.doubt("log", what, "make room, or `fail2xdp set logtarget` elsewhere");
    }
    if status.ceiling.exceeded {
        let wire::Ceiling { bans, most, .. } = status.ceiling;
        findings.doubt(
            "bans",
            format!("{bans} new bans within a minute, more than `ban_ceiling` ({most})"),
            "see with `fail2xdp top` or `bans` whether these are attackers; `unban --all JAIL` lifts a jail's mistake",
        );
    }
}

/// Who is told of bans, or should be.
fn actions(status: &wire::Status, findings: &mut Findings) {
    if let Some(runner) = &status.action_runner
        && let Some(why) = &runner.fault
    {
        let what = match runner.state.as_str() {
            "works" => format!("the action runner has to say: {why}"),
            _ => format!("no action runs, the action runner is gone: {why}"),
        };
        findings.doubt(
            "actions",
            what,
            "bans hold all the same, and are told when it is well again",
        );
    }
    for action in &status.actions {
        let wire::ActionState { jail, action: name, failed_in_a_row, dropped, waiting, .. } =
            action;
        if let Some(why) = action.fault.as_ref().filter(|_| *failed_in_a_row >= FAILING) {
            let what = format!(
                "[{jail}] action '{name}' has failed {failed_in_a_row} times, one after the other: {why}"
            );
            let remedy = format!(
                "`fail2xdp action test {name} --jail {jail} --ip 192.0.2.1` shows what happens"
            );
            findings.doubt("actions", what, &remedy);
        }
        if *dropped > 0 {
            let what = format!(
                "[{jail}] action '{name}' is too slow: {dropped} of what it was to do were dropped, {waiting} wait"
            );
            findings.doubt("actions", what, "make its commands quicker, or raise `action_queue`");
        }
    }
}

fn enforcement(of: &wire::Enforcement, findings: &mut Findings) {
    if of.mode == "none" {
        findings.doubt(
            "enforcement",
            "the daemon runs with mode `none`",
            "start it without, to stop attackers",
        );
        return;
    }
    if of.observe {
        findings.doubt(
            "enforcement",
            "it only observes: nothing is dropped",
            "set `observe = no` and reload",
        );
    }
    if of.interfaces.is_empty() {
        findings.fault(
            "enforcement",
            "no interface is protected: name one with `interface` in fail2xdp.conf",
        );
    }
    for interface in &of.interfaces {
        let name = &interface.name;
        let reason = interface.reason.as_deref().unwrap_or("its driver has no XDP");
        match interface.mode.as_str() {
            "native" => findings.good("driver", format!("`{name}` drops in the driver")),
            "generic" => findings.doubt(
                "driver",
                format!("`{name}` drops only behind the driver, which costs several times as much: {reason}"),
                "take a driver that knows XDP, or fewer queues or offloads where the reason names them",
            ),
            other => findings.fault("driver", format!("`{name}` is {other}: see `ip link`")),
        }
    }
    for alarm in &of.alarms {
        findings.doubt("enforcement", alarm, "`fail2xdp status` tells whether it holds still");
    }
    if let Some(counters) = &of.counters {
        let odd = counters.not_ip.packets + counters.unreadable.packets;
        let all = odd + counters.passed.packets + counters.dropped.packets;
        if all > 1000 && odd * 10 > all {
            findings.doubt(
                "driver",
                format!("{odd} of {all} packets were no IP that can be read: bans have no effect on those"),
                "PPPoE, MPLS or a tunnel may wrap them: protect the interface where they come out, if it has Ethernet",
            );
        }
    }
}

/// These jails found nothing in the `seconds` since the daemon started.
fn quiet(jails: &[&str], seconds: i64, findings: &mut Findings) {
    if jails.is_empty() || seconds < QUIET {
        return;
    }
    let (names, hours) = (jails.join(", "), seconds / 3600);
    findings.doubt(
        "jails",
        format!("nothing was found for {hours} h by {names}"),
        "`fail2xdp check --deep` tells whether their filters match their logs; nothing need be wrong",
    );
}

fn lingering(status: &wire::Status, findings: &mut Findings) {
    let drops = status.enforcement.mode != "none" && !status.enforcement.observe;
    let observing = |jail: &str| status.jails.iter().any(|it| it.name == jail && it.observe);
    for found in &status.lingering {
        let wire::Lingering { prefix, jail, failures, dropped, .. } = found;
        if !drops || *failures < LINGERING || observing(jail) {
            continue;
        }
        let scope = status.jails.iter().find(|it| it.name == *jail).map_or("", |it| &it.scope);
        let interfaces: Vec<&str> =
            status.enforcement.interfaces.iter().map(|it| it.name.as_str()).collect();
        let how = match dropped {
            Some(0) | None => format!(
                "none of its packets was dropped on {}: they come from a proxy or CDN in front of the service, or by \
                 another interface. Let the service log, and the proxy stop, the real client; or protect that \
                 interface",
                interfaces.join(", ")
            ),
            Some(dropped) => format!(
                "{dropped} of its packets were dropped, and others come to a port that [{jail}] leaves open ({scope}): \
                 see `port` of the jail"
            ),
        };
        findings.fault(
            "bans",
            format!("{prefix} is banned by [{jail}] and was found {failures} times since; {how}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::Sign;

    #[test]
    fn jails_that_find_nothing_are_doubted_after_a_day() {
        let look = |jails: &[&str], seconds| {
            let mut findings = Findings::default();
            quiet(jails, seconds, &mut findings);
            findings.0
        };
        assert!(look(&["sshd"], QUIET - 1).is_empty() && look(&[], QUIET).is_empty());
        let doubts = look(&["sshd", "exim"], 2 * QUIET);
        let [("jails", Sign::Doubt(what, _))] = &doubts[..] else { panic!("{doubts:?}") };
        assert_eq!(what, "nothing was found for 48 h by sshd, exim");
    }
}
