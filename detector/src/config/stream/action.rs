//! The commands that make a jail's actions.
use super::{
    super::{
        action::ActionFiles,
        definition::Definition,
        expand::ExpandError,
        jail::is_true,
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
    // All are read before anything of them is expanded.
    let mut actions = Vec::new();
    for part in params::split(&text) {
        let call = params::read(&part).map_err(|error| {
            let (call, error) = (Value::from(part.as_str()), error.as_fail2ban());
            Skipped(format!("Invalid action definition {call}: {error}"))
        })?;
        actions.push(match call.name.strip_suffix(".py") {
            Some(stem) => Action::Python(python(writer, stem, &call)),
            None => Action::Shell(Box::new(
                ActionFiles::read(writer.jail.tree(), &writer.jail.name, call)
                    .map_err(|error| Skipped(error.as_fail2ban()))?,
            )),
        });
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
    let name = call.params.get("actname").map_or(stem, Text::as_str);
    let file = writer.jail.tree().root().join("action.d").join(&call.name);
    let rest = call.params.iter().filter(|(option, _)| *option != "actname");
    let rest: Vec<_> = rest.map(|(option, text)| (option.clone(), text.as_str().into())).collect();
    let (file, json) = (file.display().to_string(), Value::json(&rest));
    words(["set", writer.jail.name.as_str(), "addaction", name, &file, &json])
}

fn shell(writer: &mut Writer<'_, '_, '_>, files: &ActionFiles) -> Result<Vec<Command>, Skipped> {
    let name = writer.jail.name.clone();
    let act_name = files.act_name().to_owned();
    let properties = properties(&files.definition()).map_err(|(option, error)| {
        writer.jail.cannot_expand(&option, error);
        writer.skipped()
    })?;
    let properties = properties
        .into_iter()
        .map(|(option, value)| Value::List(vec![option.as_str().into(), value]))
        .collect();
    let mut multi = words(["multi-set", name.as_str(), "action", &act_name]);
    multi.push(Value::List(properties));
    Ok(vec![words(["set", name.as_str(), "addaction", &act_name]), multi])
}

/// Options of `[Definition]`, then parameters and what `[Init]` says besides: commands first.
fn properties(definition: &Definition<'_>) -> Result<Vec<(String, Value)>, (String, ExpandError)> {
    let params = definition.params.written();
    let mut properties: Vec<(String, Value)> = Vec::new();
    for option in OPTIONS.into_iter().filter(|option| !params.contains(option)) {
        if !definition.exists() && definition.layers.found() {
            properties.push((option.to_owned(), Value::Nothing));
        } else if definition.defines(option) {
            let value = command(definition, option)?;
            properties.extend(value.map(|value| (option.to_owned(), value)));
        }
    }
    let init: Vec<String> = definition.init_names().into_iter().map(str::to_owned).collect();
    let mut more: Vec<&String> = params.names().chain(&init).collect();
    more.sort_by_key(|option| !OPTIONS.contains(&option.as_str()));
    for option in more {
        if properties.iter().any(|(known, _)| known == option) {
            continue;
        }
        let value = if OPTIONS.contains(&option.as_str()) {
            command(definition, option)?
        } else {
            let text = match params.get(option) {
                Some(text) => Some(text.clone()),
                None => definition.without_tags(option).map_err(|error| (option.clone(), error))?,
            };
            text.map(|text| text.as_str().into())
        };
        properties.extend(value.map(|value| (option.clone(), value)));
    }
    Ok(properties)
}

fn command(
    definition: &Definition<'_>,
    option: &str,
) -> Result<Option<Value>, (String, ExpandError)> {
    let text = definition.for_run_time(option).map_err(|error| (option.to_owned(), error))?;
    Ok(text.map(|text| match TRUTHS.contains(&option) {
        true => Value::Truth(is_true(text.as_str())),
        false => text.as_str().into(),
    }))
}
