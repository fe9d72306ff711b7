//! `check`: every problem of the configuration in one run.
use std::{fs::File, process::ExitCode};

use clap::Args;

use super::{Place, deep, run::tree};
use crate::{
    config::{self, JailSettings, Problem, Severity, SourceSettings},
    engine::{Matcher, PatternEngine, PatternReview, review_jail},
};

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Say for each pattern which engine runs it, and why
    #[arg(long, short = 'v')]
    verbose: bool,
    /// Read the last day of every log and tell whose filter matches nothing in it
    #[arg(long)]
    deep: bool,
}

pub(super) fn run(place: &Place, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut reviews = Vec::new();
    let (problems, jails) = match config::load(tree(place.config.as_deref())?.tree.as_ref()) {
        Ok(loaded) => {
            let mut problems = loaded.problems;
            let (mut doubts, mut of_patterns) = (Vec::new(), Vec::new());
            for jail in &loaded.settings.jails {
                let (_, faults) = Matcher::new(jail, jiff::tz::TimeZone::system());
                problems.extend(faults.iter().map(|fault| fault.problem(&jail.name)));
                let skips = loaded.settings.skip_without_logs.contains(&jail.name);
                problems.extend(logs(jail, skips));
                let (patterns, more) = review_jail(jail);
                reviews.extend(patterns.into_iter().map(|pattern| (jail, pattern)));
                doubts.extend(config::doubts(jail));
                of_patterns.extend(more);
            }
            problems.extend(together(doubts, |_| None));
            problems.extend(together(of_patterns, |doubt| doubt.place.clone()));
            if args.deep {
                problems.extend(deep::problems(&loaded.settings.jails));
            }
            if args.verbose && !place.json {
                reviews.iter().for_each(|(jail, review)| println!("{}", in_words(jail, review)));
            }
            let patterns = reviews.iter().map(|(jail, review)| in_json(jail, review)).collect();
            return Ok(report(place, args, problems, loaded.settings.jails.len(), patterns));
        }
        Err(problems) => (problems, 0),
    };
    Ok(report(place, args, problems, jails, Vec::new()))
}

fn report(
    place: &Place,
    args: &CheckArgs,
    problems: Vec<Problem>,
    jails: usize,
    patterns: Vec<serde_json::Value>,
) -> ExitCode {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    if place.json {
        let shown: Vec<serde_json::Value> = problems.iter().map(shown).collect();
        let mut all = serde_json::json!({ "jails": jails, "errors": errors, "warnings": warnings, "problems": shown });
        if args.verbose {
            all["patterns"] = patterns.into();
        }
        println!("{all}");
    } else {
        for problem in &problems {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            println!("{severity}: {problem}");
        }
        println!("{jails} jails, {errors} errors, {warnings} warnings");
    }
    if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Log files that are not there, or that we may not read. fail2ban would not start; we wait for them, or leave out the
/// jail that `skips`.
fn logs(jail: &JailSettings, skips: bool) -> Vec<Problem> {
    let SourceSettings::Files { paths, .. } = &jail.source else { return Vec::new() };
    let mut problems = Vec::new();
    let mut found = false;
    for path in paths {
        for file in glob::glob(&path.pattern).into_iter().flatten().flatten() {
            found = true;
            if let Err(error) = File::open(&file) {
                problems.push(Problem {
                    severity: Severity::Error,
                    jail: Some(jail.name.clone()),
                    place: path.place.clone(),
                    what: format!(
                        "`{}` cannot be read ({error}): its lines are not seen",
                        file.display()
                    ),
                    remedy: "let the daemon's user read it, as by group `adm`".to_owned(),
                });
            }
        }
    }
    if !found && let Some(first) = paths.first() {
        let more = match paths.len() {
            1 => String::new(),
            count => format!(" (nor {} more)", count - 1),
        };
        let then = if skips { "the jail does not run" } else { "the jail waits for it" };
        problems.push(Problem {
            severity: Severity::Warning,
            jail: Some(jail.name.clone()),
            place: first.place.clone(),
            what: format!("there is no log `{}`{more}: {then}", first.pattern),
            remedy:
                "correct `logpath`, or set `backend = systemd` if the service writes to the journal"
                    .to_owned(),
        });
    }
    problems
}

/// The same doubt about many jails is one; `place` says where it must stand to be the same.
fn together(
    doubts: Vec<Problem>,
    place: impl Fn(&Problem) -> Option<config::Place>,
) -> Vec<Problem> {
    let mut groups: Vec<(Problem, Vec<String>)> = Vec::new();
    for doubt in doubts {
        let name = doubt.jail.as_ref().map(|jail| format!("`{jail}`")).unwrap_or_default();
        let same = groups.iter_mut().find(|(known, _)| {
            (&known.what, &known.remedy, known.severity, place(known))
                == (&doubt.what, &doubt.remedy, doubt.severity, place(&doubt))
        });
        match same {
            Some((_, names)) => names.push(name),
            None => groups.push((doubt, vec![name])),
        }
    }
    let joined = |(mut problem, names): (Problem, Vec<String>)| {
        if names.len() > 1 {
            problem.jail = None;
            problem.what += &format!(" (jails {})", names.join(", "));
        }
        problem
    };
    groups.into_iter().map(joined).collect()
}

fn in_words(jail: &JailSettings, review: &PatternReview) -> String {
    let place = review.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
    let engine = match &review.engine {
        PatternEngine::Regex => "regex (time linear in the text)".to_owned(),
        PatternEngine::FancyRegex(needs) => {
            format!("fancy-regex (stopped after a number of tries), for {}", needs.join(", "))
        }
    };
    format!("{place}jail `{}`: {} {}: {engine}", jail.name, review.option, review.nth + 1)
}

fn in_json(jail: &JailSettings, review: &PatternReview) -> serde_json::Value {
    let (engine, needs) = match &review.engine {
        PatternEngine::Regex => ("regex", Vec::new()),
        PatternEngine::FancyRegex(needs) => ("fancy-regex", needs.clone()),
    };
    serde_json::json!({
        "jail": jail.name.as_str(),
        "option": review.option,
        "nth": review.nth + 1,
        "pattern": review.text,
        "file": review.place.as_ref().map(|place| place.file.display().to_string()),
        "line": review.place.as_ref().map(|place| place.line),
        "engine": engine,
        "needs": needs,
    })
}

fn shown(problem: &Problem) -> serde_json::Value {
    serde_json::json!({
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "file": problem.place.as_ref().map(|place| place.file.display().to_string()),
        "line": problem.place.as_ref().map(|place| place.line),
        "jail": problem.jail.as_ref().map(|jail| jail.as_str()),
        "what": problem.what,
        "remedy": problem.remedy,
    })
}
