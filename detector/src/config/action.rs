//! Actions: which of them mean "enforce", and on which ports.
//!
//! fail2ban's firewall actions are shell commands; we recognise them by name and read what they would block from
//! their parameters, then never run them.
use super::{
    ActionKind, ActionSettings, JailName, Place, Scope, Severity, Tree, Value,
    definition::{Definition, Handed, Reading},
    expand::ExpandError,
    filter::FilterFiles,
    jail::{Jail, Refused},
    layers::{Fault, Layers},
    native::{self, Native, Secret},
    params::{self, Call},
    ports::{self, PortError},
    scope::Traffic,
    stream::ACTION_OPTIONS as COMMANDS,
    text::Text,
};

/// What an action does for us.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// Bans reach these packets.
    Enforce {
        /// Of several actions, the union counts.
        scope: Scope,
        /// It would answer with an error; we drop in silence.
        rejects: bool,
    },
    /// Something else, such as a mail.
    Tell(ActionSettings),
    /// What nothing runs.
    Unknown,
    /// What cannot be used; the reason has been told.
    Faulty,
}

/// An action's files with the parameters of one jail.
#[derive(Debug)]
pub(super) struct ActionFiles {
    name: String,
    definition: Definition,
    pub(super) reading: Reading,
}

/// An option or parameter of an action, and its value where it has one.
pub(super) type Property<'a> = (&'a str, Option<&'a Text>);

/// Tags that an action's commands keep for run time.
const RUN_TIME: [&str; 5] = ["matches", "ipmatches", "ipjailmatches", "timeout", "bantime"];

impl ActionFiles {
    /// Reads the files that `call` names, in sight of the jail's options. What we recognise as a firewall needs none.
    pub(super) fn read(
        tree: &dyn Tree,
        jail: &JailName,
        call: Call,
        handed: &Handed,
    ) -> Result<ActionFiles, ActionError> {
        let act_name = act_name(jail, &call);
        let Call { name, mut params } = call;
        let mut layers = Layers::read_in(tree, "action.d", &name);
        if !layers.faults.is_empty() {
            let fault = Box::new(layers.faults.swap_remove(0));
            return Err(ActionError::Fault { action: name, fault });
        }
        if !layers.found() && reach(&name).is_none() && !native::is_native(&name) {
            return Err(ActionError::Missing { action: name });
        }
        params.insert_new("name", || Text::new(jail.as_str(), None));
        params.insert_new("actname", || Text::new(&act_name, None));
        let definition = Definition { layers, params, wanted: &COMMANDS, kept: &RUN_TIME };
        let reading = definition.read(handed);
        Ok(ActionFiles { name, definition, reading })
    }

    /// The name that tells it from the jail's other actions.
    pub(super) fn act_name(&self) -> &str {
        self.definition.params.get("actname").map_or(&self.name, Text::as_str)
    }

    /// Whether it has files: what we know by name needs none.
    pub(super) fn found(&self) -> bool {
        self.definition.layers.found()
    }

    /// Whether it is one of ours that has no files.
    pub(super) fn is_native(&self) -> bool {
        !self.found() && native::is_native(&self.name)
    }

    /// Whether it blocks whole protocols: by its `type` (`actiontype` for some), else by its name.
    fn blocks_all_ports(&self) -> Result<bool, ActionError> {
        // `actiontype = <allports>` names the option that holds the rule: its tag says what we need to know.
        for option in ["type", "actiontype"] {
            let kind = self.definition.untagged(&self.reading, option);
            if let Some(kind) = kind.map_err(|error| self.cannot_expand(error))? {
                return Ok(kind.as_str().contains("allports"));
            }
        }
        Ok(self.name.ends_with("allports"))
    }

    /// What the server gets of it, in fail2ban's order; options without a value where there is no `[Definition]`.
    ///
    /// # Errors
    /// The first option that cannot be expanded.
    pub(super) fn properties(&self) -> Result<Vec<Property<'_>>, (&str, &ExpandError)> {
        let mut properties = Vec::new();
        for (option, found) in self.reading.options() {
            match found {
                _ if !COMMANDS.contains(&option.as_str()) => {}
                Ok(None) if !self.found() => {}
                Ok(text) => properties.push((option.as_str(), text.as_ref())),
                Err(error) => return Err((option, error)),
            }
        }
        let given = self.reading.given().map(|(option, text)| (option.as_str(), Some(text)));
        properties.extend(given.filter(|(option, _)| !COMMANDS.contains(option)));
        Ok(properties)
    }

    /// An option with all its tags replaced.
    fn get(&self, option: &str) -> Result<Option<Text>, ActionError> {
        self.definition.whole(&self.reading, option).map_err(|error| self.cannot_expand(error))
    }

    fn cannot_expand(&self, error: ExpandError) -> ActionError {
        ActionError::Expand { action: self.name.clone(), error }
    }
}

/// What tells an action from the jail's others: the same one twice has a `name` of its own, and is known by it.
fn act_name(jail: &JailName, call: &Call) -> String {
    if let Some(name) = call.params.get("actname") {
        return name.as_str().to_owned();
    }
    let file = &call.name;
    match call.params.get("name").map(Text::as_str).filter(|name| *name != jail.as_str()) {
        None => file.clone(),
        Some(own_name) => match own_name.strip_prefix(jail.as_str()) {
            Some(rest) => format!("{file}{rest}"),
            None => format!("{file}-{own_name}"),
        },
    }
}

/// The same of an action that is a Python file, `stem.py`.
pub(super) fn python_name(stem: &str, call: &Call) -> String {
    call.params.get("actname").map_or(stem, Text::as_str).to_owned()
}

/// An action that keeps its jail from running.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    #[error("there is no action `{action}`")]
    Missing { action: String },
    #[error("action `{action}` lets banned addresses in (`blocktype = {blocktype}`)")]
    Allows { action: String, blocktype: String },
    #[error("action `{action}`: {error}")]
    Expand { action: String, error: ExpandError },
    #[error("action `{action}`: {}", fault.kind)]
    Fault { action: String, fault: Box<Fault> },
    #[error("action `{action}` names no port that is known")]
    NoPort { action: String },
}

impl ActionError {
    /// Where it lies, if in the action's own files.
    fn place(&self) -> Option<Place> {
        match self {
            ActionError::Expand { error, .. } => error.place.clone(),
            ActionError::Fault { fault, .. } => fault.place.clone(),
            _ => None,
        }
    }

    /// What to do about it.
    fn remedy(&self) -> &'static str {
        match self {
            ActionError::Missing { .. } => {
                "write its file in `action.d`, or correct its name in `action`"
            }
            ActionError::Allows { .. } => {
                "a ban here drops packets and cannot open a port: leave this jail to fail2ban, or disable it"
            }
            ActionError::Expand { error, .. } => error.remedy(),
            ActionError::Fault { fault, .. } => fault.kind.remedy(),
            ActionError::NoPort { .. } => "write port numbers, or `0:65535` for all",
        }
    }

    /// The same in fail2ban's words, where it has some.
    pub(super) fn as_fail2ban(&self) -> String {
        match self {
            ActionError::Missing { action } => {
                format!("Unable to read action {}", Value::from(action.as_str()))
            }
            other => other.to_string(),
        }
    }
}

/// A port or protocol in an action's parameters that was left out.
struct LeftOut {
    text: Text,
    error: PortError,
}

/// What a firewall action looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// `port`, `protocol` and `type`.
    Parameters,
    /// Nothing: it blocks the address altogether.
    EveryPacket,
    /// TCP alone.
    Tcp,
    /// The ports of an application, if one is named, else nothing.
    Application,
}

/// Names that mean a firewall, alone or followed by `-` and a variant. The longest that fits counts.
const FIREWALLS: &[(&str, Reach)] = &[
    ("apf", Reach::EveryPacket),
    ("bsd-ipfw", Reach::Parameters),
    ("csf", Reach::EveryPacket),
    ("firewallcmd", Reach::Parameters),
    ("hostsdeny", Reach::Tcp),
    ("ip6tables", Reach::Parameters),
    ("ipfilter", Reach::EveryPacket),
    ("ipfw", Reach::Parameters),
    ("ipset", Reach::Parameters),
    ("iptables", Reach::Parameters),
    ("iptables-xt_recent", Reach::EveryPacket),
    ("nftables", Reach::Parameters),
    ("npf", Reach::EveryPacket),
    ("osx-afctl", Reach::EveryPacket),
    ("osx-ipfw", Reach::Parameters),
    ("pf", Reach::Parameters),
    ("route", Reach::EveryPacket),
    ("shorewall", Reach::EveryPacket),
    ("symbiosis-blacklist", Reach::EveryPacket),
    ("ufw", Reach::Application),
    ("xdp", Reach::Parameters),
];

fn reach(name: &str) -> Option<Reach> {
    let fits = |known: &str| {
        name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    };
    let known = FIREWALLS.iter().filter(|(known, _)| fits(known));
    known.max_by_key(|(known, _)| known.len()).map(|(_, reach)| *reach)
}

/// Whether an action of this name bans: what it would block becomes an XDP ban.
pub fn is_firewall(action: &str) -> bool {
    reach(action).is_some()
}

/// Finds out what an action means. A firewall action needs no file of its own: its parameters say enough.
fn meaning(files: &ActionFiles, left_out: &mut Vec<LeftOut>) -> Result<Meaning, ActionError> {
    let action = || files.name.clone();
    for option in COMMANDS {
        files.reading.get(option).map_err(|error| files.cannot_expand(error))?;
    }
    let Some(reach) = reach(&files.name) else {
        let properties =
            files.properties().map_err(|(_, error)| files.cannot_expand(error.clone()))?;
        let valued = properties.into_iter().filter_map(|(option, text)| Some((option, text?)));
        let commands = valued.map(|(option, text)| (option.to_owned(), text.as_str().to_owned()));
        let (name, kind) = (files.act_name().to_owned(), ActionKind::Commands(commands.collect()));
        return Ok(Meaning::Tell(ActionSettings { name, place: None, kind }));
    };
    let get = |option: &str| files.get(option);

    let mut rejects = false;
    let given = files.reading.given().map(|(option, _)| option.as_str());
    for option in given.filter(|option| option.starts_with("blocktype?")).chain(["blocktype"]) {
        let Some(blocktype) = get(option)? else { continue };
        let word = blocktype.as_str().split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        if matches!(word.as_str(), "return" | "accept" | "allow" | "pass" | "permit" | "limit") {
            let blocktype = blocktype.as_str().trim().to_owned();
            return Err(ActionError::Allows { action: action(), blocktype });
        }
        rejects |= ["reject", "unreach", "prohibit", "return-"]
            .iter()
            .any(|answer| word.trim_matches('"').starts_with(answer));
    }
    let named = |option| {
        get(option).map(|text: Option<Text>| text.filter(|text| !text.as_str().trim().is_empty()))
    };
    let everything = match reach {
        Reach::EveryPacket => true,
        Reach::Application => named("application")?.is_none(),
        Reach::Parameters | Reach::Tcp => false,
    };
    if everything {
        return Ok(Meaning::Enforce { scope: Scope::EveryPacket, rejects });
    }
    if reach == Reach::Tcp {
        return Ok(Meaning::Enforce { scope: Scope::only([ports::whole(TCP)]), rejects });
    }

    let mut protocols = Vec::new();
    let protocol = named("protocol")?;
    for word in
        protocol.as_ref().map_or("tcp", Text::as_str).split(|c: char| c == ',' || c.is_whitespace())
    {
        // Old guides leave a quote open: `protocol="%(protocol)s]` hands on the quote as well.
        match ports::protocol(word.trim_matches(QUOTES)) {
            _ if word.is_empty() => {}
            Ok(Some(protocol)) => protocols.push(protocol),
            Ok(None) => return Ok(Meaning::Enforce { scope: Scope::EveryPacket, rejects }),
            Err(error) => {
                left_out.push(LeftOut { text: protocol.clone().unwrap_or_default(), error })
            }
        }
    }
    let port = if files.blocks_all_ports()? { None } else { named("port")? };
    let Some(port) = port else {
        let traffic = protocols.into_iter().map(ports::whole);
        return some_traffic(action(), Scope::only(traffic), rejects);
    };
    let mut ranges = Vec::new();
    for word in ports::words(port.as_str()) {
        match ports::port(word.trim_matches(QUOTES)) {
            Ok(range) => ranges.push(range),
            Err(error) => left_out.push(LeftOut { text: port.clone(), error }),
        }
    }
    if ranges.is_empty() {
        return Err(ActionError::NoPort { action: action() });
    }
    let traffic = protocols.into_iter().map(|protocol| match ports::has_ports(protocol) {
        true => Traffic { protocol, ports: ranges.clone() },
        false => ports::whole(protocol),
    });
    some_traffic(action(), Scope::only(traffic), rejects)
}

const TCP: u8 = 6;
const QUOTES: [char; 2] = ['"', '\''];

fn some_traffic(action: String, scope: Scope, rejects: bool) -> Result<Meaning, ActionError> {
    if scope.is_nothing() {
        Err(ActionError::NoPort { action })
    } else {
        Ok(Meaning::Enforce { scope, rejects })
    }
}

impl Jail<'_, '_> {
    /// Tells what fail2ban finds out only when it starts: a name given twice, a Python action without its file.
    fn look_at(&mut self, call: &Call, names: &mut Vec<String>, place: Option<Place>) {
        let name = match call.name.strip_suffix(".py") {
            None => act_name(&self.name, call),
            Some(stem) if native::is_native(&call.name) => python_name(stem, call),
            Some(stem) => {
                let file = self.tree().root().join("action.d").join(&call.name);
                if !matches!(self.tree().read(&file), Ok(Some(_))) {
                    let what = format!("action `{}` has no file; it is left out", call.name);
                    let remedy = "write it in `action.d`, or remove the action";
                    self.tell(Severity::Error, place.clone(), what, remedy);
                }
                python_name(stem, call)
            }
        };
        if names.contains(&name) {
            let what = format!("two actions are called `{name}`: fail2ban would not start");
            let remedy = "give one of them a `name` or `actname` of its own";
            self.tell(Severity::Warning, place, what, remedy);
        }
        names.push(name);
    }

    /// fail2ban would not take a `timeout` that is no time; here the default serves.
    fn look_at_timeout(&mut self, action: &ActionSettings, place: Option<Place>) {
        let ActionKind::Commands(properties) = &action.kind else { return };
        let timeout = properties.iter().find(|(name, _)| name == "timeout");
        if let Some((_, timeout)) = timeout
            && super::seconds(timeout).is_err()
        {
            let what =
                format!("action `{}`: `timeout = {timeout}` is no time; 60 is used", action.name);
            self.tell(Severity::Error, place, what, "write seconds, or a span such as `2m`");
        }
    }

    /// What the action means; slips in its files are told.
    fn meaning(
        &mut self,
        call: Call,
        handed: &Handed,
        left_out: &mut Vec<LeftOut>,
        place: Option<&Place>,
    ) -> Result<Meaning, ActionError> {
        if let Some(stem) = call.name.strip_suffix(".py") {
            return Ok(match native::is_native(&call.name) {
                true => {
                    self.native(&call.name, python_name(stem, &call), call.params.iter(), place)
                }
                false => Meaning::Unknown,
            });
        }
        let files = ActionFiles::read(self.tree(), &self.name, call, handed)?;
        // A command's fault keeps the jail from running.
        let is_used =
            |option: &str| COMMANDS.contains(&option) && files.reading.get(option).is_err();
        self.tell_unused(&format!("action `{}`", files.name), files.reading.faulty(), is_used);
        if files.is_native() {
            let mut params = Vec::new();
            for (name, _) in files.reading.given() {
                params.extend(files.get(name)?.map(|text| (name, text)));
            }
            let params = params.iter().map(|(name, text)| (*name, text));
            return Ok(self.native(&files.name, files.act_name().to_owned(), params, place));
        }
        meaning(&files, left_out)
    }

    /// A native action of these parameters; what is wrong with them is told.
    fn native<'t>(
        &mut self,
        action: &str,
        name: String,
        params: impl Iterator<Item = (&'t String, &'t Text)>,
        place: Option<&Place>,
    ) -> Meaning {
        let params: Vec<_> = params.collect();
        let written =
            params.iter().map(|(name, text)| ((*name).clone(), Secret::new(text.as_str())));
        let (native, faults) = Native::read(action, written.collect());
        for fault in faults {
            let text = params.iter().find(|(name, _)| fault.parameter.as_ref() == Some(*name));
            let own = text.and_then(|(_, text)| text.outermost(0..text.len()));
            let consequence = if fault.is_fatal { "; the action is left out" } else { "" };
            let what = format!("action `{action}`: {}{consequence}", fault.what);
            self.tell(Severity::Error, own.or_else(|| place.cloned()), what, &fault.remedy);
        }
        native.map_or(Meaning::Faulty, |native| {
            Meaning::Tell(ActionSettings { name, place: None, kind: ActionKind::Native(native) })
        })
    }

    /// Reads `action`: what the jail's bans reach is what its firewall actions reach together; the others tell of them.
    pub(super) fn acts(
        &mut self,
        filter: Option<&FilterFiles>,
        handed: &Handed,
    ) -> Result<(Scope, Vec<ActionSettings>), Refused> {
        let mut scope: Option<Scope> = None;
        let mut actions = Vec::new();
        let mut names = Vec::new();
        let text = self.text("action", filter)?.unwrap_or_default();
        for call in params::split(&text) {
            let place = call.outermost(0..call.len());
            let call = match params::read(&call) {
                Ok(call) => call,
                Err(error) => {
                    return Err(self.refuse(place, format!("`action`: {error}"), error.remedy()));
                }
            };
            self.look_at(&call, &mut names, place.clone());
            let mut left_out = Vec::new();
            let action = call.name.clone();
            let meaning = self.meaning(call, handed, &mut left_out, place.as_ref());
            for left_out in left_out {
                let what = format!("action `{action}`: {}; it is left out", left_out.error);
                let place = left_out.text.outermost(0..left_out.text.len());
                self.tell(
                    Severity::Error,
                    place.or_else(|| text.place()),
                    what,
                    left_out.error.remedy(),
                );
            }
            match meaning {
                Err(error) => {
                    let place = error.place().or(place);
                    return Err(self.refuse(place, &error, error.remedy()));
                }
                Ok(Meaning::Unknown) => self.leaves_out(action, place),
                Ok(Meaning::Faulty) => {}
                Ok(Meaning::Tell(action)) => {
                    self.look_at_timeout(&action, place.clone());
                    actions.push(ActionSettings { place, ..action });
                }
                Ok(Meaning::Enforce { scope: more, rejects }) => {
                    self.translates(action, rejects);
                    scope = Some(scope.map_or(more.clone(), |scope| scope.union(more)));
                }
            }
        }
        if scope.is_none() {
            let what =
                "no action bans anybody: failures are counted and reported, nothing is dropped"
                    .to_owned();
            self.tell(
                Severity::Warning,
                text.place(),
                what,
                "add `xdp` to `action`, or set `banaction = xdp`",
            );
        }
        Ok((scope.unwrap_or(Scope::NOTHING), actions))
    }
}
