//! Actions that need no file.
use super::*;

/// The actions of jail `j`, and all problems, in a tree without action files; `action` may hold lines.
fn read(action: &str) -> (Vec<ActionSettings>, String) {
    let jails = format!(
        "[j]\nenabled = 1\nfilter = plain\nlogpath = /l\ndestemail = ops@example.com\naction = xdp\n {action}\n"
    );
    let filter = ("filter.d/plain.conf", "[Definition]\nfailregex = ^plain <HOST>$\n");
    let loaded = load(&TextTree::new([("jail.conf", jails.as_str()), filter])).expect("settings");
    let problems: Vec<String> = loaded.problems.iter().map(Problem::to_string).collect();
    let jail =
        loaded.settings.jails.into_iter().next().expect("the jail runs whatever its actions");
    (jail.actions, problems.join("\n"))
}

#[track_caller]
fn native(action: &str) -> Native {
    let (actions, problems) = read(action);
    assert_eq!(problems, "", "{action}");
    match &actions[..] {
        [ActionSettings { kind: ActionKind::Native(native), .. }] => native.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_faults(action: &str, is_used: bool, expect: &str) {
    let (actions, problems) = read(action);
    assert_eq!(problems.replace("/etc/x/jail.conf:7: jail `j`: ", ""), expect, "{action}");
    assert_eq!(!actions.is_empty(), is_used, "{action}");
}

#[test]
fn smtp_py_has_its_own_defaults_and_mail_the_systems_sendmail() {
    let Channel::Mail(mail) = native("smtp.py").channel else { panic!("a mail") };
    let (user, host) = (None, "localhost".to_owned());
    assert_eq!(
        mail.transport,
        Transport::Smtp { host, port: 25, tls: Tls::No, login: user, ca_file: None }
    );
    assert_eq!((mail.sender_name.as_str(), mail.sender.as_str()), ("Fail2Ban", "fail2ban"));
    assert_eq!((mail.dest, mail.matches), (vec!["root".to_owned()], None));

    let action = native(
        "smtp.py[host=\"h:2525\", ssl=yes, user=me, password=pw, dest=\"a, b@c\", matches=ipmatches]",
    );
    assert_eq!(action.on, [Occasion::Start, Occasion::Stop, Occasion::Ban]);
    assert!(action.norestored && action.asks_for_address() && !action.asks_for_jail());
    let Channel::Mail(mail) = &action.channel else { panic!("a mail") };
    assert_eq!(mail.dest, ["a", "b@c"]);
    let Transport::Smtp { host, port, tls, login: Some(login), .. } = &mail.transport else {
        panic!("{mail:?}")
    };
    assert_eq!((host.as_str(), *port, *tls), ("h", 2525, Tls::StartTls));
    assert_eq!(login.password, SecretPlace::Here(Secret::new("pw")));

    let Channel::Mail(mail) = native("mail[dest=\"%(destemail)s\", name=x]").channel else {
        panic!("a mail")
    };
    assert_eq!(mail.transport, Transport::Program(vec!["/usr/sbin/sendmail".to_owned()]));
    assert_eq!(mail.dest, ["ops@example.com"]);
    for (parameters, port) in [
        ("host=h", 25),
        ("host=h, tls=starttls", 587),
        ("host=h, tls=yes", 465),
        ("host=h, port=7", 7),
        ("host=\"[2001:db8::1]:8\"", 8),
        ("host=\"2001:db8::1\"", 25),
    ] {
        let Channel::Mail(mail) = native(&format!("mail[{parameters}]")).channel else {
            panic!("a mail")
        };
        let Transport::Smtp { port: is, .. } = mail.transport else { panic!("SMTP") };
        assert_eq!(is, port, "{parameters}");
    }
}

#[test]
fn an_action_file_of_the_same_name_is_what_counts() {
    let files = [("jail.conf", "[j]\nenabled = 1\naction = xdp\n mail[dest=x]\n")];
    let actions = jail("j", files).actions;
    assert!(matches!(actions[0].kind, ActionKind::Commands(_)), "{actions:?}");
}

#[test]
fn slips_are_told_and_the_jail_runs_on() {
    check_faults(
        "webhook[url=\"https://example.com/\", timeuot=5s]",
        true,
        "action `webhook`: parameter `timeuot` is not known here; it is left out; did you mean `timeout`?",
    );
    check_faults(
        "webhook",
        false,
        "action `webhook`: `url` is missing; the action is left out; write the address that the service gave you, in quotes",
    );
    check_faults(
        "webhook[url=\"ftp://example.com/s3cr3t\"]",
        false,
        "action `webhook`: `url`: it is no address; the action is left out; write `https://…` or `http://…`, in quotes",
    );
    check_faults(
        "file",
        false,
        "action `file`: `path` is missing; the action is left out; write `path = /var/log/bans.json`, or another file",
    );
    check_faults(
        "file[path=/b.json, on=\"ban, reban\"]",
        false,
        "action `file`: `on`: `reban` is nothing that happens; the action is left out; write some of `start`, `stop`, `ban`, `prolong` and `unban`",
    );
    check_faults(
        "mail[dest=\"a b@c@d\", digest=1y]",
        false,
        "action `mail`: `dest`: `b@c@d` is no mail address; the action is left out; write addresses such as `root` or `admin@example.com`, separated by commas\n\
         action `mail`: `digest`: it means nothing here; the action is left out; write a span such as `10m`, from 1s to 1d",
    );
    check_faults(
        "mail[host=h, user=me]",
        false,
        "action `mail`: `user`: it has no password; the action is left out; write `password_file = /etc/fail2xdp/mail.password`",
    );
    check_faults(
        "mail[digest=1h, whois=yes]",
        false,
        "action `mail`: `whois`: a digest is of too many to ask for each; the action is left out; remove it, or `digest`",
    );
    check_faults(
        "webhook[preset=slak, url=\"https://x/\"]",
        false,
        "action `webhook`: `preset`: it means nothing here; the action is left out; write one of `threatjammer`, `abuseipdb`, `slack`, `telegram`, `ntfy`, `cloudflare`",
    );
    check_faults(
        "webhook[preset=telegram, chat=1]",
        false,
        "action `webhook`: `token` is missing; the action is left out; write `token_file = /etc/fail2xdp/…`, a file that only root may read",
    );
    check_faults(
        "webhook[preset=abuseipdb, token=x, categories=\"18,99\"]",
        false,
        "action `webhook`: `categories`: not all of them exist; the action is left out; write numbers such as `18,22`, see https://www.abuseipdb.com/categories",
    );
    check_faults(
        "webhook[preset=cloudflare, token=x, account=\"../x\", list=1]",
        false,
        "action `webhook`: `account`: it is no id; the action is left out; write the 32 digits that the dashboard's address shows",
    );
    let (actions, problems) = read("webhook[url=\"https://x/\", body='{{ ip']");
    assert!(actions.is_empty() && problems.contains("`body`: syntax error"), "{problems}");
}

#[test]
fn a_parameter_can_be_changed_later() {
    let action = native("webhook[url=\"https://example.com/old\", token=x]");
    let changed = action.with("url", "https://example.com/new").expect("a good address");
    let Channel::Webhook(webhook) = &changed.channel else { panic!("a webhook") };
    assert_eq!(webhook.url.expose(), "https://example.com/new");
    assert_eq!(webhook.token, Some(SecretPlace::Here(Secret::new("x"))));
    let faults = action.with("timeout", "never").expect_err("no span");
    assert!(faults[0].what.contains("timeout"), "{faults:?}");
    assert!(action.with("nonsense", "1").is_err());
    // What was left out when it was read keeps nobody from changing something else.
    let (actions, _) = read("file[path=/a.json, pth=/b.json]");
    let ActionKind::Native(slip) = &actions[0].kind else { panic!("{actions:?}") };
    assert!(slip.with("path", "/c.json").is_ok());
}

#[test]
fn a_reload_tells_that_parameters_have_changed() {
    let of = |parameters: &str| {
        let jails = format!("[j]\nenabled = 1\naction = xdp\n webhook[{parameters}]\n");
        let tree = TextTree::new(PLAIN.into_iter().chain([("jail.conf", jails.as_str())]));
        load(&tree).expect("settings").settings
    };
    let old = of("url=\"https://example.com/s3cr3t\", batch=5");
    let new = of("url=\"https://example.com/s3cr3t\", batch=50");
    assert_eq!(changes(&old, &new), ["[j] action: 1 added, 1 removed"]);
    assert!(changes(&new, &new.clone()).is_empty());
}

#[test]
fn nothing_shows_a_secret() {
    let slips = "pasword=s3cr3t, tokn=s3cr3t, api_key=s3cr3t, topik=s3cr3t";
    let jails = &*format!(
        "[j]\nenabled = 1\naction = xdp\n file[path=/x, {slips}]\n webhook[url=\"https://u:s3cr3t@hooks.example.com/s3cr3t\", token=s3cr3t, headers=\"X: s3cr3t\"]\n smtp.py[user=me, password=s3cr3t]\n"
    );
    let tree = TextTree::new(PLAIN.into_iter().chain([("jail.conf", jails)]));
    let loaded = load(&tree).expect("settings");
    let shown = format!("{loaded:?}");
    assert!(shown.contains("hooks.example.com") || shown.contains("***"), "{shown}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let dump = format!("{:?}", stream(&tree, &|_| Vec::new()));
    assert!(!dump.contains("s3cr3t") && dump.contains("https://hooks.example.com/***"), "{dump}");
}
