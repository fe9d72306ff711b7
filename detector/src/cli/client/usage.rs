//! `--help` under a name of fail2ban's.

const OPTIONS: &str = "\
Options:
    -c, --conf DIR           configuration directory
    -s, --socket FILE        control socket of the daemon
    --json                   print the answer as JSON
    -d                       print the configuration as commands
    --dp, --dump-pretty      the same over several lines
    -t, --test               test the configuration
    -i                       read commands from standard input
    -f                       fail2ban-server: run in the foreground
    --str2sec TIME           print a time such as 1h30m in seconds
    -h, --help               print this
    -V, --version            print the version (-V: the number alone)
    Taken and not needed: -p -v -q -x -b --async --timeout --pidfile --pname
                          --loglevel --logtarget --syslogsocket
";

/// Each form with what it does; what stands in brackets may be left out.
const COMMANDS: &[(&str, &str)] = &[
    ("ping [SECONDS]", "is the daemon alive"),
    ("version", "its version"),
    ("status", "its jails"),
    ("status JAIL [basic|short|cymru]", "counts, sources and bans of a jail"),
    ("status --all [basic|short|cymru]", "the same of every jail"),
    ("stats", "every jail's counts, as a table"),
    ("banned [IP...]", "who is banned, by jail; which jails ban each"),
    ("unban IP...|--all", "lift bans in all jails"),
    ("reload [--restart] [--unban] [--if-exists] [JAIL|--all]", "read the configuration again"),
    ("restart [--unban] [--if-exists] JAIL", "reload a jail that forgets what it counted"),
    ("add JAIL [BACKEND], start JAIL, stop JAIL|--all", "make, start and remove a jail"),
    ("stop", "end the daemon; bans stay enforced"),
    ("flushlogs", "open the log file anew"),
    ("echo WORD...", "print the words"),
    ("get|set loglevel|logtarget|syslogsocket [VALUE]", "the log"),
    ("get|set dbfile|dbmaxmatches|dbpurgeage [VALUE]", "the store"),
    ("set JAIL banip [--force] IP...", "ban; --force also what the allow list spares"),
    ("set JAIL unbanip [--report-absent] IP...", "lift bans; fail where there is none"),
    ("set JAIL attempt IP [LINE...]", "count failures"),
    ("set JAIL idle on|off", "stop reading, go on"),
    ("set JAIL addignoreip IP..., delignoreip IP", "whom to spare"),
    ("set JAIL addlogpath FILE [tail|head], dellogpath FILE", "what to read"),
    ("set JAIL addjournalmatch MATCH, deljournalmatch MATCH", "the same for the journal"),
    ("set JAIL addfailregex REGEX, delfailregex NUMBER", "what to look for"),
    ("set JAIL addignoreregex REGEX, delignoreregex NUMBER", "what to pass over"),
    (
        "set JAIL bantime|findtime|maxretry|maxmatches|maxlines|usedns|ignoreself|\n\
         \x20   datepattern|logencoding|logtimezone|prefregex|bantime.OPTION VALUE",
        "a setting",
    ),
    ("set JAIL addaction xdp", "let a new jail ban in the kernel"),
    (
        "get JAIL OPTION",
        "a setting, or a list: ignoreip, logpath, journalmatch, failregex, ignoreregex",
    ),
    ("get JAIL banned [IP...]", "its bans; 1 or 0 for each"),
    ("get JAIL banip [SEPARATOR|--with-time]", "its bans in the order of their ends"),
    (
        "get JAIL actions, actionproperties ACTION, action ACTION PROPERTY",
        "its actions, as configured",
    ),
];

/// The whole text.
pub(super) fn text(name: &str) -> String {
    let mut text = format!(
        "Usage: {name} [OPTIONS] COMMAND\n\nThis is fail2xdp v{}, which takes the commands of fail2ban.\n\n{OPTIONS}\nCommands:\n",
        env!("CARGO_PKG_VERSION")
    );
    for (form, what) in COMMANDS {
        text += &format!("    {form}\n            {what}\n");
    }
    text
}
