//! All but sshd, on the cases of `tests/testdata`.
use std::{collections::BTreeSet, fs, path::Path};

use fail2xdp::{config::Tree, config_tree::ShippedTree};

use crate::samples;

/// Every line of a filter's cases, and every failregex of these modes matches one of them.
#[track_caller]
fn check(filter: &str, modes: &[&str]) {
    let used = samples::check(filter, &format!("{filter}/lines.txt"));
    let all = modes.iter().flat_map(|mode| samples::jail(filter, mode).filter.failregex);
    let all: BTreeSet<_> = all.map(|regex| regex.value).collect();
    let idle: Vec<_> = all.difference(&used).collect();
    assert!(idle.is_empty(), "no line of the cases is matched by {idle:#?}");
}

const ONE: &[&str] = &["normal"];
const TWO: &[&str] = &["normal", "aggressive"];

#[test]
fn nginx_http_auth() {
    check("nginx-http-auth", TWO);
}

#[test]
fn nginx_limit_req() {
    check("nginx-limit-req", ONE);
}

#[test]
fn nginx_bad_request() {
    check("nginx-bad-request", ONE);
}

#[test]
fn nginx_botsearch() {
    check("nginx-botsearch", ONE);
}

#[test]
fn apache_auth() {
    check("apache-auth", TWO);
}

#[test]
fn apache_noscript() {
    check("apache-noscript", ONE);
}

#[test]
fn postfix() {
    check("postfix", &["normal", "auth", "aggressive"]);
}

#[test]
fn dovecot() {
    check("dovecot", TWO);
}

#[test]
fn exim() {
    check("exim", TWO);
}

#[test]
fn vsftpd() {
    check("vsftpd", ONE);
}

#[test]
fn proftpd() {
    check("proftpd", ONE);
}

#[test]
fn mysqld_auth() {
    check("mysqld-auth", ONE);
}

#[test]
fn pam_generic() {
    check("pam-generic", ONE);
}

#[test]
fn recidive() {
    check("recidive", ONE);
}

#[test]
fn port_probe() {
    check("port-probe", TWO);
}

#[test]
fn every_filter_that_is_shipped_has_its_cases() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/testdata");
    let filters = ShippedTree.list(&ShippedTree.root().join("filter.d")).expect("the shipped tree");
    let names = filters.iter().filter_map(|file| file.strip_suffix(".conf"));
    let without: Vec<_> = names
        .filter(|name| !name.ends_with("common"))
        .filter(|name| !fs::exists(cases.join(name)).expect("the cases can be looked at"))
        .collect();
    assert!(without.is_empty(), "{without:?}");
}
