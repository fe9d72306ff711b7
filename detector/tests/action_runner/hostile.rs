//! Texts that an attacker wrote reach commands byte for byte as fail2ban passes them, and are never executed.
use std::{collections::BTreeMap, fs};

use fail2xdp::action::wire::{Kind, Level, Ticket};
use serde_json::json;

use crate::{
    peer,
    runner::{Runner, Site, ticket},
};

/// Writes its arguments, each ended by a NUL.
const WRITES: &str = "[Definition]\nactionban = printf '%%s\\0' \"<ip>\" \"<matches>\" \"<F-USER>\" <F-HOST> '<matches>' x<F-USER>x >> \"<file>\"\n";

/// Texts that a shell could take for orders, were it given them. `CANARY` is a file that must not come to be.
fn hostile() -> Vec<String> {
    let texts = [
        "plain",
        "$(touch CANARY)",
        "`touch CANARY`",
        "\"; touch CANARY; \"",
        "'; touch CANARY; '",
        "' $(touch CANARY) '",
        "\\\"; touch CANARY #",
        "a\n touch CANARY\n",
        "a\r\ntouch CANARY\r",
        "&& touch CANARY || touch CANARY & touch CANARY",
        "> CANARY < CANARY >> CANARY",
        "${f2bV_matches} $0 $1 ${IFS}touch${IFS}CANARY",
        "-e -n -- \\c %s %n",
        "<ip> <F-USER> <matches> %(x)s",
        "\u{1}\u{7f}\u{1b}[31m \u{202e}\u{feff} äöü 日本",
        "*",
        "~root",
        "",
    ];
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// fail2ban itself runs the same command with the same values.
const JUDGE: &str = r#"
from fail2ban.server.action import CommandAction, CallingMap
for line in sys.stdin:
    request = json.loads(line)
    os.chdir(request["cwd"])
    action = CommandAction(None, "writes")
    for name, value in request["properties"].items():
        setattr(action, name, value)
    fields = request["fields"]
    about = CallingMap({"ip": request["ip"], "family": "inet4", "matches": request["matches"],
        "F-*": lambda: fields})
    try:
        action.ban(about)
        print(json.dumps("done"))
    except Exception as e:
        print(json.dumps(str(e)))
"#;

#[test]
fn hostile_texts_arrive_as_fail2ban_passes_them_and_nothing_is_executed() {
    let site =
        Site::new(&[("j", "writes")], &[("writes", &WRITES.replace("<file>", "<out>/ours"))], "");
    let canary = site.path("CANARY");
    let mut runner = Runner::start(&site);
    let mut asked = Vec::new();
    for text in hostile() {
        let text = text.replace("CANARY", &canary.display().to_string());
        let fields = [("user", text.clone()), ("host", format!("a{text}b"))];
        let fields: BTreeMap<String, String> =
            fields.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        let matches = vec![format!("line {text}"), text.clone()];
        asked.push(json!({
            "cwd": std::env::current_dir().expect("a directory"),
            "properties": {
                "actionban": WRITES.split_once("actionban = ").expect("it").1.trim().replace("%%", "%"),
                "file": site.path("theirs"),
            },
            "ip": "192.0.2.1", "matches": matches.join("\n"), "fields": fields,
        }));
        let about = Ticket { matches, fields, ..ticket("192.0.2.1") };
        let task = runner.task("j", "writes", Kind::Ban, Some(about));
        runner.succeeds(task);
    }
    let theirs = peer::judge(JUDGE, &asked);
    assert!(theirs.iter().all(|answer| answer == "done"), "{theirs:?}");
    let read = |name: &str| fs::read(site.path(name)).expect("what was written");
    assert_eq!(String::from_utf8_lossy(&read("ours")), String::from_utf8_lossy(&read("theirs")));
    assert_eq!(read("ours"), read("theirs"));
    assert!(!canary.exists(), "something was executed");
}

/// No argument holds a NUL. fail2ban's command dies of it, so that who writes one is not told of; ours has the rest.
#[test]
fn a_nul_silences_nobody() {
    let site =
        Site::new(&[("j", "writes")], &[("writes", &WRITES.replace("<file>", "<out>/ours"))], "");
    let matches = vec!["a\0b;$(touch CANARY)".to_owned()];
    let fields: BTreeMap<String, String> =
        [("user".to_owned(), "c\0d".to_owned()), ("host".to_owned(), "\0".to_owned())].into();
    let asked = json!({
        "cwd": site.folder.path(),
        "properties": { "actionban": "echo \"<matches>\" > theirs" },
        "ip": "192.0.2.1", "matches": matches.join("\n"), "fields": fields,
    });
    let theirs = peer::judge(JUDGE, &[asked]);
    assert!(theirs[0].as_str().is_some_and(|why| why.contains("null byte")), "{theirs:?}");
    assert!(!site.path("theirs").exists());
    let mut runner = Runner::start(&site);
    let about = Ticket { matches, fields, ..ticket("192.0.2.1") };
    let task = runner.task("j", "writes", Kind::Ban, Some(about));
    runner.succeeds(task);
    let ours = site.read("ours");
    assert_eq!(ours, "192.0.2.1\0ab;$(touch CANARY)\0cd\0$f2bV_matches\0xcdx\0");
}

#[test]
fn values_that_the_kernel_does_not_take_lose_their_oldest_lines() {
    let tells = "[Definition]\nactionban = printf %%s \"<matches>\" > <out>/ours\n";
    let site = Site::new(&[("j", "tells")], &[("tells", tells)], "");
    let mut runner = Runner::start(&site);
    let matches: Vec<String> = (0..30_000).map(|nth| format!("line {nth};")).collect();
    let task =
        runner.task("j", "tells", Kind::Ban, Some(Ticket { matches, ..ticket("192.0.2.1") }));
    runner.succeeds(task);
    let ours = site.read("ours");
    assert!(ours.len() > 100_000 && ours.starts_with("line ") && ours.ends_with("line 29999;"));
    assert!(runner.log.iter().any(|(level, text)| {
        *level == Level::Warning && text.contains("<matches>") && text.contains("oldest")
    }));
}
