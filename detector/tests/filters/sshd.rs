//! sshd, on the cases of `tests/testdata/sshd`.
use crate::samples;

#[track_caller]
fn check(file: &str) {
    samples::check("sshd", &format!("sshd/{file}"));
}

#[test]
fn every_shape_of_openssh_is_counted_once_an_attempt() {
    check("openssh.txt");
}

#[test]
fn each_line_counts_where_the_filter_is_told_so() {
    check("lines.txt");
}

#[test]
fn who_does_nothing_wrong_is_not_counted() {
    check("spared.txt");
}

#[test]
fn nobody_can_have_somebody_else_counted() {
    check("forged.txt");
}
