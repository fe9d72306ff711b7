//! The commands that make a jail's actions.
use super::{
    super::{
        action::{ActionFiles, python_name},
        jail::is_true,
        native,
        params::{self, Call},
        text::Text,
    },
    Command, Value,
    jail::{Skipped, Writer},
    words,
};

/// What an action may define, in the order in which it reaches the server.
pub(in super::super) const OPTIONS: [&str; 13] = [
    "actionstart",
    "actionstart_on_demand",
    "actionstop",
    "actionflush",
    "actionreload",
    "actioncheck",
    "actionrepair",
    "actionrepair_on_unban",
    "actionban",
    "actionprolong",
    "actionreban",
    "actionunban",
    "norestored",
];

/// Those that are true or false.
const TRUTHS: [&str; 3] = ["actionstart_on_demand", "actionrepair_on_unban", "norestored"];

/// Puts the jail's actions into commands.
pub(super) fn commands(writer: &mut Writer<'_, '_, '_>) -> Result<(), Skipped> {
    let text = writer.text("action")?.unwrap_or_default();
    // All are read before a tag of any is replaced.
    let mut actions = Vec::new();
    for part in params::split(&text) {
        let call = params::read(&part).map_err(|error| {
            let (call, error) = (Value::from(part.as_str()), error.as_fail2ban());
            Skipped(format!("Invalid action definition {call}: {error}"))
        })?;
        if let Some(stem) = call.name.strip_suffix(".py") {
            actions.push(Action::Python(python(writer, stem, &call)));
            continue;
        }
        let jail = &writer.jail;
        let files = ActionFiles::read(jail.tree(), &jail.name, call, &writer.handed)
            .map_err(|error| Skipped(error.as_fail2ban()))?;
        if let Some((option, error)) = files.reading.unexpanded(&OPTIONS) {
            writer.jail.cannot_expand(option, error.clone());
            return Err(writer.skipped());
        }
        actions.push(Action::Shell(Box::new(files)));
    }
    for action in actions {
        let more = match action {
            Action::Python(command) => vec![command],
            Action::Shell(files) => shell(writer, &files)?,
        };
        writer.commands.extend(more);
    }
    Ok(())
}

enum Action {
    Python(Command),
    Shell(Box<ActionFiles>),
}

/// An action that is a Python file gets its parameters as JSON.
fn python(writer: &Writer<'_, '_, '_>, stem: &str, call: &Call) -> Command {
    let name = python_name(stem, call);
    let file = writer.jail.tree().root().join("action.d").join(&call.name);
    let rest = call.params.iter().filter(|(option, _)| *option != "actname");
    let value = |option: &str, text: &Text| match native::is_native(&call.name) {
        true => native::shown(option, text.as_str()).as_str().into(),
        false => text.as_str().into(),
    };
    let rest: Vec<_> = rest.map(|(option, text)| (option.clone(), value(option, text))).collect();
    let (file, json) = (file.display().to_string(), Value::json(&rest));
    words(["set", writer.jail.name.as_str(), "addaction", &name, &file, &json])
}

fn shell(writer: &mut Writer<'_, '_, '_>, files: &ActionFiles) -> Result<Vec<Command>, Skipped> {
    let name = writer.jail.name.clone();
    let properties = match files.properties() {
        Ok(properties) => properties,
        Err((option, error)) => {
            writer.jail.cannot_expand(option, error.clone());
            return Err(writer.skipped());
        }
    };
    let properties = properties.into_iter().map(|(option, text)| {
        let value = match text {
            None => Value::Nothing,
            Some(text) if TRUTHS.contains(&option) => is_true(text.as_str()).into(),
            Some(text) if files.is_native() => native::shown(option, text.as_str()).as_str().into(),
            Some(text) => text.as_str().into(),
        };
        Value::List(vec![option.into(), value])
    });
    let mut multi = words(["multi-set", name.as_str(), "action", files.act_name()]);
    multi.push(Value::List(properties.collect()));
    Ok(vec![words(["set", name.as_str(), "addaction", files.act_name()]), multi])
}
