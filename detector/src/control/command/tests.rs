use super::*;

fn values(words: &str) -> Vec<Value> {
    words.split_whitespace().map(Value::from).collect()
}

#[track_caller]
fn check_refused(words: &str, shown: &str) {
    let fault = Command::read(&values(words)).expect_err(words);
    assert_eq!(fault.to_string(), shown, "{words}");
}

#[track_caller]
fn check_text(words: &str, answer: serde_json::Value, shown: &str) {
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    assert_eq!(text(&words, &Value::from(answer)), shown);
}

#[test]
fn words_that_make_no_command_are_refused_in_fail2bans_words() {
    check_refused("", "Sorry but the command is invalid");
    check_refused("nonsense", "Invalid command");
    check_refused("unban", "Invalid command");
    check_refused("get", "Sorry but the command is invalid");
    check_refused("get j", "Sorry but the command is invalid");
    check_refused("get j nope", "Invalid command (no get action or not yet implemented)");
    check_refused("set j", "Sorry but the command is invalid");
    check_refused("set j nope v", "Invalid command 'nope' (no set action or not yet implemented)");
    check_refused("set j maxretry", "Sorry but the command is invalid");
    check_refused("set j maxretry x", "invalid literal for int() with base 10: 'x'");
    check_refused("set j idle maybe", "Invalid idle option, must be 'on' or 'off'");
    check_refused("set j addlogpath /a b", "File option must be 'head' or 'tail'");
    check_refused("set j addlogpath /a head x", "Only one file can be added at a time");
    check_refused("set loglevel", "Sorry but the command is invalid");
    check_refused("add --all", "Reserved name '--all'");
    check_refused("status a b c", "Invalid command (no status)");
    check_refused("reload a b", "Unexpected argument(s) for reload: ['a', 'b']");
    check_refused("sleep x", "could not convert string to float: 'x'");
    check_refused("sleep -1", "sleep length must be non-negative");
}

#[test]
fn reload_is_read_from_the_command_line_and_from_the_wire() {
    let expect = Reload { jail: Some("j".into()), restart: true, ..Reload::default() };
    let read = Command::read(&values("reload --restart j"));
    assert_eq!(read, Ok(Command::Reload(expect.clone())));
    let wire = [
        "reload".into(),
        "j".into(),
        Value::List(vec!["--restart".into()]),
        Value::List(vec![Value::List(values("add j auto"))]),
    ];
    assert_eq!(Command::read(&wire), Ok(Command::Reload(expect)));
    for all in ["reload", "reload --all"] {
        assert_eq!(Command::read(&values(all)), Ok(Command::Reload(Reload::default())));
    }
}

#[test]
fn options_after_the_verb_are_taken() {
    let jail = || "j".to_owned();
    let ids = vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()];
    let read = |words: &str| Command::read(&values(words)).expect(words);
    assert_eq!(
        read("set j unbanip --report-absent 192.0.2.1 192.0.2.2"),
        Command::Set { jail: jail(), what: Set::UnbanIp { ids: ids.clone(), report_absent: true } }
    );
    assert_eq!(
        read("set j banip --force 192.0.2.1 192.0.2.2"),
        Command::Set { jail: jail(), what: Set::BanIp { ids: ids.clone(), force: true } }
    );
    assert_eq!(read("unban --all"), Command::UnbanAll);
    assert_eq!(read("unban 192.0.2.1 192.0.2.2"), Command::Unban(ids));
    assert_eq!(
        read("get j banip --with-time"),
        Command::Get { jail: jail(), what: Get::BanIp { with_time: true } }
    );
    assert_eq!(
        read("set j bantime.factor 2"),
        Command::Set {
            jail: jail(),
            what: Set::Single(Single::BanTimeExtra("factor".into()), "2".into())
        }
    );
}

#[test]
fn others_than_root_may_look_and_ban() {
    let may = |words: &str| Command::read(&values(words)).expect(words).is_for_group();
    for words in
        ["ping", "status", "status j", "get j failregex", "set j banip 192.0.2.1", "unban --all"]
    {
        assert!(may(words), "{words}");
    }
    for words in [
        "stop",
        "stop j",
        "reload",
        "set j bantime 1",
        "set j addlogpath /etc/shadow",
        "set logtarget /tmp/x",
        "get j action mail password",
        "flushlogs",
    ] {
        assert!(!may(words), "{words}");
    }
}

#[test]
fn answers_read_as_in_fail2ban() {
    use serde_json::json;
    check_text("ping", json!("pong"), "Server replied: pong");
    check_text("echo a b", json!(["a", "b"]), "a b");
    check_text("stop", json!(null), "Shutdown successful");
    check_text("stop j", json!(null), "Jail stopped");
    check_text("get loglevel", json!("INFO"), "Current logging level is 'INFO'");
    check_text("get dbfile", json!(null), "Database currently disabled");
    check_text("get dbpurgeage", json!(86400), "Current database purge age is:\n`- 86400seconds");
    check_text("get j bantime", json!(600), "600");
    check_text("get j ignoreself", json!(true), "True");
    check_text("get j logtimezone", json!(null), "None");
    check_text(
        "banned",
        json!([{"j1": ["192.0.2.1"]}, {"j2": []}]),
        "[{'j1': ['192.0.2.1']}, {'j2': []}]",
    );
    check_text(
        "set j addfailregex x",
        json!(["a", "x"]),
        "The following regular expression are defined:\n|- [0]: a\n`- [1]: x",
    );
    check_text("get j logpath", json!([]), "No file is currently monitored");
    check_text(
        "get j journalmatch",
        json!([["_COMM=a", "_UID=0"], ["_COMM=b"]]),
        "Current match filter:\n_COMM=a _UID=0 + _COMM=b",
    );
    check_text(
        "get j datepattern",
        json!([null, "Default Detectors"]),
        "Current date pattern set to: Default Detectors",
    );
    check_text("get j datepattern", json!(null), "Current date pattern set to: Not set/required");
    check_text("get j actions", json!(["a", "b"]), "The jail j has the following actions:\na, b");
    check_text("get j banip ,", json!(["a", "b"]), "a,b");
    check_text(
        "status",
        json!([["Number of jail", 2], ["Jail list", "a, b"]]),
        "Status\n|- Number of jail:\t2\n`- Jail list:\ta, b",
    );
    check_text(
        "status --all",
        json!([
            ["Number of jail", 2],
            ["Jail list", "a, b"],
            ["Status for the jails", {
                "a": [["Filter", [["Total failed", 1]]], ["Actions", [["Total banned", 0]]]],
                "b": [["Filter", [["Total failed", 2]]], ["Actions", [["Total banned", 3]]]],
            }],
        ]),
        "Status\n|- Number of jail:\t2\n|- Jail list:\ta, b\n`- Status for the jails:\n   |- Jail: a\n\
         \x20  |  |- Filter\n   |  |  `- Total failed:\t1\n   |  `- Actions\n   |     `- Total banned:\t0\n\
         \x20  `- Jail: b\n      |- Filter\n      |  `- Total failed:\t2\n      `- Actions\n\
         \x20        `- Total banned:\t3",
    );
    check_text("stats", json!({}), "No jails found.");
    check_text(
        "stats",
        json!({"j1": ["polling", [1, 4], [1, 1]]}),
        "          ║          ║ Filter    ║ Actions  \n Jail     ║ Backend  ╟───────────╫───────────\n\
         \x20         ║          ║ cur │ tot ║ cur │ tot\n══════════╬══════════╬═══════════╬═══════════\n\
         \x20j1       ║ polling  ║   1 │   4 ║   1 │   1\n══════════╩══════════╩═══════════╩═══════════",
    );
    check_text(
        "status j",
        json!([
            ["Filter", [["Currently failed", 1], ["File list", ["/a", "/b"]]]],
            ["Actions", [["Currently banned", 0]]]
        ]),
        "Status for the jail: j\n|- Filter\n|  |- Currently failed:\t1\n|  `- File list:\t/a /b\n\
         `- Actions\n   `- Currently banned:\t0",
    );
}
