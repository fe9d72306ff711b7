//! A request to a web service.
use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::{Timestamp, fmt::rfc2822};
use ureq::{
    Agent,
    http::{HeaderMap, Request, StatusCode, Uri},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    Task, Undelivered, event,
    preset::{self, Message},
    secret,
};
use crate::{
    clock,
    config::{Body, Escape, HIDDEN, Secret, Template, Webhook},
};

/// Bytes of an answer that are read; what is more ends the request.
const LONGEST_ANSWER: u64 = 1 << 20;
/// Bytes of a request at the most.
const LONGEST_BODY: usize = 4 << 20;
/// Longest time that a service may ask us to stay away.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// What we are to web servers.
const AGENT: &str = concat!("fail2xdp/", env!("CARGO_PKG_VERSION"));

pub(super) fn deliver(webhook: &Webhook, tasks: &[&Task], host: &str) -> Result<(), Undelivered> {
    let token = webhook.token.as_ref().map(secret).transpose()?;
    let client = Client::new(webhook, token.as_ref())?;
    match &webhook.body {
        Body::Preset(preset) => preset::deliver(preset, &client, tasks, host),
        Body::Events => {
            let events: Vec<_> = tasks.iter().map(|task| event::event(task, host)).collect();
            let body = match (&events[..], webhook.batch) {
                ([event], 1) => serde_json::to_vec(event),
                (events, _) => serde_json::to_vec(events),
            };
            let body = body.map_err(|error| Undelivered::hopeless(error.to_string()))?;
            own(webhook, &client, "application/json", body)
        }
        Body::Template(template) => {
            let (kind, body) = rendered(template, tasks, host)?;
            own(webhook, &client, kind, body)
        }
        Body::TemplateFile(file, escape) => {
            let text = fs::read_to_string(file).map_err(|error| {
                Undelivered::passing(format!("cannot read {}: {error}", file.display()))
            })?;
            let (kind, body) = rendered(&Template { text, escape: *escape }, tasks, host)?;
            own(webhook, &client, kind, body)
        }
    }
}

/// Sends what the operator composed.
fn own(
    webhook: &Webhook,
    client: &Client<'_>,
    kind: &str,
    body: Vec<u8>,
) -> Result<(), Undelivered> {
    let mut headers = Vec::new();
    if let Some(token) = client.token {
        headers.push(("Authorization", format!("Bearer {}", token.expose())));
    }
    let body = if webhook.method == "GET" { Vec::new() } else { body };
    let message = Message { method: &webhook.method, path: "", kind, headers, body };
    client.send(message).map(|_| ())
}

/// What a template makes of the events, and its content type.
fn rendered(
    template: &Template,
    tasks: &[&Task],
    host: &str,
) -> Result<(&'static str, Vec<u8>), Undelivered> {
    let text = event::render(template, tasks, host)?;
    let kind = match template.escape {
        Escape::Json => "application/json",
        Escape::Form => "application/x-www-form-urlencoded",
        Escape::Nothing | Escape::Slack => "text/plain; charset=utf-8",
    };
    if template.escape == Escape::Json
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&text)
    {
        return Err(Undelivered::hopeless(format!("the template makes no JSON: {error}")));
    }
    Ok((kind, text.into_bytes()))
}

/// One who asks a service.
pub(super) struct Client<'a> {
    webhook: &'a Webhook,
    agent: Agent,
    /// Who we are to the service.
    pub(super) token: Option<&'a Secret>,
}

/// What a service answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(webhook: &'a Webhook, token: Option<&'a Secret>) -> Result<Client<'a>, Undelivered> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Whoever sends us elsewhere would be handed the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(1)
            .timeout_global(Some(webhook.timeout))
            .user_agent(AGENT);
        if webhook.url.expose().starts_with("https:") {
            config = config.tls_config(tls(webhook.ca_file.as_deref())?);
        }
        Ok(Client { webhook, agent: config.build().new_agent(), token })
    }

    /// Sends a message and waits for an answer that says it was taken.
    pub(super) fn send(&self, message: Message<'_>) -> Result<Answer, Undelivered> {
        let Message { method, path, kind, headers, body } = message;
        if body.len() > LONGEST_BODY {
            let why = format!("a request of {} bytes is more than {LONGEST_BODY}", body.len());
            return Err(Undelivered::hopeless(why));
        }
        let url = format!("{}{path}", self.webhook.url.expose());
        let uri: Uri = url.parse().map_err(|_| Undelivered::hopeless("`url` is no address"))?;
        let mut request = Request::builder().method(method).uri(uri);
        let own = self.webhook.headers.iter().map(|(name, value)| (name.as_str(), value.expose()));
        let own: Vec<(&str, &str)> = own.collect();
        let has = |name: &str| own.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if !body.is_empty() && !has("Content-Type") {
            request = request.header("Content-Type", kind);
        }
        for (name, value) in headers.iter().filter(|(name, _)| !has(name)) {
            request = request.header(*name, value);
        }
        for (name, value) in &own {
            request = request.header(*name, *value);
        }
        let wrong =
            |error: ureq::http::Error| Undelivered::hopeless(self.hidden(&error.to_string()));
        let answer = match body.is_empty() {
            true => self.agent.run(request.body(()).map_err(wrong)?),
            false => self.agent.run(request.body(body).map_err(wrong)?),
        };
        let mut answer = answer.map_err(|error| self.failed(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let read = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        let body = read.map_err(|error| self.failed(&error))?;
        match status.is_success() {
            true => Ok(Answer { status, body }),
            false => Err(self.refused(status, &headers, &body)),
        }
    }

    /// What a status that is no success means.
    fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Undelivered {
        let said = String::from_utf8_lossy(body);
        let said = self.hidden(said.trim());
        let said = event::one_line(event::beginning(&said, 200));
        let why = match said.as_str() {
            "" => format!("{} answered {status}", self.webhook.origin()),
            said => format!("{} answered {status}: {said}", self.webhook.origin()),
        };
        let may_pass = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let named = headers.get("Retry-After").and_then(|value| value.to_str().ok());
        let retry_after = named.and_then(wait).or_else(|| preset::wait(body));
        let retry_after = retry_after.filter(|_| may_pass).map(|wait| wait.min(LONGEST_WAIT));
        Undelivered { why, retry_after, hopeless: !may_pass }
    }

    /// There is no answer.
    fn failed(&self, error: &ureq::Error) -> Undelivered {
        let origin = self.webhook.origin();
        let why = match error {
            ureq::Error::Timeout(_) => {
                format!("{origin} did not answer within {} s", self.webhook.timeout.as_secs())
            }
            error => format!("{origin}: {}", self.hidden(&error.to_string())),
        };
        Undelivered::passing(event::one_line(&why))
    }

    /// A text of others without what is secret of ours.
    fn hidden(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let headers = self.webhook.headers.iter().map(|(_, value)| value);
        let path = self.webhook.url.expose().strip_prefix(&self.webhook.origin()).unwrap_or("");
        let secrets = self.token.into_iter().chain(headers).map(Secret::expose).chain([path]);
        for secret in secrets.filter(|secret| secret.len() > 3) {
            text = text.replace(secret, HIDDEN);
        }
        text
    }
}

/// `Retry-After`: seconds, or a date, <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>.
fn wait(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    let now = Timestamp::from_microsecond(clock::now().micros()).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Who is trusted: the system's certificates, or those of a file.
fn tls(ca_file: Option<&Path>) -> Result<TlsConfig, Undelivered> {
    let roots = match ca_file {
        None => system_roots()?,
        Some(file) => {
            let unread = |error: String| {
                Undelivered::passing(format!("cannot read {}: {error}", file.display()))
            };
            let pem = fs::read(file).map_err(|error| unread(error.to_string()))?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = certificates.collect();
            if certificates.is_empty() {
                return Err(unread("it holds no certificate".to_owned()));
            }
            Arc::new(certificates)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(roots))
        .unversioned_rustls_crypto_provider(provider);
    Ok(tls.build())
}

/// The system's certificates, read once: they are many.
fn system_roots() -> Result<Arc<Vec<Certificate<'static>>>, Undelivered> {
    static ROOTS: OnceLock<Arc<Vec<Certificate<'static>>>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> =
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    if roots.is_empty() {
        return Err(Undelivered::passing(
            "this system trusts no certificates: install ca-certificates, or set `ca_file`",
        ));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}
