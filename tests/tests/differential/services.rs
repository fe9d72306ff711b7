//! Services whose logs are generated: what they say of an attack, and when all is well.
use crate::logs::{Dates, Service};

pub const SERVICES: [Service<'static>; 8] = [
    Service {
        jail: "sshd",
        filter: "sshd",
        options: "maxretry = 5",
        dates: Dates::Syslog,
        attacks: &[
            &["DATE web sshd[PID]: Failed password for USER from ADDR port 22 ssh2"],
            &[
                "DATE web sshd[PID]: Invalid user USER from ADDR port 4022",
                "DATE web sshd[PID]: Failed password for invalid user USER from ADDR port 4022 ssh2",
                "DATE web sshd[PID]: Connection closed by invalid user USER ADDR port 4022 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: User USER not allowed because account is locked",
                "DATE web sshd[PID]: Connection closed by ADDR port 33 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: Failed publickey for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Accepted publickey for USER from ADDR port 22 ssh2",
            ],
            &[
                "DATE web sshd[PID]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=ADDR  user=USER",
                "DATE web sshd[PID]: Failed password for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Connection closed by ADDR port 22 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: Failed publickey for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Failed publickey for USER from ADDR port 22 ssh2",
                "DATE web sshd[PID]: Disconnecting: Too many authentication failures for USER [preauth]",
            ],
        ],
        noise: &[
            "DATE web sshd[PID]: Server listening on 0.0.0.0 port 22.",
            "DATE web CRON[PID]: pam_unix(cron:session): session opened for user USER(uid=0) by (uid=0)",
            "DATE web kernel: [ 12.345678] eth0: link becomes ready",
        ],
    },
    Service {
        jail: "sshd-aggressive",
        filter: "sshd[mode=aggressive]",
        options: "maxretry = 3\nmaxmatches = 1",
        dates: Dates::Iso,
        attacks: &[
            &[
                "DATE web sshd[PID]: Connection from ADDR port 2222",
                "DATE web sshd[PID]: Connection closed by ADDR port 2222 [preauth]",
            ],
            &[
                "DATE web sshd[PID]: Connection from ADDR port 2222",
                "DATE web sshd[PID]: kex_exchange_identification: Connection closed by remote host",
            ],
            &[
                "DATE web sshd[PID]: Unable to negotiate with ADDR port 2222: no matching host key type found. Their offer: ssh-dss [preauth]",
            ],
            &[
                "DATE web sshd[PID]: error: maximum authentication attempts exceeded for USER from ADDR port 22 ssh2 [preauth]",
            ],
        ],
        noise: &["DATE web sshd[PID]: Received signal 15; terminating."],
    },
    Service {
        jail: "nginx-http-auth",
        filter: "nginx-http-auth",
        options: "maxretry = 4",
        dates: Dates::Slashes,
        attacks: &[
            &[
                "DATE [error] PID#0: *PID user \"USER\": password mismatch, client: ADDR, server: example.org, request: \"GET / HTTP/1.1\", host: \"example.org\"",
            ],
            &[
                "DATE [error] PID#0: *PID user \"USER\" was not found in \"/etc/nginx/htpasswd\", client: ADDR, server: example.org, request: \"GET / HTTP/1.1\", host: \"example.org\"",
            ],
        ],
        noise: &[
            "DATE [error] PID#0: *PID open() \"/srv/x\" failed (2: No such file or directory), client: ADDR, server: example.org",
        ],
    },
    Service {
        jail: "nginx-botsearch",
        filter: "nginx-botsearch",
        options: "maxretry = 2",
        dates: Dates::Clf,
        attacks: &[
            &[
                "ADDR - - [DATE] \"GET /phpmyadmin/scripts/setup.php HTTP/1.1\" 404 47 \"-\" \"-\" \"-\"",
            ],
            &["ADDR - USER [DATE] \"POST /wp-login.php HTTP/1.1\" 404 564 \"-\" \"Mozilla\" \"-\""],
        ],
        noise: &[
            "ADDR - - [DATE] \"GET /index.html HTTP/1.1\" 200 4711 \"-\" \"Mozilla\" \"-\"",
            "ADDR - - [DATE] \"GET /favicon.ico HTTP/1.1\" 404 12 \"-\" \"Mozilla\" \"-\"",
        ],
    },
    Service {
        jail: "apache-auth",
        filter: "apache-auth",
        options: "maxretry = 3",
        dates: Dates::Apache,
        attacks: &[
            &[
                "DATE [auth_basic:error] [pid PID:tid 1] [client ADDR:51000] AH01618: user USER not found: /secret",
            ],
            &[
                "DATE [auth_basic:error] [pid PID] [client ADDR:51000] AH01617: user USER: authentication failure for \"/secret\": Password Mismatch",
            ],
        ],
        noise: &["DATE [core:notice] [pid PID:tid 1] AH00094: Command line: '/usr/sbin/apache2'"],
    },
    Service {
        jail: "postfix-sasl",
        filter: "postfix[mode=auth]",
        options: "maxretry = 3",
        dates: Dates::Syslog,
        attacks: &[
            &[
                "DATE mail postfix/smtpd[PID]: warning: unknown[ADDR]: SASL LOGIN authentication failed: UGFzc3dvcmQ6",
            ],
            &[
                "DATE mail postfix/submission/smtpd[PID]: warning: host.example[ADDR]: SASL PLAIN authentication failed: generic failure",
            ],
        ],
        noise: &["DATE mail postfix/smtpd[PID]: connect from unknown[ADDR]"],
    },
    Service {
        jail: "dovecot",
        filter: "dovecot",
        options: "maxretry = 5\nmaxmatches = 0",
        dates: Dates::Syslog,
        attacks: &[
            &[
                "DATE mail dovecot: imap-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<USER>, method=PLAIN, rip=ADDR, lip=10.0.0.1, TLS",
            ],
            &[
                "DATE mail dovecot: pop3-login: Aborted login (auth failed, 2 attempts in 9 secs): user=<USER>, method=PLAIN, rip=ADDR, lip=10.0.0.1",
            ],
        ],
        noise: &[
            "DATE mail dovecot: imap-login: Login: user=<USER>, method=PLAIN, rip=ADDR, lip=10.0.0.1, mpid=PID, TLS",
        ],
    },
    Service {
        jail: "squid",
        filter: "squid",
        options: "maxretry = 2\nmaxmatches = 10",
        dates: Dates::Epoch,
        attacks: &[
            &[
                "DATE     PID ADDR TCP_DENIED/403 4099 GET http://www.example.com/USER - HIER_NONE/- text/html",
            ],
            &["DATE     0 ADDR NONE/405 3364 GET http://www.example.com/ - HIER_NONE/- text/html"],
        ],
        noise: &[
            "DATE     PID ADDR TCP_MISS/200 4099 GET http://www.example.com/USER - HIER_DIRECT/192.0.2.80 text/html",
        ],
    },
];
