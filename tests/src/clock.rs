//! The one place where tests read the wall clock: they watch a program that lives by it.
#![expect(clippy::disallowed_methods, reason = "black-box tests run in real time")]

/// Unix seconds, with their fraction.
pub fn now() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

/// Now in the format of traditional syslog, in the local time zone.
pub fn syslog_now() -> String {
    jiff::Zoned::now().strftime("%b %e %H:%M:%S").to_string()
}

/// So many seconds ago, in the same format.
pub fn syslog_ago(seconds: i64) -> String {
    let then = jiff::Zoned::now() - jiff::Span::new().seconds(seconds);
    then.strftime("%b %e %H:%M:%S").to_string()
}
