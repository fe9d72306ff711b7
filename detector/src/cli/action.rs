//! `action test`: one action run for real about a ban that is made up.
use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::{Place, run::tree};
use crate::{
    action::{
        Step, Trial, Tried,
        wire::{Kind, Level, Ticket},
    },
    app, clock,
    config::{self, BanTime, JailSettings, Settings, is_firewall},
};

#[derive(Subcommand, Debug)]
pub(super) enum ActionVerb {
    /// Run an action of a jail about a ban that is made up, and show commands, output and exit status; nobody is banned
    Test(TestArgs),
}

#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// The action, by the name that `get JAIL actions` shows
    name: String,
    /// The jail whose action it is
    #[arg(long)]
    jail: String,
    /// Whom the ban is about
    #[arg(long, value_name = "ADDRESS")]
    ip: String,
    /// A matched line (repeatable) [default: one that says what it is]
    #[arg(long, value_name = "TEXT")]
    line: Vec<String>,
    /// What the failregex has found, such as `user=root` for `<F-USER>` (repeatable)
    #[arg(long, value_name = "NAME=TEXT")]
    field: Vec<String>,
    /// Lift the ban afterwards
    #[arg(long)]
    unban: bool,
    /// Stop the action afterwards
    #[arg(long)]
    stop: bool,
    /// Show the commands, run nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(place: &Place, verb: &ActionVerb) -> anyhow::Result<ExitCode> {
    let ActionVerb::Test(args) = verb;
    let chosen = tree(place.config.as_deref())?;
    let loaded = config::load(chosen.tree.as_ref()).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(
            "nothing of the configuration in {} can be used: {}",
            chosen.name,
            problems.join("; ")
        )
    })?;
    let settings = &loaded.settings;
    let jail = settings.jails.iter().find(|jail| jail.name.as_str() == args.jail);
    let jail = jail.with_context(|| {
        format!("no jail `{}` is enabled; `fail2xdp check` tells of those that are", args.jail)
    })?;
    let Some(action) = jail.actions.iter().find(|action| action.name == args.name) else {
        bail!("{}", no_action(jail, &args.name));
    };
    let kinds = [
        Some(Kind::Start),
        Some(Kind::Ban),
        args.unban.then_some(Kind::Unban),
        args.stop.then_some(Kind::Stop),
    ];
    let ticket = ticket(args, jail, settings)?;
    let trial = Trial {
        settings,
        jail,
        action,
        ipv6: app::wants_ipv6(settings.allow_ipv6),
        tasks: kinds.into_iter().flatten().map(|kind| (kind, ticket.clone())).collect(),
        now: clock::now().micros() as f64 / 1e6,
        dry: args.dry_run,
    };
    let tried = trial.run()?;
    if place.json {
        let tasks: Vec<serde_json::Value> = tried.iter().map(in_json).collect();
        println!(
            "{}",
            serde_json::json!({ "jail": args.jail, "action": args.name, "dry_run": args.dry_run, "tasks": tasks })
        );
    } else {
        tried.iter().for_each(|tried| in_words(tried, args.dry_run));
    }
    let failed = tried.iter().any(|tried| tried.failed.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn no_action(jail: &JailSettings, name: &str) -> String {
    if is_firewall(name) && !jail.scope.is_nothing() {
        return format!(
            "`{name}` is no command of jail `{}`: it is an XDP ban ({}); try `fail2xdp ban`",
            jail.name, jail.scope
        );
    }
    let known: Vec<String> =
        jail.actions.iter().map(|action| format!("`{}`", action.name)).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("jail `{}` has no action `{name}`; it has {known}", jail.name)
}

/// A ban that could have been.
fn ticket(args: &TestArgs, jail: &JailSettings, settings: &Settings) -> anyhow::Result<Ticket> {
    let id = match config::network(&args.ip) {
        Ok(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Ok(net) => net.to_string(),
        Err(_) => bail!("`{}` is no address: write one such as 192.0.2.1", args.ip),
    };
    let mut fields = BTreeMap::new();
    for field in &args.field {
        let (name, text) =
            field.split_once('=').with_context(|| format!("--field {field}: write NAME=TEXT"))?;
        fields.insert(name.to_ascii_lowercase(), text.to_owned());
    }
    let mut matches = args.line.clone();
    if matches.is_empty() {
        matches.push(format!("fail2xdp: a test of action {} for {id}", args.name));
    }
    matches.truncate(settings.store.max_matches.max(1) as usize);
    Ok(Ticket {
        id,
        failures: jail.max_retry,
        time: clock::now().seconds() as f64,
        ban_time: match jail.ban_time {
            BanTime::Permanent => -1,
            BanTime::Seconds(seconds) => i64::from(seconds),
        },
        ban_count: 1,
        matches,
        fields,
        ..Ticket::default()
    })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Start => "start",
        Kind::Stop => "stop",
        Kind::Reload => "reload",
        Kind::Ban => "ban",
        Kind::Reban => "reban",
        Kind::Check => "check",
        Kind::Prolong => "prolong",
        Kind::Unban => "unban",
        Kind::Flush => "flush",
    }
}

fn in_words(tried: &Tried, dry: bool) {
    let kind = word(tried.kind);
    match &tried.failed {
        None if tried.steps.is_empty() => println!("{kind}: nothing to run"),
        None if dry => println!("{kind}: would run"),
        None => println!("{kind}: done"),
        Some(why) => println!("{kind}: FAILED: {why}"),
    }
    for Step { option, text, arguments, ended, stdout, stderr, took, .. } in &tried.steps {
        println!("  {option}:");
        text.lines().for_each(|line| println!("    | {line}"));
        for (nth, value) in arguments.iter().enumerate() {
            println!("    ${nth} = {value:?}");
        }
        if dry {
            continue;
        }
        println!("    {ended}, {:.3} s", took.as_secs_f64());
        for (stream, said) in [("stdout", stdout), ("stderr", stderr)] {
            said.lines().for_each(|line| println!("    {stream}: {}", line.escape_debug()));
        }
    }
    for (_, text) in tried.said.iter().filter(|(level, _)| *level != Level::Debug) {
        println!("  {text}");
    }
}

fn in_json(tried: &Tried) -> serde_json::Value {
    let steps = tried.steps.iter().map(|step| {
        serde_json::json!({
            "option": step.option,
            "command": step.text,
            "arguments": step.arguments,
            "ended": step.ended,
            "status": step.status,
            "stdout": step.stdout,
            "stderr": step.stderr,
            "seconds": step.took.as_secs_f64(),
        })
    });
    let steps: Vec<serde_json::Value> = steps.collect();
    let said: Vec<&str> = tried.said.iter().map(|(_, text)| text.as_str()).collect();
    serde_json::json!({ "task": word(tried.kind), "failed": tried.failed, "commands": steps, "said": said })
}
