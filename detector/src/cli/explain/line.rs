//! `explain --line`: what each jail makes of a line.
use std::{fmt::Write, net::IpAddr, process::ExitCode};

use anyhow::bail;
use ipnet::IpNet;
use serde::Serialize;

use crate::{
    app::shown,
    cli::{
        Place,
        overlay::{Overlay, has_jail},
        regex::look_up,
        run::tree,
    },
    clock,
    config::{Ignore, JailSettings, Located, UseDns},
    control::explained::{Rule, Spared},
    enforce,
    engine::{
        FailureId, FilterError, Hit, HitOutcome, Inspection, Matcher, NearMiss, NearMisses,
        Timestamp,
    },
};

/// Lines looked at.
const MOST_LINES: usize = 1000;

/// What one jail made of one line. Field names are stable: scripts read them.
#[derive(Serialize)]
struct Told {
    jail: String,
    line: String,
    /// The text that was taken for the date, and what it says: Unix seconds.
    date: Option<String>,
    time: Option<f64>,
    /// What the failregexes saw.
    text: String,
    /// Null: there is none, or an ignoreregex came first.
    prefregex: Option<Prefix>,
    /// In their order; the daemon takes the first.
    failregex: Vec<Found>,
    ignoreregex: Option<Rule>,
    nearest: Option<Nearest>,
    /// What comes of it, in words.
    result: String,
    /// Patterns that gave up on the line.
    gave_up: Vec<String>,
}

#[derive(Serialize)]
struct Prefix {
    rule: Rule,
    matched: bool,
    handed_on: Option<String>,
}

#[derive(Serialize)]
struct Found {
    rule: Rule,
    /// `failure`, `no failure`, `pending`, `not an address`.
    outcome: &'static str,
    /// Whose.
    who: Option<String>,
    /// Where `who` is a name that is looked up.
    addresses: Vec<String>,
    /// The IPv6 prefix that is counted as one.
    prefix: Option<String>,
    fields: serde_json::Map<String, serde_json::Value>,
    spared: Option<Spared>,
}

#[derive(Serialize)]
struct Nearest {
    /// Null: it is `prefregex`.
    rule: Option<Rule>,
    matched: String,
    wanted: String,
    found: String,
}

pub(super) fn run(place: &Place, text: &str, jail: Option<&str>) -> anyhow::Result<ExitCode> {
    let chosen = tree(place.config.as_deref())?;
    let tree = chosen.tree.as_ref();
    let (jails, allow) = match jail {
        Some(name) => {
            if !has_jail(tree, name) {
                bail!("there is no jail `{name}` in {}", chosen.name);
            }
            let on = [("enabled", "true".to_owned())];
            let over = Overlay::over(tree, &[name], &on);
            (vec![over.jail(name)?], over.load()?.settings.enforce.allow)
        }
        None => {
            let loaded = Overlay::over(tree, &[], &[]).load()?;
            (loaded.settings.jails, loaded.settings.enforce.allow)
        }
    };
    if jails.is_empty() {
        bail!("no jail is enabled in {}: name one with --jail", chosen.name);
    }
    let own = enforce::own_addresses().unwrap_or_default();
    let now = clock::now();
    let mut told = Vec::new();
    for jail in &jails {
        let mut eyes = Eyes::new(jail, &allow, &own);
        // Line by line: sessions and `maxlines` take several together.
        let lines = text.lines().take(MOST_LINES);
        told.extend(lines.map(|line| eyes.look(line, now)));
    }
    let text = match place.json {
        true => serde_json::to_string(&told)?,
        false => told.iter().map(in_words).collect(),
    };
    // Who reads through `head` closes early; that is no fault.
    let _ = std::io::Write::write_all(
        &mut std::io::stdout(),
        (text.trim_end().to_owned() + "\n").as_bytes(),
    );
    Ok(ExitCode::SUCCESS)
}

/// A jail that looks at lines.
struct Eyes<'j> {
    jail: &'j JailSettings,
    allow: &'j [Located<IpNet>],
    own: &'j [IpAddr],
    matcher: Matcher,
    /// Numbers, among all, of the ignoreregexes that compile.
    ignore: Vec<usize>,
    faults: Vec<FilterError>,
    misses: NearMisses,
}

impl<'j> Eyes<'j> {
    fn new(jail: &'j JailSettings, allow: &'j [Located<IpNet>], own: &'j [IpAddr]) -> Eyes<'j> {
        let (matcher, faults) = Matcher::new(jail, jiff::tz::TimeZone::system());
        let broken = |nth: &usize| {
            faults
                .iter()
                .any(|fault| matches!(fault, FilterError::Ignore { nth: of, .. } if of == nth))
        };
        let ignore = (0..jail.filter.ignoreregex.len()).filter(|nth| !broken(nth)).collect();
        let misses = NearMisses::new(&jail.filter);
        Eyes { jail, allow, own, matcher, ignore, faults, misses }
    }

    fn look(&mut self, line: &str, now: Timestamp) -> Told {
        let gave_up = |matcher: &Matcher| -> Vec<u64> {
            matcher.patterns().map(|pattern| pattern.gave_up()).collect()
        };
        let before = gave_up(&self.matcher);
        let date = self.matcher.date_of(line, now);
        let seen = self.matcher.inspect(line, None, now, true);
        let gave_up = self
            .matcher
            .patterns()
            .zip(before)
            .filter(|(pattern, before)| pattern.gave_up() > *before)
            .map(|(pattern, _)| pattern.name.to_string())
            .collect();
        let filter = &self.jail.filter;
        let prefregex = match (&filter.prefregex, seen.prefix_matched) {
            (Some(regex), Some(matched)) => Some(Prefix {
                rule: rule(0, regex),
                matched,
                handed_on: seen.content.as_ref().map(|text| text.trim_end().to_owned()),
            }),
            _ => None,
        };
        let ignored = seen.ignored_by.and_then(|at| self.ignore.get(at));
        let ignoreregex = ignored.map(|&nth| rule(nth, &filter.ignoreregex[nth]));
        let failregex: Vec<Found> = seen.hits.iter().map(|hit| self.found(hit)).collect();
        let missed = failregex.is_empty() && ignoreregex.is_none();
        let nearest = missed.then(|| self.nearest(&seen)).flatten();
        let result = self.result(&seen, ignoreregex.is_some(), &failregex, now);
        Told {
            jail: self.jail.name.to_string(),
            line: line.to_owned(),
            date: (!date.is_empty()).then(|| line[date].to_owned()),
            time: seen.at.map(|at| at.micros() as f64 / 1e6),
            text: seen.text.trim_end().to_owned(),
            prefregex,
            failregex,
            ignoreregex,
            nearest,
            result,
            gave_up,
        }
    }

    fn found(&self, hit: &Hit) -> Found {
        let filter = &self.jail.filter;
        let fields = hit.fields.iter();
        let fields = fields.map(|(name, text)| (name.to_string(), text.to_string().into()));
        let mut found = Found {
            rule: rule(hit.rule, &filter.failregex[hit.rule]),
            outcome: match hit.outcome {
                HitOutcome::Failure(_) => "failure",
                HitOutcome::NoFailure => "no failure",
                HitOutcome::Pending => "pending",
                HitOutcome::NotAnAddress => "not an address",
            },
            who: None,
            addresses: Vec::new(),
            prefix: None,
            fields: fields.collect(),
            spared: None,
        };
        if let HitOutcome::Failure(who) = &hit.outcome {
            found.who = Some(who.to_string());
            let addresses = match who {
                FailureId::Address(address) => vec![*address],
                FailureId::Name(name) if filter.use_dns != UseDns::No => look_up(name),
                _ => Vec::new(),
            };
            found.spared = addresses.iter().find_map(|address| self.spared(*address));
            if let [IpAddr::V6(address)] = addresses[..]
                && self.jail.ipv6_prefix < 128
                && let Ok(net) = IpNet::new(address.into(), self.jail.ipv6_prefix)
            {
                found.prefix = Some(net.trunc().to_string());
            }
            if matches!(who, FailureId::Name(_)) {
                found.addresses = addresses.iter().map(ToString::to_string).collect();
            }
        }
        found
    }

    /// What spares an address, as far as the configuration tells.
    fn spared(&self, address: IpAddr) -> Option<Spared> {
        if self.jail.ignore_self && self.own.contains(&address) {
            return Some(Spared { by: "ignoreself".into(), place: None });
        }
        let spares = |ignore: &Ignore| match ignore {
            Ignore::Net(net) => net.contains(&address),
            Ignore::Name(name) => look_up(name).contains(&address),
        };
        let ignored = self.jail.ignore.iter().find(|ignore| spares(&ignore.value));
        let ignored = ignored.map(|ignore| {
            let what = match &ignore.value {
                Ignore::Net(net) => shown(*net),
                Ignore::Name(name) => name.clone(),
            };
            Spared { by: format!("ignoreip {what}"), place: placed(ignore) }
        });
        let allowed = || {
            let entry = self.allow.iter().find(|entry| entry.value.contains(&address))?;
            Some(Spared { by: format!("allow {}", shown(entry.value)), place: placed(entry) })
        };
        ignored.or_else(allowed)
    }

    /// The pattern that got furthest.
    fn nearest(&mut self, seen: &Inspection) -> Option<Nearest> {
        let subject = match seen.prefix_matched {
            Some(false) => &seen.text,
            _ => seen.content.as_ref().unwrap_or(&seen.text),
        };
        let miss = match seen.prefix_matched {
            Some(false) => self.misses.prefix(subject),
            _ => self.misses.rules(subject).into_iter().next(),
        };
        let NearMiss { rule: nth, reached, found, .. } = miss.filter(|miss| miss.weight > 0)?;
        let filter = &self.jail.filter;
        let regex = nth.map_or(filter.prefregex.as_ref(), |nth| filter.failregex.get(nth))?;
        Some(Nearest {
            rule: nth.map(|nth| rule(nth, regex)),
            matched: subject[found.clone()].to_owned(),
            wanted: regex.value[reached..].to_owned(),
            found: subject[found.end..].trim_end().to_owned(),
        })
    }

    fn result(&self, seen: &Inspection, ignored: bool, found: &[Found], now: Timestamp) -> String {
        if !self.matcher.is_armed() {
            let why = self.faults.first().map_or(String::new(), |fault| format!(": {fault}"));
            return format!("nothing: the jail has no usable failregex{why}");
        }
        if ignored {
            return "nothing: an ignoreregex spares it".into();
        }
        let Some(first) = found.first() else {
            return match seen.prefix_matched {
                Some(false) => "nothing: `prefregex` does not match".into(),
                _ => "nothing: no failregex matches".into(),
            };
        };
        match first.outcome {
            "no failure" => {
                return "no failure by itself; it may tell of the session's others".into();
            }
            "pending" => {
                return "a failure as soon as a line of the same session says whose".into();
            }
            "not an address" => return "nothing: where an address should be there is none".into(),
            _ => {}
        }
        if let Some(spared) = &first.spared {
            return format!("nothing: spared by {}", spared.by);
        }
        let age = seen.at.map(|at| (now.micros() - at.micros()) / 1_000_000);
        if age.is_some_and(|age| age > self.jail.find_time.as_secs() as i64) {
            return "a failure, now too old to count (`findtime`)".into();
        }
        format!(
            "one of {} failures in {} s that make a ban",
            self.jail.max_retry,
            self.jail.find_time.as_secs()
        )
    }
}

fn placed<T>(written: &Located<T>) -> Option<String> {
    written.place.as_ref().map(ToString::to_string)
}

fn rule(nth: usize, regex: &Located<String>) -> Rule {
    Rule { number: nth + 1, regex: regex.value.clone(), place: placed(regex) }
}

/// Writing to a string does not fail.
fn in_words(told: &Told) -> String {
    let mut out = format!("Jail {}: {}\n", told.jail, told.result);
    let mut row = |name: &str, what: &str| {
        let _ = writeln!(out, "|- {name}\t{}", what.replace('\n', "\\n"));
    };
    let place =
        |place: &Option<String>| place.as_ref().map_or(String::new(), |place| format!(", {place}"));
    row("Line:", &told.line);
    match (&told.date, told.time) {
        (Some(date), Some(time)) => row("Date:", &format!("`{date}`, {}", local(time))),
        (Some(date), None) => row("Date:", &format!("`{date}`, which says no time")),
        (None, _) => row("Date:", "none found: it counts as of now, or of the line before"),
    }
    if let Some(Prefix { rule, matched, handed_on }) = &told.prefregex {
        let how = if *matched { "matched" } else { "not matched" };
        row("Prefregex:", &format!("{how}{}", place(&rule.place)));
        row("", &rule.regex);
        if let Some(text) = handed_on {
            row("Handed on:", text);
        }
    }
    for found in &told.failregex {
        let Rule { number, regex, place: written } = &found.rule;
        row("Failregex:", &format!("{number} matched: {}{}", found.outcome, place(written)));
        row("", regex);
        let known = |name: &str, text: &serde_json::Value| {
            format!("{name}={}", text.as_str().unwrap_or_default())
        };
        let fields: Vec<String> =
            found.fields.iter().map(|(name, text)| known(name, text)).collect();
        row("Fields:", &fields.join(", "));
        if let Some(who) = &found.who {
            let mut text = who.clone();
            if let Some(prefix) = &found.prefix {
                let _ = write!(text, ", counted as {prefix}");
            }
            if !found.addresses.is_empty() {
                let _ = write!(text, ", which is {}", found.addresses.join(", "));
            }
            row("Whose:", &text);
        }
        if let Some(spared) = &found.spared {
            row("Spared by:", &format!("{}{}", spared.by, place(&spared.place)));
        }
    }
    if let Some(Rule { number, regex, place: written }) = &told.ignoreregex {
        row("Ignoreregex:", &format!("{number} matched{}", place(written)));
        row("", regex);
    }
    if let Some(near) = &told.nearest {
        let name = match &near.rule {
            Some(rule) => format!("failregex {}{}", rule.number, place(&rule.place)),
            None => "prefregex".to_owned(),
        };
        row("Nearest miss:", &name);
        row("  matched", &near.matched);
        row("  then wanted", &near.wanted);
        row("  and found", &near.found);
    }
    if !told.gave_up.is_empty() {
        row("Gave up:", &format!("{}: the line keeps them trying", told.gave_up.join(", ")));
    }
    if let Some(last) = out.rfind("\n|- ") {
        out.replace_range(last + 1..last + 2, "`");
    }
    out
}

fn local(time: f64) -> String {
    let time = jiff::Timestamp::from_microsecond((time * 1e6) as i64).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T %Z").to_string()
}
