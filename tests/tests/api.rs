//! Promise: what the socket answers has stable names, events come as they happen, and Prometheus can read the metrics.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fail2xdp_tests::{ATTACKER, Echo, Net, SERVER, Site, is_dropped, until};
use serde_json::Value;

/// Long enough for an answer, also on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// Sends one request; the status line, the headers, and the body as far as it came.
fn get(mut stream: impl Read + Write, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

fn ask(site: &Site, path: &str) -> (String, String) {
    let stream = UnixStream::connect(site.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(SOON)).expect("not zero");
    get(stream, path)
}

fn json(site: &Site, path: &str) -> Value {
    let (head, body) = ask(site, path);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// The names in an answer and what stands there: `jails[].name: string`.
fn shape(of: &Value, path: &str, into: &mut BTreeSet<String>) {
    let kind = match of {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| shape(item, &format!("{path}[]"), into));
            "list"
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| shape(value, &format!("{path}.{name}"), into));
            return;
        }
    };
    into.insert(format!("{path}: {kind}"));
}

/// Compares with a snapshot in `testdata`; FAIL2XDP_BLESS=1 writes it.
#[track_caller]
fn check_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("FAIL2XDP_BLESS").is_some() {
        std::fs::write(&path, text).expect("testdata can be written");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, known, "{name}: names that others rely on; FAIL2XDP_BLESS=1 takes them over");
}

fn documentation() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    std::fs::read_to_string(path).expect("docs/api.md")
}

fn busy_site<'net>(net: &'net Net, metrics: &str) -> Site<'net> {
    let site = Site::new(net);
    site.log("guard.log");
    site.log("trial.log");
    let jail = |name: &str, more: &str| {
        let options =
            format!("port = 2222\nmaxretry = 2\nbantime = 600\nignoreip = 198.51.100.0/24\n{more}");
        site.jail(name, &format!("{name}.log"), &options)
    };
    site.jails(&(jail("guard", "") + &jail("trial", "observe = yes")));
    site.settings(&format!("[Definition]\nallow = 203.0.113.0/24\n{metrics}"));
    site
}

#[test]
fn answers_have_the_names_that_are_documented() {
    let net = Net::new("api");
    let site = busy_site(&net, "");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v6, 2222));
    let _daemon = site.start();
    site.wait_following("guard");
    let mut log = site.log("guard.log");
    log.wrong_password(ATTACKER.v6);
    log.wrong_password(ATTACKER.v6);
    site.wait_banned("fd09:0:0:2::/64");
    assert!(is_dropped(&net.clients, ATTACKER.v6, echo.address()));
    log.wrong_password("192.0.2.7".parse().expect("an address"));
    until(SOON, "one that is counted", || {
        (json(&site, "/v1/explain/192.0.2.7")["jails"][0]["attempts"] == 1).then_some(())
    });
    let mut text = String::new();
    for (path, more) in [
        ("/v1/ping", &[][..]),
        ("/v1/status", &[]),
        ("/v1/jails", &[]),
        ("/v1/jails/guard", &[]),
        ("/v1/bans", &[]),
        ("/v1/banned", &[]),
        ("/v1/top", &[]),
        (
            "/v1/explain/fd09:0:0:2::1",
            &["/v1/explain/192.0.2.7", "/v1/explain/198.51.100.1", "/v1/explain/203.0.113.1"],
        ),
    ] {
        let mut names = BTreeSet::new();
        for path in [path].iter().chain(more) {
            shape(&json(&site, path), "", &mut names);
        }
        if path == "/v1/top" {
            // Its status is the one above; what comes last may not have come yet.
            names.retain(|name| !name.starts_with(".status.") && !name.contains("last"));
        }
        let _ = writeln!(text, "GET {path}");
        for name in &names {
            let _ = writeln!(text, "  {name}");
        }
    }
    check_snapshot("api.txt", &text);
    let documented = documentation();
    for line in text.lines().filter(|line| !line.starts_with("GET")) {
        let name = line.trim().split(':').next().unwrap_or_default().rsplit('.').next();
        let name = name.unwrap_or_default().trim_end_matches("[]");
        assert!(documented.contains(&format!("`{name}`")), "docs/api.md says nothing of `{name}`");
    }
    let (head, body) = ask(&site, "/v1/explain/example");
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("is no address"), "{head}: {body}");
    assert!(ask(&site, "/v1/nothing").0.starts_with("HTTP/1.1 404"));
}

#[test]
fn events_come_as_they_happen() {
    let net = Net::new("events");
    let site = busy_site(&net, "");
    let mut daemon = site.start();
    site.wait_following("guard");
    let mut stream = UnixStream::connect(site.socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(SOON)).expect("not zero");
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").expect("it takes a request");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line in time"));
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(head[0].starts_with("HTTP/1.1 200"), "{head:?}");
    assert!(head.contains(&"content-type: application/x-ndjson".to_owned()), "{head:?}");
    let mut next = |event: &str| -> Value {
        // Between the lines stand the lengths of the chunks.
        let line = lines.find(|line| line.starts_with('{')).expect("an event");
        let told: Value = serde_json::from_str(&line).expect("an object");
        assert_eq!(told["event"], event, "{told}");
        assert!(told["time"].as_f64() > Some(1.7e9), "{told}");
        told
    };
    let mut log = site.log("guard.log");
    log.wrong_password(ATTACKER.v4);
    let found = next("finding");
    assert_eq!((&found["jail"], &found["address"]), (&"guard".into(), &"10.9.0.2".into()));
    log.wrong_password(ATTACKER.v4);
    assert_eq!(next("finding")["failures"], 2);
    let ban = next("ban");
    assert_eq!((&ban["address"], &ban["failures"]), (&"10.9.0.2".into(), &2.into()), "{ban}");
    assert!(ban["regex"].to_string().contains("<HOST>"), "{ban}");
    assert_eq!(ban["lines"].as_array().map(Vec::len), Some(2), "{ban}");
    log.wrong_password("198.51.100.7".parse().expect("an address"));
    assert_eq!(next("finding")["ignored"], "ignoreip 198.51.100.0/24");
    site.unban("10.9.0.2");
    assert_eq!(next("unban")["why"], "by hand");
    site.settings("[Definition]\nallow = 203.0.113.0/25\n");
    site.text(&["reload"]);
    assert!(next("reload")["what"].to_string().contains("allow"));
    // It ends with the daemon, and does not keep it.
    site.text(&["stop"]);
    daemon.wait(Duration::from_secs(5));
    assert!(lines.all(|line| !line.starts_with('{')), "nothing more is told");
}

/// Family, type, and the names of its labels.
fn families(text: &str) -> BTreeMap<String, String> {
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            families.insert(name.to_owned(), kind.to_owned());
        } else if let Some((name, labels)) = line.split_once('{')
            && !line.starts_with('#')
        {
            let known = families.get_mut(name).expect("the type comes first");
            let labels: Vec<&str> =
                labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0)).collect();
            let labels = format!(" {{{}}}", labels.join(","));
            if !known.contains(&labels) {
                known.push_str(&labels);
            }
        }
    }
    families
}

fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{sample} ")));
    let line = line.unwrap_or_else(|| panic!("no `{sample}` in {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[test]
fn prometheus_can_read_the_metrics() {
    let net = Net::new("metrics");
    let site = busy_site(&net, "metrics = 127.0.0.1:9418\n");
    let echo = Echo::listen(&net.server, SocketAddr::new(SERVER.v4, 2222));
    let _daemon = site.start();
    site.wait_following("guard");
    let mut log = site.log("guard.log");
    log.wrong_password(ATTACKER.v4);
    log.wrong_password(ATTACKER.v4);
    site.wait_banned("10.9.0.2");
    assert!(is_dropped(&net.clients, ATTACKER.v4, echo.address()));
    let (head, text) = ask(&site, "/v1/metrics");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(value(&text, "fail2xdp_jail_findings_total{jail=\"guard\"}"), 2.0);
    assert_eq!(value(&text, "fail2xdp_jail_bans_total{jail=\"guard\"}"), 1.0);
    let action = "fail2xdp_jail_action_results_total{jail=\"guard\",action=\"ban\",result";
    assert_eq!(value(&text, &format!("{action}=\"done\"}}")), 1.0);
    assert_eq!(value(&text, &format!("{action}=\"failed\"}}")), 0.0);
    assert_eq!(value(&text, "fail2xdp_jail_observe{jail=\"trial\"}"), 1.0);
    assert_eq!(value(&text, "fail2xdp_map_entries{map=\"BANS_V4\"}"), 1.0);
    let dropped = value(&text, "fail2xdp_interface_dropped_packets_total{interface=\"s0\"}");
    assert!(dropped >= 1.0);
    assert_eq!(dropped, value(&text, "fail2xdp_packets_total{outcome=\"dropped\"}"));
    assert!(value(&text, "fail2xdp_interface_packets_total{interface=\"s0\"}") >= 1.0);
    assert_eq!(value(&text, "fail2xdp_interface_mode{interface=\"s0\",mode=\"native\"}"), 1.0);
    let log_name = site.path("guard.log").display().to_string();
    let of_log = |name: &str| {
        value(&text, &format!("fail2xdp_{name}{{jail=\"guard\",source=\"{log_name}\"}}"))
    };
    assert_eq!(of_log("source_up"), 1.0);
    assert!(
        of_log("source_last_line_timestamp_seconds") > 1.7e9 && of_log("source_lag_seconds") < 60.0
    );

    let families = families(&text);
    let shown: String = families.iter().map(|(name, kind)| format!("{name} {kind}\n")).collect();
    check_snapshot("metrics.txt", &shown);
    let documented = documentation();
    for name in families.keys() {
        assert!(documented.contains(&format!("`{name}`")), "docs/api.md says nothing of `{name}`");
    }
    // Debian's own reader of the format: names, types, labels, and each family once.
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs `/usr/bin/python3`: install the package `python3`");
    python.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "prometheus_client (install the package `python3-prometheus-client`): {said}"
    );
    let parsed: usize =
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("how many samples");
    assert_eq!(parsed, text.lines().filter(|line| !line.starts_with('#')).count());

    // The same on the address that is configured, and nothing else there.
    let there = |path: &str| {
        let stream = net.server.enter(|| TcpStream::connect("127.0.0.1:9418")).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("not zero");
        get(stream, path)
    };
    let (head, over_tcp) = there("/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("version=0.0.4"), "{head}");
    assert_eq!(
        self::families(&over_tcp).keys().collect::<Vec<_>>(),
        families.keys().collect::<Vec<_>>()
    );
    assert!(there("/v1/status").0.starts_with("HTTP/1.1 404"));
}

const PARSE: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
names = [family.name for family in families]
assert len(names) == len(set(names)), names
assert all(family.documentation and family.type != 'unknown' for family in families)
print(sum(len(family.samples) for family in families))
";
