//! `check`: every problem of the configuration in one run.
use std::process::ExitCode;

use super::{Place, run::tree};
use crate::{
    config::{self, Problem, Severity},
    engine::Matcher,
};

pub(super) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    let (problems, jails) = match config::load(tree(place.config.as_deref())?.tree.as_ref()) {
        Ok(loaded) => {
            let mut problems = loaded.problems;
            for jail in &loaded.settings.jails {
                let (_, faults) = Matcher::new(jail, jiff::tz::TimeZone::system());
                problems.extend(faults.iter().map(|fault| fault.problem(&jail.name)));
            }
            (problems, loaded.settings.jails.len())
        }
        Err(problems) => (problems, 0),
    };
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if place.json {
        let shown: Vec<serde_json::Value> = problems.iter().map(shown).collect();
        println!("{}", serde_json::json!({ "jails": jails, "errors": errors, "problems": shown }));
    } else {
        for problem in &problems {
            println!("{problem}");
        }
        println!("{jails} jails, {errors} errors, {} warnings", problems.len() - errors);
    }
    Ok(if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
