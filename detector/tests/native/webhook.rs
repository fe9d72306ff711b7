//! `webhook[…]` that the operator composed.
use std::{fs, net::TcpListener, slice, time::Duration};

use fail2xdp::{
    action::wire::{Kind, Past},
    config::{Batch, Native},
};
use serde_json::{Value, json};

use super::server::{Certificate, Server, ban, delivered, fine, native, task, undelivered, with};

fn body(told: &Value) -> Value {
    serde_json::from_str(told["body"].as_str().expect("text")).expect("JSON")
}

#[test]
fn an_event_is_an_object_and_several_are_a_list() {
    let server = Server::http(&fine());
    let action = native("webhook", &[("url", &format!("{}/hook?a=b", server.url()))]);
    delivered(&action, &[task(1, Kind::Start), ban(2, "192.0.2.1"), task(3, Kind::Unban)]);
    let told = server.told();
    assert_eq!((&told["method"], &told["path"]), (&json!("POST"), &json!("/hook?a=b")));
    assert_eq!(told["headers"]["content-type"], json!("application/json"));
    assert!(told["headers"]["user-agent"].as_str().expect("text").starts_with("fail2xdp/"));
    assert_eq!((&body(&told)["ip"], &body(&told)["event"]), (&json!("192.0.2.1"), &json!("ban")));

    let action = native(
        "webhook",
        &[("url", &server.url()), ("batch", "50"), ("gather", "5s"), ("on", "ban, unban")],
    );
    assert_eq!(action.batch(), Batch { most: 50, gather: Duration::from_secs(5) });
    delivered(&action, &[ban(4, "192.0.2.2"), task(5, Kind::Unban)]);
    let told = body(&server.told());
    let events: Vec<_> = told.as_array().expect("a list").iter().map(|it| &it["seq"]).collect();
    assert_eq!(events, [&json!(4), &json!(5)]);
}

#[test]
fn headers_token_method_and_template_are_the_operators() {
    let server = Server::http(&fine());
    let folder = tempfile::tempdir().expect("a directory");
    let (token, template) = (folder.path().join("token"), folder.path().join("body"));
    fs::write(&token, "first\n").expect("a file");
    let action = native(
        "webhook",
        &[
            ("url", &server.url()),
            ("method", "put"),
            ("headers", "X-Own: yes; Accept: text/plain"),
            ("token_file", token.to_str().expect("text")),
            (
                "body",
                r#"{"who": "{{ ip }}", "often": {{ of_address.failures }}, "n": {{ failures }}, "lines": {{ matches }}, "user": "{{ fields.user }}"}"#,
            ),
        ],
    );
    let hostile = "\"}, \"n\": 0, {{ ip }} \\ \n\u{0}é";
    let event = with(ban(1, "192.0.2.1"), |ticket| {
        ticket.matches = vec![hostile.into()];
        ticket.fields = [("user".into(), hostile.into())].into();
        ticket.of_address = Some(Past { failures: 7, matches: Vec::new() });
    });
    assert!(action.asks_for_address() && !action.asks_for_jail());
    delivered(&action, slice::from_ref(&event));
    let told = server.told();
    assert_eq!(told["method"], json!("PUT"));
    assert_eq!(told["headers"]["authorization"], json!("Bearer first"));
    assert_eq!(
        (&told["headers"]["x-own"], &told["headers"]["accept"]),
        (&json!("yes"), &json!("text/plain"))
    );
    assert_eq!(
        body(&told),
        json!({ "who": "192.0.2.1", "often": 7, "n": 5, "lines": [hostile], "user": hostile })
    );
    // A new token counts at once.
    fs::write(&token, "second").expect("a file");
    delivered(&action, slice::from_ref(&event));
    assert_eq!(server.told()["headers"]["authorization"], json!("Bearer second"));

    fs::write(&template, "who={{ ip }}&line={{ matches[0] }}").expect("a file");
    let template = template.to_str().expect("text");
    let action =
        native("webhook", &[("url", &server.url()), ("body_file", template), ("content", "form")]);
    delivered(&action, &[event]);
    let told = server.told();
    assert_eq!(told["headers"]["content-type"], json!("application/x-www-form-urlencoded"));
    assert_eq!(
        told["body"],
        json!(
            "who=192.0.2.1&line=%22%7D%2C%20%22n%22%3A%200%2C%20%7B%7B%20ip%20%7D%7D%20%5C%20%0A%00%C3%A9"
        )
    );
    let action = native("webhook", &[("url", &server.url()), ("method", "GET")]);
    delivered(&action, &[ban(1, "192.0.2.1")]);
    let told = server.told();
    assert_eq!((&told["method"], &told["body"]), (&json!("GET"), &json!("")));
}

#[test]
fn a_template_that_makes_no_json_is_hopeless() {
    let server = Server::http(&fine());
    for body in ["{\"a\": {{ ip }}}", "{\"a\": \"{{ nobody }}\"}"] {
        let action = native("webhook", &[("url", &server.url()), ("body", body)]);
        let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
        assert!(fault.hopeless && fault.why.contains("template"), "{fault:?}");
    }
}

#[test]
fn what_a_status_means() {
    let now = fail2xdp::clock::now().micros();
    let soon = jiff::Timestamp::from_microsecond(now + 100_000_000).expect("a time");
    let soon = soon.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let cases = [
        (json!({ "status": 204 }), None),
        (json!({ "status": 500, "body": "broken" }), Some((false, None))),
        (json!({ "status": 503, "headers": { "Retry-After": "7" } }), Some((false, Some(7)))),
        (json!({ "status": 429, "headers": { "Retry-After": soon } }), Some((false, Some(100)))),
        (
            json!({ "status": 429, "headers": { "Retry-After": "99999999" } }),
            Some((false, Some(3600))),
        ),
        (json!({ "status": 429, "headers": { "Retry-After": "soon" } }), Some((false, None))),
        (json!({ "status": 408 }), Some((false, None))),
        (json!({ "status": 400, "headers": { "Retry-After": "7" } }), Some((true, None))),
        (
            json!({ "status": 302, "headers": { "Location": "http://192.0.2.1/" } }),
            Some((true, None)),
        ),
    ];
    let answers: Vec<&Value> = cases.iter().map(|(answer, _)| answer).collect();
    let server = Server::http(&json!(answers));
    let action = native("webhook", &[("url", &server.url())]);
    for (answer, expect) in &cases {
        let Some((hopeless, retry_after)) = expect else {
            delivered(&action, &[ban(1, "192.0.2.1")]);
            continue;
        };
        let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
        assert_eq!(fault.hopeless, *hopeless, "{answer}: {fault:?}");
        let wait = fault.retry_after.map(|wait| wait.as_secs());
        let near = |wait: u64, named: u64| wait <= named && wait + 30 >= named;
        assert!(
            match (wait, retry_after) {
                (None, None) => true,
                (Some(wait), Some(named)) => near(wait, *named),
                _ => false,
            },
            "{answer}: {fault:?}"
        );
    }
}

#[test]
fn faults_of_a_server_are_passing() {
    // Down.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let down = undelivered(&native("webhook", &[("url", &url)]), &[ban(1, "192.0.2.1")]);
    assert!(!down.hopeless && down.why.starts_with(&url), "{down:?}");

    // Closes before it answers, and within its answer.
    let server = Server::http(&json!([{ "close": "before" }, { "close": "within", "body": "x" }]));
    let action = native("webhook", &[("url", &server.url())]);
    for _ in 0..2 {
        let closed = undelivered(&action, &[ban(1, "192.0.2.1")]);
        assert!(!closed.hopeless, "{closed:?}");
    }

    // Slow.
    let server = Server::http(&json!([{ "close": "never" }]));
    let action = native("webhook", &[("url", &server.url()), ("timeout", "1s")]);
    let slow = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert_eq!(slow.why, format!("{} did not answer within 1 s", server.url()));
    assert!(!slow.hopeless);
}

#[test]
fn certificates_are_checked() {
    let (ours, others) = (Certificate::make(), Certificate::make());
    let server = Server::https(&fine(), &ours);
    let url = format!("https://localhost:{}/hook", server.port);
    let of = |url: &str, file: &str| native("webhook", &[("url", url), ("ca_file", file)]);
    delivered(&of(&url, ours.pem()), &[ban(1, "192.0.2.1")]);
    assert_eq!(server.told()["path"], json!("/hook"));
    // Another's, the system's, and the right one under a wrong name.
    let wrong_name = format!("https://127.0.0.2:{}/", server.port);
    for action in
        [of(&url, others.pem()), native("webhook", &[("url", &url)]), of(&wrong_name, ours.pem())]
    {
        let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
        assert!(!fault.hopeless, "{fault:?}");
    }
}

#[test]
fn nothing_secret_is_ever_shown() {
    let answer = json!([{ "status": 403, "body": "who is s3cr3t-token at /s3cr3t-path with s3cr3t-header?" }]);
    let server = Server::http(&answer);
    let action: Native = native(
        "webhook",
        &[
            ("url", &format!("{}/s3cr3t-path", server.url())),
            ("token", "s3cr3t-token"),
            ("headers", "X-Key: s3cr3t-header"),
        ],
    );
    let fault = undelivered(&action, &[ban(1, "192.0.2.1")]);
    assert_eq!(
        fault.why,
        format!("{} answered 403 Forbidden: who is *** at *** with ***?", server.url())
    );
    let shown = format!("{action:?} {:?} {fault:?}", action.properties());
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(shown.contains(&format!("{}/***", server.url())), "{shown}");
}
