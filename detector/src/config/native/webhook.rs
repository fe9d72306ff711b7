//! `webhook[…]`.
use std::{path::PathBuf, time::Duration};

use super::{Escape, MOST_WORDS, Occasion, Params, Secret, SecretPlace, Template};

/// Most tasks of one request.
const MOST_IN_BATCH: usize = 1_000;

/// A request to a web service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it goes, with whatever is secret in it; of a preset what its paths are appended to.
    pub url: Secret,
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// Headers, by name.
    pub headers: Vec<(String, Secret)>,
    /// What is sent.
    pub body: Body,
    /// Who we are to the service: `Authorization: Bearer …`, or what the preset makes of it.
    pub token: Option<SecretPlace>,
    /// Tasks of one request at the most, at least 1.
    pub batch: usize,
    /// How long the first of them waits for others.
    pub gather: Duration,
    /// How long a request may take.
    pub timeout: Duration,
    /// Certificates that are trusted in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// What a request holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The event as an object of JSON, or several as a list where `batch` allows more than one.
    Events,
    /// What a template makes of them.
    Template(Template),
    /// The same; the template is read from a file at each use.
    TemplateFile(PathBuf, Escape),
    /// What a service that we know wants.
    Preset(Preset),
}

/// A service that we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preset {
    /// <https://threatjammer.com/docs/introduction-threat-jammer-report-api>
    ThreatJammer {
        /// How long the service keeps the report, in seconds; `None`: as the service does, a day.
        ttl: Option<u64>,
        /// The kind of report (`ABUSE`).
        kind: String,
        /// Words that it is found by.
        tags: Vec<String>,
    },
    /// <https://docs.abuseipdb.com/#report-endpoint>
    AbuseIpDb {
        /// Numbers of what it was, <https://www.abuseipdb.com/categories>.
        categories: Vec<u8>,
        /// What is said of each in public.
        text: Template,
    },
    /// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
    Slack {
        /// What is said of each event.
        text: Template,
    },
    /// <https://core.telegram.org/bots/api#sendmessage>
    Telegram {
        /// The chat: a number, or `@name` of a channel.
        chat: String,
        /// What is said of each event.
        text: Template,
    },
    /// <https://docs.ntfy.sh/publish/#publish-as-json>
    Ntfy {
        /// The topic.
        topic: Secret,
        /// From 1 to 5; `None`: as usual.
        priority: Option<u8>,
        /// Words or emojis.
        tags: Vec<String>,
        /// What is said of each event.
        text: Template,
    },
    /// <https://developers.cloudflare.com/waf/tools/lists/lists-api/>: bans are on a list as long as they last.
    Cloudflare {
        /// The account's id.
        account: String,
        /// The list's id.
        list: String,
    },
}

impl Webhook {
    /// Whether its template speaks of this value. What stands in a file is not known here.
    pub(super) fn mentions(&self, value: &str) -> bool {
        match &self.body {
            Body::Events => false,
            Body::Template(template) => template.text.contains(value),
            Body::TemplateFile(..) => true,
            Body::Preset(
                Preset::AbuseIpDb { text, .. }
                | Preset::Slack { text }
                | Preset::Telegram { text, .. }
                | Preset::Ntfy { text, .. },
            ) => text.text.contains(value),
            Body::Preset(Preset::ThreatJammer { .. } | Preset::Cloudflare { .. }) => false,
        }
    }
}

/// Scheme, host and port of an address, without user and path.
pub(super) fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    Some(format!("{scheme}://{host}"))
}

impl Webhook {
    /// Where it goes, without what is secret.
    pub fn origin(&self) -> String {
        origin(self.url.expose()).unwrap_or_else(|| super::HIDDEN.to_owned())
    }
}

const NAMES: [&str; 6] = ["threatjammer", "abuseipdb", "slack", "telegram", "ntfy", "cloudflare"];

/// Reads one, and what it is told of unless `on` says else.
pub(super) fn read(params: &mut Params) -> (Webhook, &'static [Occasion]) {
    let token = params.secret("token", "token_file");
    let remedy = format!("write one of `{}`", NAMES.join("`, `"));
    let known = |word: &str| NAMES.into_iter().find(|name| *name == word);
    let name = params.read("preset", &remedy, known);
    let (body, service) = match name {
        Some(name) => (Body::Preset(preset(params, name)), service(name)),
        None => (own_body(params), GENERIC),
    };
    if service.wants_token && token.is_none() {
        params.needed(
            "token",
            "write `token_file = /etc/fail2xdp/…`, a file that only root may read",
        );
    }
    let url = match service.url {
        "" => params.needed("url", "write the address that the service gave you, in quotes"),
        usual => params.text("url").unwrap_or(usual).trim_end_matches('/'),
    };
    if !url.is_empty() && !is_url(url) {
        params.fault("url", "it is no address", "write `https://…` or `http://…`, in quotes");
    }
    let post = match name {
        Some(_) => "POST".to_owned(),
        None => method(params),
    };
    let webhook = Webhook {
        url: Secret::new(url),
        method: post,
        headers: headers(params),
        body,
        token,
        batch: params.number("batch", 1..=MOST_IN_BATCH).unwrap_or(service.batch),
        gather: params.span("gather", 0..=3_600).unwrap_or(Duration::from_secs(service.gather)),
        timeout: params.span("timeout", 1..=600).unwrap_or(Duration::from_secs(30)),
        ca_file: params.path("ca_file"),
    };
    (webhook, service.on)
}

/// What differs from service to service.
struct Service {
    /// Where it is; empty where each user has an address of its own.
    url: &'static str,
    wants_token: bool,
    batch: usize,
    /// Seconds.
    gather: u64,
    on: &'static [Occasion],
}

const GENERIC: Service =
    Service { url: "", wants_token: false, batch: 1, gather: 0, on: &[Occasion::Ban] };

fn service(name: &str) -> Service {
    match name {
        // Six requests a minute are allowed.
        "threatjammer" => Service {
            url: "https://dublin.report.threatjammer.com",
            wants_token: true,
            batch: 100,
            gather: 10,
            ..GENERIC
        },
        // A report of many has a daily limit of its own, far below that of single ones.
        "abuseipdb" => Service { url: "https://api.abuseipdb.com", wants_token: true, ..GENERIC },
        "slack" => Service { batch: 20, ..GENERIC },
        "telegram" => {
            Service { url: "https://api.telegram.org", wants_token: true, batch: 20, ..GENERIC }
        }
        "ntfy" => Service { url: "https://ntfy.sh", batch: 20, ..GENERIC },
        _ => Service {
            url: "https://api.cloudflare.com",
            wants_token: true,
            batch: 100,
            on: &[Occasion::Ban, Occasion::Unban],
            ..GENERIC
        },
    }
}

fn preset(params: &mut Params, name: &str) -> Preset {
    match name {
        "threatjammer" => Preset::ThreatJammer {
            ttl: params.span("ttl", 1..=u32::MAX).map(|ttl| ttl.as_secs()),
            kind: params.text("type").unwrap_or("ABUSE").to_owned(),
            tags: tags(params),
        },
        "abuseipdb" => {
            let known = "write numbers such as `18,22`, see https://www.abuseipdb.com/categories";
            let words = params.words("categories");
            let categories: Vec<u8> = words
                .iter()
                .filter_map(|word| word.parse().ok().filter(|number| (1..=23).contains(number)))
                .collect();
            if words.is_empty() {
                params.needed("categories", known);
            } else if categories.len() < words.len() {
                params.fault("categories", "not all of them exist", known);
            }
            // Nothing of the log: everybody may read it.
            let usual = "Banned by jail {{ jail }} after {{ failures }} failures";
            Preset::AbuseIpDb { categories, text: text(params, usual, Escape::Nothing) }
        }
        "slack" => Preset::Slack { text: text(params, SENTENCE, Escape::Slack) },
        "telegram" => Preset::Telegram {
            chat: params.needed("chat", "write the chat's number, or `@name`").to_owned(),
            text: text(params, SENTENCE, Escape::Nothing),
        },
        "ntfy" => Preset::Ntfy {
            topic: Secret::new(
                params.needed("topic", "write the topic that your devices listen to"),
            ),
            priority: params
                .number("priority", 1..=5)
                .and_then(|priority| u8::try_from(priority).ok()),
            tags: tags(params),
            text: text(params, SENTENCE, Escape::Nothing),
        },
        _ => Preset::Cloudflare { account: id(params, "account"), list: id(params, "list") },
    }
}

/// Words that a report or message is found by.
fn tags(params: &mut Params) -> Vec<String> {
    let tags = params.words("tags");
    if tags.len() > MOST_WORDS {
        params.fault("tags", "these are too many", "write at most 100");
    }
    tags
}

/// Cloudflare's ids are 32 digits; what would change the path of the request is none.
fn id(params: &mut Params, name: &'static str) -> String {
    let id = params.needed(name, "write its id, as the dashboard's address shows it");
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        params.fault(name, "it is no id", "write the 32 digits that the dashboard's address shows");
    }
    id.to_owned()
}

/// What is said of an event unless `text` says else.
const SENTENCE: &str = "{{ sentence }}";

fn text(params: &mut Params, usual: &str, escape: Escape) -> Template {
    let text = params.text("text").unwrap_or(usual).to_owned();
    checked(params, "text", Template { text, escape })
}

fn checked(params: &mut Params, name: &'static str, template: Template) -> Template {
    if let Some(fault) = template.fault() {
        params.fault(name, &fault, "a value is written as `{{ ip }}`; see docs/native-actions.md");
    }
    template
}

fn own_body(params: &mut Params) -> Body {
    let kind = params.text("content").map(str::to_ascii_lowercase);
    let escape = match kind.as_deref() {
        None | Some("json") => Escape::Json,
        Some("form") => Escape::Form,
        Some("text") => Escape::Nothing,
        Some(_) => {
            params.fault("content", "it is no kind of body", "write `json`, `form` or `text`");
            Escape::Json
        }
    };
    let file = params.path("body_file");
    let Some(text) = params.text("body") else {
        return file.map_or(Body::Events, |file| Body::TemplateFile(file, escape));
    };
    if file.is_some() {
        params.fault("body_file", "`body` is given as well", "keep one of the two");
    }
    let template = Template { text: text.to_owned(), escape };
    Body::Template(checked(params, "body", template))
}

fn method(params: &mut Params) -> String {
    const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let method = params.read("method", "write `POST`, `PUT`, `PATCH`, `DELETE` or `GET`", |word| {
        METHODS.into_iter().find(|method| method.eq_ignore_ascii_case(word))
    });
    method.unwrap_or("POST").to_owned()
}

/// `Name: value`, one a line or with `;` between them.
fn headers(params: &mut Params) -> Vec<(String, Secret)> {
    let mut headers = Vec::new();
    for line in params.text("headers").unwrap_or_default().split(['\n', ';']) {
        let line = line.trim();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        match line.split_once(':') {
            _ if line.is_empty() => {}
            Some((name, value))
                if !name.is_empty()
                    && name.chars().all(is_token)
                    && !value.contains(|c: char| c.is_control() || !c.is_ascii()) =>
            {
                headers.push((name.to_owned(), Secret::new(value.trim())));
            }
            _ => {
                params.fault(
                    "headers",
                    "one of them is no header",
                    "write `Name: value; Other: value`",
                );
                break;
            }
        }
    }
    if headers.len() > MOST_WORDS {
        params.fault("headers", "these are too many", "write at most 100");
    }
    headers
}

/// Whether requests can be sent there.
fn is_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    matches!(scheme, "http" | "https") && !host.is_empty() && url.parse::<ureq::http::Uri>().is_ok()
}
