//! What a reload says it changes.
use super::*;

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let settings = |text: &str| {
        load_with([("jail.local", text), ("fail2xdp.conf", "[Definition]\n")])
            .expect("a configuration that holds together")
            .settings
    };
    assert_eq!(changes(&settings(old), &settings(new)), expected);
}

const ONE: &str = "[one]\nenabled = yes\n";

#[test]
fn nothing_changes_nothing() {
    check(ONE, ONE, &[]);
    check(ONE, "# moved down\n\n[one]\nenabled = yes\n", &[]);
}

#[test]
fn jails_come_and_go() {
    check(
        ONE,
        "[two]\nenabled = yes\n",
        &["[one] is removed, its bans are lifted", "[two] is new"],
    );
}

#[test]
fn an_option_is_shown_as_it_was_and_is() {
    let with = |option: &str| format!("{ONE}{option}\n");
    check(
        &with("maxretry = 3\nbantime = 10m"),
        &with("maxretry = 4\nbantime = -1"),
        &["[one] maxretry: 3 -> 4", "[one] bantime: 600s -> -1"],
    );
    check(
        ONE,
        &with("logpath = /var/log/other.log"),
        &["[one] logpath: /var/log/plain.log -> /var/log/other.log"],
    );
    check(
        ONE,
        &with("failregex = ^one <HOST>$\n ^two <HOST>$"),
        &["[one] failregex: 2 added, 1 removed"],
    );
    check(
        &with("ignoreip = 192.0.2.1 192.0.2.2"),
        &with("ignoreip = 192.0.2.2 192.0.2.1"),
        &["[one] ignoreip: another order"],
    );
}
