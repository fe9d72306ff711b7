//! Promise: a ban ends when its wall-clock end says, also when somebody sets the clock meanwhile.
use fail2xdp_tests::{Guest, Kernel};

/// What every scenario begins with: two machines, an echo on port 2222, the daemon, and some words.
const STAGE: &str = r#"
mkdir -p /run/netns
/bin/ip netns add client
/bin/ip link add v0 type veth peer name v1 netns client
/bin/ip addr add 10.9.0.1/24 dev v0; /bin/ip link set v0 up; /bin/ip link set lo up
/bin/ip -n client addr add 10.9.0.2/24 dev v1; /bin/ip -n client link set v1 up
nc -ll -p 2222 -e cat &
fail2xdp run --interface v0 >/tmp/said 2>&1 &
tries=0
until grep -q ready /tmp/said; do tries=$((tries+1)); [ $tries -gt 300 ] && break; usleep 100000; done
step() { date -s "@$(($(date +%s) + $1))" >/dev/null; sleep 1; }
ban() { fail2xdp ban 10.9.0.2 --jail guard --for "$1" >/dev/null || { echo "no ban"; cat /tmp/said; }; }
look() {
  if /bin/ip netns exec client timeout 2 nc -w 1 10.9.0.1 2222 </dev/null >/dev/null 2>&1; then open=open; else open=closed; fi
  echo "MARK $1: $open, $(fail2xdp banned 10.9.0.2)"
}
look "at first"
"#;

#[track_caller]
fn check(scenario: &str, expect: &[&str]) {
    let guest = Guest::new(
        Kernel::Cloud,
        "[sshd]\nenabled = false\n[guard]\nenabled = true\nfilter = sshd\nport = 2222\nlogpath = /tmp/log\n",
    );
    let said = guest.boot(&format!("{STAGE}\n{scenario}\n"));
    let seen: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("MARK ")).collect();
    let expect = [&["at first: open, [[]]"], expect].concat();
    assert_eq!(seen, expect, "{said}");
}

#[test]
fn an_hour_forward_brings_the_end_an_hour_nearer() {
    check(
        "ban 3615; look banned; step 3600; look 'after the step'; sleep 16; look 'at the end'",
        &[
            "banned: closed, [['guard']]",
            "after the step: closed, [['guard']]",
            "at the end: open, [[]]",
        ],
    );
}

#[test]
fn an_hour_forward_ends_what_is_due_within_it() {
    check(
        "ban 60; look banned; step 3600; look 'after the step'",
        &["banned: closed, [['guard']]", "after the step: open, [[]]"],
    );
}

#[test]
fn an_hour_back_moves_the_end_an_hour_away() {
    check(
        "ban 8; look banned; step -3600; look 'after the step'; sleep 9; look 'a while later'; \
         step 3600; look 'and forth again'",
        &[
            "banned: closed, [['guard']]",
            "after the step: closed, [['guard']]",
            "a while later: closed, [['guard']]",
            "and forth again: open, [[]]",
        ],
    );
}
