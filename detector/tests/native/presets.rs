//! What services get to hear: each request is held against the documentation of its service.
use fail2xdp::action::wire::Kind;
use serde_json::{Value, json};

use super::server::{Server, ban, delivered, fine, host, native, task, undelivered, with};

fn body(told: &Value) -> Value {
    serde_json::from_str(told["body"].as_str().expect("text")).expect("JSON")
}

/// Method, path, who we say we are, and content type.
#[track_caller]
fn check(told: &Value, method: &str, path: &str, header: (&str, &str)) {
    assert_eq!((&told["method"], &told["path"]), (&json!(method), &json!(path)));
    assert_eq!(told["headers"][header.0], json!(header.1), "{told}");
}

/// <https://threatjammer.com/docs/introduction-threat-jammer-report-api>
#[test]
fn threat_jammer_gets_addresses_ttl_type_and_tags() {
    let server = Server::http(&json!([{ "status": 202 }, { "status": 200 }]));
    let action = native(
        "webhook",
        &[
            ("preset", "threatjammer"),
            ("url", &format!("{}/", server.url())),
            ("token", "t0ken"),
            ("ttl", "2h"),
            ("type", "ABUSE"),
            ("tags", "ssh, fail2xdp"),
        ],
    );
    let batch = action.batch();
    assert_eq!(
        (batch.most, batch.gather.as_secs()),
        (100, 10),
        "six requests a minute are allowed"
    );
    let network = with(ban(3, "2001:db8::/64"), |it| it.ip = Some("2001:db8::7".into()));
    let nobody = ban(4, "no address");
    let tasks = [ban(1, "192.0.2.1"), ban(2, "192.0.2.1"), network, nobody];
    delivered(&action, &tasks);
    let told = server.told();
    check(&told, "POST", "/v1/ip", ("authorization", "Bearer t0ken"));
    assert_eq!(
        body(&told),
        json!({ "addresses": ["192.0.2.1", "2001:db8::7"], "ttl": 7200, "type": "ABUSE", "tags": ["ssh", "fail2xdp"] })
    );
    let fault = undelivered(&action, &tasks[..1]);
    assert!(!fault.hopeless, "only 202 says that it was taken: {fault:?}");
}

/// <https://docs.abuseipdb.com/#report-endpoint> and <https://docs.abuseipdb.com/#bulk-report-endpoint>
#[test]
fn abuseipdb_gets_a_report_or_a_table() {
    let twice = json!({ "errors": [{
        "detail": "You can only report the same IP address (`192.0.2.1`) once in 15 minutes.", "status": 429,
    }] });
    let server =
        Server::http(&json!([{}, {}, { "status": 429, "body": twice }, { "status": 429 }]));
    let of = |parameters: &[(&str, &str)]| {
        let url = server.url();
        let own =
            [("preset", "abuseipdb"), ("url", &url), ("token", "k3y"), ("categories", "18,22")];
        native("webhook", &[&own, parameters].concat())
    };
    let action = of(&[]);
    assert_eq!(action.batch().most, 1);
    let many = of(&[("batch", "100"), ("text", "{{ jail }}, {{ fields.user }}")]);
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let told = server.told();
    check(&told, "POST", "/api/v2/report", ("key", "k3y"));
    assert_eq!(told["headers"]["content-type"], json!("application/x-www-form-urlencoded"));
    assert_eq!(
        told["body"],
        json!(
            "ip=192.0.2.1&categories=18%2C22&comment=Banned%20by%20jail%20sshd%20after%205%20failures&timestamp=2026-09-21T14%3A13%3A20Z"
        )
    );
    let odd = with(ban(2, "192.0.2.2"), |it| {
        it.fields = [("user".into(), "a\"\\\",\n192.0.2.99,1,,".into())].into();
    });
    let plain = with(ban(3, "2001:db8::7"), |it| it.fields = [("user".into(), "b".into())].into());
    delivered(&many, &[odd, plain]);
    let told = server.told();
    assert_eq!(told["path"], json!("/api/v2/bulk-report"));
    let kind = told["headers"]["content-type"].as_str().expect("text");
    let mark = kind.strip_prefix("multipart/form-data; boundary=").expect("a mark");
    let body = told["body"].as_str().expect("text");
    let table = "IP,Categories,ReportDate,Comment\n\
        192.0.2.2,\"18,22\",2026-09-21T14:13:20Z,\"sshd, a''',\n192.0.2.99,1,,\"\n\
        2001:db8::7,\"18,22\",2026-09-21T14:13:20Z,\"sshd, b\"\n";
    assert_eq!(
        body,
        format!(
            "--{mark}\r\nContent-Disposition: form-data; name=\"csv\"; filename=\"bans.csv\"\r\n\
             Content-Type: text/csv\r\n\r\n{table}\r\n--{mark}--\r\n"
        )
    );
    // Told a moment ago: that is no fault. Any other 429 is.
    delivered(&action, &[ban(4, "192.0.2.1")]);
    assert!(!undelivered(&action, &[ban(5, "192.0.2.1")]).hopeless);
}

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
#[test]
fn slack_gets_text_that_calls_nobody() {
    let server = Server::http(&fine());
    let url = format!("{}/services/T0/B0/XXX", server.url());
    let action = native("webhook", &[("preset", "slack"), ("url", &url), ("on", "ban,unban")]);
    delivered(&action, &[ban(1, "192.0.2.1"), task(2, Kind::Unban)]);
    let told = server.told();
    check(&told, "POST", "/services/T0/B0/XXX", ("content-type", "application/json"));
    let host = host();
    assert_eq!(
        body(&told),
        json!({ "text": format!(
            "[sshd] banned 192.0.2.1 for 10m after 5 failures on {host}\n[sshd] unbanned 203.0.113.9 on {host}"
        ) })
    );
    let text = "*{{ jail }}*: <https://example.com/{{ ip }}|{{ fields.user }}>";
    let action = native("webhook", &[("preset", "slack"), ("url", &url), ("text", text)]);
    let odd = with(ban(1, "192.0.2.1"), |it| {
        it.fields = [("user".into(), "<!channel> & \"x\"".into())].into();
    });
    delivered(&action, &[odd]);
    assert_eq!(
        body(&server.told()),
        json!({ "text": "*sshd*: <https://example.com/192.0.2.1|&lt;!channel&gt; &amp; \"x\">" })
    );
}

/// <https://core.telegram.org/bots/api#sendmessage>
#[test]
fn telegram_gets_a_message_and_says_when_to_come_again() {
    let later = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": 17 } });
    let wrong = json!({ "ok": false, "description": "bot 123:s3cr3t is no bot" });
    let server = Server::http(
        &json!([{}, {}, { "status": 429, "body": later }, { "status": 401, "body": wrong }]),
    );
    let action = native(
        "webhook",
        &[
            ("preset", "telegram"),
            ("url", &server.url()),
            ("token", "123:s3cr3t"),
            ("chat", "-1001"),
        ],
    );
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let told = server.told();
    check(&told, "POST", "/bot123:s3cr3t/sendMessage", ("content-type", "application/json"));
    let text = format!("[sshd] banned 192.0.2.1 for 10m after 5 failures on {}", host());
    assert_eq!(
        body(&told),
        json!({ "chat_id": "-1001", "text": text, "link_preview_options": { "is_disabled": true } })
    );
    let many: Vec<_> = (0..20).map(|seq| ban(seq, &format!("{}x", "y".repeat(1000)))).collect();
    delivered(&action, &many);
    let told = body(&server.told());
    let text = told["text"].as_str().expect("text");
    assert!(text.chars().count() <= 4096 && text.ends_with("(17 more)"), "{text}");
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert_eq!((fault.hopeless, fault.retry_after.map(|it| it.as_secs())), (false, Some(17)));
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert!(fault.hopeless, "{fault:?}");
    let shown = format!("{action:?} {:?} {fault:?}", action.properties());
    assert!(!shown.contains("s3cr3t"), "{shown}");
}

/// <https://docs.ntfy.sh/publish/#publish-as-json>
#[test]
fn ntfy_gets_a_message_on_its_topic() {
    let server = Server::http(&fine());
    let own = [("preset", "ntfy"), ("topic", "my-t0pic")];
    let url = server.url();
    let action = native(
        "webhook",
        &[&own[..], &[("url", &url), ("priority", "4"), ("tags", "lock"), ("token", "tk_1")]]
            .concat(),
    );
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let told = server.told();
    check(&told, "POST", "/", ("authorization", "Bearer tk_1"));
    let host = host();
    assert_eq!(
        body(&told),
        json!({
            "topic": "my-t0pic", "title": format!("fail2xdp on {host}"), "priority": 4, "tags": ["lock"],
            "message": format!("[sshd] banned 192.0.2.1 for 10m after 5 failures on {host}"),
        })
    );
    let action = native("webhook", &[&own[..], &[("url", &url)]].concat());
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let told = server.told();
    assert!(told["headers"]["authorization"].is_null() && body(&told)["priority"].is_null());
}

/// <https://developers.cloudflare.com/waf/tools/lists/lists-api/endpoints/>
#[test]
fn cloudflares_list_holds_what_is_banned() {
    let found = json!({ "result": [
        { "id": "1d0ther", "ip": "192.0.2.10", "comment": "another" },
        { "id": "1dofit", "ip": "192.0.2.1" },
    ], "success": true });
    let none = json!({ "result": [], "success": true });
    let server = Server::http(&json!([{ "status": 201 }, { "body": found }, {}, { "body": none }]));
    let url = server.url();
    let own = [("preset", "cloudflare"), ("token", "t0ken"), ("account", "ac1"), ("list", "li5t")];
    let action = native("webhook", &[&own[..], &[("url", &url)]].concat());
    let path = "/client/v4/accounts/ac1/rules/lists/li5t/items";
    let mut over = task(5, Kind::Unban);
    over.ticket.as_mut().expect("somebody").id = "192.0.2.1".into();
    let bans = [
        ban(1, "192.0.2.1"),
        ban(2, "2001:db8:0:7::9"),
        ban(3, "2001:db8:0:7::/64"),
        ban(4, "198.51.100.0/24"),
        ban(4, "no address"),
    ];
    delivered(&action, &[&bans[..], &[over.clone()]].concat());
    let told = server.told();
    check(&told, "POST", path, ("authorization", "Bearer t0ken"));
    let comment = "fail2xdp: jail sshd";
    assert_eq!(
        body(&told),
        json!([
            { "ip": "192.0.2.1", "comment": comment },
            { "ip": "2001:db8:0:7::/64", "comment": comment },
            { "ip": "198.51.100.0/24", "comment": comment },
        ])
    );
    let search = format!("{path}?search=192.0.2.1");
    check(&server.told(), "GET", &search, ("authorization", "Bearer t0ken"));
    let told = server.told();
    check(&told, "DELETE", path, ("authorization", "Bearer t0ken"));
    assert_eq!(body(&told), json!({ "items": [{ "id": "1dofit" }] }));
    // What is no longer there need not be removed.
    over.ticket.as_mut().expect("somebody").id = "2001:db8::7".into();
    delivered(&action, &[over]);
    let search = format!("{path}?search=2001%3Adb8%3A%3A%2F64");
    check(&server.told(), "GET", &search, ("authorization", "Bearer t0ken"));
}
