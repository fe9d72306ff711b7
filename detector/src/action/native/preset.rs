//! What services that we know want to hear.
use std::{net::IpAddr, time::Duration};

use ipnet::{IpNet, Ipv6Net};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Kind, Task, Undelivered, event,
    webhook::{Client, LONGEST_WAIT},
};
use crate::{
    action::wire::Ticket,
    config::{Escape, Preset, Template},
};

/// Characters of a Telegram message, <https://core.telegram.org/bots/api#sendmessage>.
const TELEGRAM_TEXT: usize = 4096;
/// Bytes of an ntfy message; longer ones become attachments, <https://docs.ntfy.sh/publish/#limitations>.
const NTFY_TEXT: usize = 4000;
/// Characters of a Slack message, <https://docs.slack.dev/reference/methods/chat.postMessage#truncating>.
const SLACK_TEXT: usize = 4000;
/// Bytes of an AbuseIPDB comment, <https://docs.abuseipdb.com/#report-endpoint>.
const ABUSEIPDB_COMMENT: usize = 1024;
/// Characters that we write as a comment on a Cloudflare list.
const CLOUDFLARE_COMMENT: usize = 200;

/// A request before it is sent.
pub(super) struct Message<'a> {
    pub(super) method: &'a str,
    /// Appended to the service's address; may hold a token.
    pub(super) path: &'a str,
    /// Content type.
    pub(super) kind: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl<'a> Message<'a> {
    fn json(method: &'a str, path: &'a str, body: &Value) -> Message<'a> {
        let body = body.to_string().into_bytes();
        Message { method, path, kind: "application/json", headers: Vec::new(), body }
    }

    fn with(mut self, header: &'static str, value: String) -> Message<'a> {
        self.headers.push((header, value));
        self
    }
}

/// Tells a service of these events.
pub(super) fn deliver(
    preset: &Preset,
    client: &Client<'_>,
    tasks: &[&Task],
    host: &str,
) -> Result<(), Undelivered> {
    let token = client.token.map_or("", |token| token.expose());
    match preset {
        Preset::ThreatJammer { ttl, kind, tags } => {
            let mut addresses: Vec<IpAddr> = reported(tasks).map(|(_, address)| address).collect();
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() {
                return Ok(());
            }
            let mut body = json!({ "addresses": addresses, "type": kind, "tags": tags });
            if let Some(ttl) = ttl {
                body["ttl"] = json!(ttl);
            }
            let message = Message::json("POST", "/v1/ip", &body);
            let answer = client.send(message.with("Authorization", format!("Bearer {token}")))?;
            match answer.status.as_u16() {
                202 => Ok(()),
                // Its documentation: nothing else means that it was taken.
                status => Err(Undelivered::passing(format!("Threat Jammer answered {status}"))),
            }
        }
        Preset::AbuseIpDb { categories, text } => {
            let categories: Vec<String> = categories.iter().map(u8::to_string).collect();
            abuse_ip_db(client, &categories.join(","), text, tasks, host)
        }
        Preset::Slack { text } => {
            let text = texts(text, tasks, host, SLACK_TEXT)?;
            client.send(Message::json("POST", "", &json!({ "text": text }))).map(|_| ())
        }
        Preset::Telegram { chat, text } => {
            let text = texts(text, tasks, host, TELEGRAM_TEXT)?;
            let body = json!({
                "chat_id": chat,
                "text": text,
                "link_preview_options": { "is_disabled": true },
            });
            let path = format!("/bot{token}/sendMessage");
            client.send(Message::json("POST", &path, &body)).map(|_| ())
        }
        Preset::Ntfy { topic, priority, tags, text } => {
            let mut body = json!({
                "topic": topic.expose(),
                "title": format!("fail2xdp on {host}"),
                "message": texts(text, tasks, host, NTFY_TEXT)?,
                "tags": tags,
            });
            if let Some(priority) = priority {
                body["priority"] = json!(priority);
            }
            let mut message = Message::json("POST", "", &body);
            if client.token.is_some() {
                message = message.with("Authorization", format!("Bearer {token}"));
            }
            client.send(message).map(|_| ())
        }
        Preset::Cloudflare { account, list } => {
            let path = format!("/client/v4/accounts/{account}/rules/lists/{list}/items");
            let runs = tasks.chunk_by(|one, other| removes(one) == removes(other));
            for run in runs {
                match removes(run[0]) {
                    true => take_off(client, &path, run, token)?,
                    false => put_on(client, &path, run, token)?,
                }
            }
            Ok(())
        }
    }
}

/// How long a service wants to be left alone, as Telegram says it,
/// <https://core.telegram.org/bots/api#responseparameters>.
pub(super) fn wait(answer: &[u8]) -> Option<Duration> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let seconds = answer.get("parameters")?.get("retry_after")?.as_u64()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Those that were banned, with the address that failed; what has none cannot be reported.
fn reported<'a>(tasks: &'a [&Task]) -> impl Iterator<Item = (&'a Task, IpAddr)> {
    let bans = tasks.iter().filter(|task| matches!(task.kind, Kind::Ban | Kind::Prolong));
    bans.filter_map(|task| Some((*task, address(task.ticket.as_deref()?)?)))
}

fn address(ticket: &Ticket) -> Option<IpAddr> {
    ticket.ip.iter().chain([&ticket.id]).find_map(|text| text.parse().ok())
}

/// What is said of the events, one below the other; what is too long is cut, with how many are missing.
fn texts(
    template: &Template,
    tasks: &[&Task],
    host: &str,
    most: usize,
) -> Result<String, Undelivered> {
    /// For the last line.
    const ROOM: usize = 40;
    let mut text = String::new();
    for (at, task) in tasks.iter().enumerate() {
        let one = event::render(template, &[*task], host)?;
        let one = event::plain(event::beginning(one.trim(), most - ROOM));
        if text.len() + one.len() + 1 > most - ROOM {
            text.push_str(&format!("\n({} more)", tasks.len() - at));
            break;
        }
        if at > 0 {
            text.push('\n');
        }
        text.push_str(&one);
    }
    Ok(text)
}

/// One is reported alone; of several a table is sent, <https://docs.abuseipdb.com/#bulk-report-endpoint>.
fn abuse_ip_db(
    client: &Client<'_>,
    categories: &str,
    text: &Template,
    tasks: &[&Task],
    host: &str,
) -> Result<(), Undelivered> {
    let comment = |task: &Task| {
        let comment = event::render(text, &[task], host)?;
        Ok(event::plain(event::beginning(comment.trim(), ABUSEIPDB_COMMENT)))
    };
    let reported: Vec<(&Task, IpAddr)> = reported(tasks).collect();
    let (path, kind, body) = match &reported[..] {
        [] => return Ok(()),
        [(task, address)] => {
            let body = format!(
                "ip={}&categories={}&comment={}&timestamp={}",
                Escape::Form.apply(&address.to_string()),
                Escape::Form.apply(categories),
                Escape::Form.apply(&comment(task)?),
                Escape::Form.apply(&time(task)),
            );
            ("/api/v2/report", "application/x-www-form-urlencoded".to_owned(), body)
        }
        several => {
            let mut table = String::from("IP,Categories,ReportDate,Comment\n");
            for (task, address) in several {
                // A backslash escapes the quote and not itself; neither is worth the trouble.
                let comment = comment(task)?.replace(['"', '\\'], "'");
                let at = time(task);
                table.push_str(&format!("{address},\"{categories}\",{at},\"{comment}\"\n"));
            }
            // Cannot stand in the table: no line of it begins with a dash but inside a comment.
            let mark = format!("fail2xdp-{:016x}", several[0].0.at.to_bits() ^ several[0].0.seq);
            let disposition = "Content-Disposition: form-data; name=\"csv\"; filename=\"bans.csv\"";
            let body = format!(
                "--{mark}\r\n{disposition}\r\nContent-Type: text/csv\r\n\r\n{table}\r\n--{mark}--\r\n"
            );
            ("/api/v2/bulk-report", format!("multipart/form-data; boundary={mark}"), body)
        }
    };
    let key = client.token.map_or("", |token| token.expose()).to_owned();
    let headers = vec![("Key", key), ("Accept", "application/json".to_owned())];
    let body = body.into_bytes();
    let sent = client.send(Message { method: "POST", path, kind: &kind, headers, body });
    match sent {
        // The address was reported a moment ago: nothing is lost, and waiting would hold up the others.
        Err(error) if error.why.contains("once in 15 minutes") => Ok(()),
        sent => sent.map(|_| ()),
    }
}

fn time(task: &Task) -> String {
    let seconds = task.ticket.as_deref().map_or(task.at, |ticket| ticket.time);
    jiff::Timestamp::from_second(seconds as i64).map_or(String::new(), |at| at.to_string())
}

/// Whether it is no longer banned.
fn removes(task: &Task) -> bool {
    task.kind == Kind::Unban
}

/// What a ban is on Cloudflare's list, <https://developers.cloudflare.com/waf/tools/lists/custom-lists/>: IPv6 in prefixes of
/// at most /64.
fn item(task: &Task) -> Option<IpNet> {
    let id = &task.ticket.as_deref()?.id;
    let net = id.parse().or_else(|_| id.parse::<IpAddr>().map(IpNet::from)).ok()?;
    match net {
        IpNet::V6(net) if net.prefix_len() > 64 => {
            Ipv6Net::new(net.addr(), 64).ok().map(|net| net.trunc().into())
        }
        net => Some(net.trunc()),
    }
}

/// As Cloudflare writes it: a single address without a prefix.
fn written(item: IpNet) -> String {
    match item {
        IpNet::V4(net) if net.prefix_len() == 32 => net.addr().to_string(),
        net => net.to_string(),
    }
}

fn put_on(
    client: &Client<'_>,
    path: &str,
    tasks: &[&Task],
    token: &str,
) -> Result<(), Undelivered> {
    let mut items: Vec<(IpNet, Value)> = Vec::new();
    for task in tasks.iter().filter(|task| matches!(task.kind, Kind::Ban | Kind::Prolong)) {
        let Some(item) = item(task).filter(|item| !items.iter().any(|(one, _)| one == item)) else {
            continue;
        };
        let comment = format!("fail2xdp: jail {}", task.jail);
        let comment = event::one_line(event::beginning(&comment, CLOUDFLARE_COMMENT));
        items.push((item, json!({ "ip": written(item), "comment": comment })));
    }
    if items.is_empty() {
        return Ok(());
    }
    let items = items.into_iter().map(|(_, item)| item).collect();
    let message = Message::json("POST", path, &Value::Array(items));
    client.send(message.with("Authorization", format!("Bearer {token}"))).map(|_| ())
}

/// Items are removed by an id that only the list knows.
fn take_off(
    client: &Client<'_>,
    path: &str,
    tasks: &[&Task],
    token: &str,
) -> Result<(), Undelivered> {
    #[derive(Deserialize)]
    struct Found {
        result: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        id: String,
        ip: Option<String>,
    }
    let authorization = format!("Bearer {token}");
    let mut ids = Vec::new();
    for item in tasks.iter().filter_map(|task| item(task)) {
        let (kind, headers) = ("", vec![("Authorization", authorization.clone())]);
        let search = format!("{path}?search={}", Escape::Form.apply(&written(item)));
        let message = Message { method: "GET", path: &search, kind, headers, body: Vec::new() };
        let found: Found = serde_json::from_slice(&client.send(message)?.body)
            .map_err(|error| Undelivered::passing(format!("Cloudflare's list: {error}")))?;
        let is_it = |text: &str| {
            let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.is_ok_and(|net: IpNet| net == item)
        };
        let found = found.result.into_iter().filter(|one| one.ip.as_deref().is_some_and(is_it));
        ids.extend(found.map(|found| json!({ "id": found.id })));
    }
    if ids.is_empty() {
        return Ok(());
    }
    let message = Message::json("DELETE", path, &json!({ "items": ids }));
    client.send(message.with("Authorization", authorization)).map(|_| ())
}
