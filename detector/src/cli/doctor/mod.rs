//! `doctor`: what on this machine keeps attackers from being found or stopped, and how to mend it.
//!
//! It looks and touches nothing; it works without a daemon, and says what it may not see without root.
mod daemon;
mod sources;

use std::process::ExitCode;

use serde_json::json;

use super::{Place, run};
use crate::{
    clock,
    config::{self, AttachMode, Problem, Settings, Severity},
    control::client::CallError,
    enforce::{Sign, examine},
};

/// What was found, in the order of looking.
#[derive(Default)]
struct Findings(Vec<(&'static str, Sign)>);

impl Findings {
    fn good(&mut self, area: &'static str, what: impl Into<String>) {
        self.0.push((area, Sign::Good(what.into())));
    }

    fn doubt(&mut self, area: &'static str, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push((area, Sign::Doubt(what.into(), remedy.into())));
    }

    /// With what to do in it.
    fn fault(&mut self, area: &'static str, what: impl Into<String>) {
        self.0.push((area, Sign::Fault(what.into())));
    }

    fn unseen(&mut self, area: &'static str, what: impl Into<String>) {
        self.0.push((area, Sign::Unseen(what.into())));
    }
}

/// One finding in single words.
struct Told<'a> {
    severity: &'static str,
    what: &'a str,
    remedy: Option<&'a str>,
}

fn told(sign: &Sign) -> Told<'_> {
    let (severity, what, remedy) = match sign {
        Sign::Good(what) => ("ok", what, None),
        Sign::Unseen(what) => ("unseen", what, None),
        Sign::Doubt(what, remedy) => ("warning", what, Some(remedy.as_str())),
        Sign::Fault(what) => ("error", what, None),
    };
    Told { severity, what, remedy }
}

pub(super) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    let settings = configuration(place, &mut findings);
    let enforces = place.mode.or(settings.as_ref().map(|it| it.enforce.mode));
    if enforces == Some(AttachMode::None) {
        let remedy = "nothing need be done for a trial: take `none` out of `mode` to enforce";
        findings.doubt("enforcement", "mode `none`: attackers are found and not stopped", remedy);
    } else {
        let configured = settings.as_ref().map(|it| it.enforce.interfaces.as_slice());
        let wanted = match &place.interface[..] {
            [] => configured.unwrap_or_default(),
            named => named,
        };
        findings.0.extend(examine(&place.pin, wanted));
    }
    time(&mut findings);
    match super::ask::get(place, "/v1/status") {
        Ok(answer) => daemon::look(&answer.read, &mut findings),
        Err(error) => match error.downcast_ref() {
            Some(CallError::Denied(path)) => findings.unseen(
                "daemon",
                format!("`{}` may not be asked by this user: ask as root, or as one of group `fail2xdp`", path.display()),
            ),
            _ => findings.doubt(
                "daemon",
                format!("no daemon answers on `{}`: nothing new is found", place.socket.display()),
                "start it: `systemctl start fail2xdp`, or `fail2xdp run`; --socket names another place",
            ),
        },
    }
    if let Some(settings) = &settings {
        sources::look(&settings.jails, clock::now(), &mut findings);
    }
    Ok(report(place, &findings))
}

/// The configuration, as far as it can be read.
fn configuration(place: &Place, findings: &mut Findings) -> Option<Settings> {
    let chosen = match run::tree(place.config.as_deref()) {
        Ok(chosen) => chosen,
        Err(error) => {
            findings.fault("configuration", format!("{error:#}"));
            return None;
        }
    };
    let (settings, problems) = match config::load(chosen.tree.as_ref()) {
        Ok(loaded) => (Some(loaded.settings), loaded.problems),
        Err(problems) => (None, problems),
    };
    let errors: Vec<&Problem> =
        problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    match (errors.first(), problems.len()) {
        (Some(first), _) => findings.fault(
            "configuration",
            format!(
                "{} errors in {}: {first}; `fail2xdp check` shows all",
                errors.len(),
                chosen.name
            ),
        ),
        (None, 0) => findings.good("configuration", format!("{} is sound", chosen.name)),
        (None, count) => findings.doubt(
            "configuration",
            format!("{count} warnings about {}", chosen.name),
            "`fail2xdp check` shows them, each with its remedy",
        ),
    }
    settings
}

/// A clock that is wrong makes lines old, or young, that are not.
fn time(findings: &mut Findings) {
    match clock::is_synchronized() {
        Some(true) => findings.good("clock", "the system's clock is kept right by others (NTP)"),
        Some(false) => findings.doubt(
            "clock",
            "the system's clock is set by nobody: lines of other machines' logs may count as too old, and bans end \
             when it is set right",
            "run `systemd-timesyncd` or `chrony`; a virtual machine may have its time of its host",
        ),
        None => findings.unseen("clock", "whether somebody keeps the system's clock right"),
    }
}

fn report(place: &Place, findings: &Findings) -> ExitCode {
    let count =
        |wanted: &str| findings.0.iter().filter(|(_, sign)| told(sign).severity == wanted).count();
    let (errors, warnings, unseen) = (count("error"), count("warning"), count("unseen"));
    let text = if place.json {
        let each = findings.0.iter().map(|(area, sign)| {
            let Told { severity, what, remedy } = told(sign);
            json!({ "area": area, "severity": severity, "what": what, "remedy": remedy })
        });
        let each: Vec<_> = each.collect();
        json!({ "errors": errors, "warnings": warnings, "unseen": unseen, "findings": each })
            .to_string()
    } else {
        let mut text = String::new();
        for (area, sign) in &findings.0 {
            let Told { severity, what, remedy } = told(sign);
            text += &format!("{severity:<8} {area:<13} {what}\n");
            if let Some(remedy) = remedy {
                text += &format!("{:<22} -> {remedy}\n", "");
            }
        }
        text + &format!("{errors} errors, {warnings} warnings, {unseen} things not seen")
    };
    // Who reads through `head` closes early; that is no fault.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), (text + "\n").as_bytes());
    if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
