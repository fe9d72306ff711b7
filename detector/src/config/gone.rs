//! Names of filters that guides still tell and no tree has any longer.

/// Former filters, and what does their work now.
const FILTERS: [(&str, &str); 16] = [
    ("apache", "apache-auth"),
    ("apache-404", "apache-botsearch"),
    ("apache-w00tw00t", "apache-botsearch"),
    ("couriersmtp", "courier-smtp"),
    ("courierlogin", "courier-auth"),
    ("dovecot-pop3imap", "dovecot"),
    ("mysqld", "mysqld-auth"),
    ("nginx-auth", "nginx-http-auth"),
    ("pam", "pam-generic"),
    ("postfix-auth", "postfix[mode=auth]"),
    ("postfix-rbl", "postfix[mode=rbl]"),
    ("postfix-sasl", "postfix[mode=auth]"),
    ("sasl", "postfix[mode=auth]"),
    ("ssh", "sshd"),
    ("ssh-ddos", "sshd[mode=ddos]"),
    ("sshd-ddos", "sshd[mode=ddos]"),
];

/// What took the place of a filter.
pub(super) fn replacement(filter: &str) -> Option<&'static str> {
    FILTERS.iter().find(|(gone, _)| *gone == filter).map(|(_, now)| *now)
}
