//! Jails: each section of the merged `jail` files, as written, becomes a [`JailSettings`].
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    BanTime, Ignore, JailName, JailSettings, Located, Place, Problem, Severity, SourceSettings,
    Tree,
    definition::Handed,
    expand::{Context, ExpandError, Lookup, is_well_formed},
    filter::FilterFiles,
    layers::{DEFAULT, Fault, FaultKind, Layers, Section},
    options,
    ordered::Options,
    source::Backend,
    span,
    text::Text,
};

/// The server's defaults, where neither jail nor `[DEFAULT]` says anything.
const MAX_RETRY: u32 = 3;
const FIND_TIME: f64 = 600.0;
const BAN_TIME: BanTime = BanTime::Seconds(600);
const MAX_MATCHES: u32 = 5;
/// Bound of `maxmatches`: lines are kept for each address.
const MOST_MATCHES: u32 = 1_000;
/// Bound of `findtime`: a hundred years.
const LONGEST_FIND_TIME: f64 = 100.0 * 31_557_600.0;

/// The jail cannot run; the reason has been told.
pub(super) struct Refused;

/// Reads all jails.
pub(super) struct Reader<'a> {
    tree: &'a dyn Tree,
    layers: &'a Layers,
    built_in: Options,
    fail2ban_tree: bool,
    used: HashSet<String>,
    problems: &'a mut Vec<Problem>,
    /// Actions that nothing runs, and the jails that want them.
    not_run: BTreeMap<String, (Option<Place>, BTreeSet<JailName>)>,
    /// Firewall actions that became XDP bans, and whether they would have rejected.
    translated: BTreeMap<String, bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        tree: &'a dyn Tree,
        layers: &'a Layers,
        fail2ban_tree: bool,
        problems: &'a mut Vec<Problem>,
    ) -> Reader<'a> {
        let mut built_in = Options::default();
        for (name, value) in [
            ("fail2ban_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("fail2ban_confpath", tree.root().display().to_string()),
        ] {
            built_in.insert(name.to_owned(), Text::new(&value, None));
        }
        let used = options::used(layers);
        let (not_run, translated) = (BTreeMap::new(), BTreeMap::new());
        Reader { tree, layers, built_in, fail2ban_tree, used, problems, not_run, translated }
    }

    /// `bantime` of `[DEFAULT]`. A fault in it is told by the jails that inherit it.
    pub(super) fn default_ban_time(&self) -> BanTime {
        let context =
            Context { built_in: Some(&self.built_in), ..Context::of_file(self.layers, DEFAULT) };
        let text = context.get("bantime").ok().flatten();
        text.and_then(|text| ban_time(text.as_str()).ok()).unwrap_or(BAN_TIME)
    }

    /// Every enabled jail that holds together, in file order.
    pub(super) fn all(&mut self) -> Vec<JailSettings> {
        let layers = self.layers;
        if let Some(default) = layers.section(DEFAULT) {
            self.look_for_slips(default, None);
        }
        let names: Vec<JailName> =
            self.names().into_iter().filter(|name| self.sound(name).is_ok()).collect();
        names.iter().filter_map(|name| self.jail(name)?.read().ok()?).collect()
    }

    /// Those of the jails that read files, and do not run while there are none.
    pub(super) fn skipped_without_logs(&mut self, jails: &[JailSettings]) -> Vec<JailName> {
        let files = jails.iter().filter(|it| matches!(it.source, SourceSettings::Files { .. }));
        let mut skips = |jail: &&JailSettings| {
            let text = self.jail(&jail.name)?.text("skip_if_nologs", None).ok().flatten();
            text.map(|text| is_true(text.as_str()))
        };
        files.filter(|jail| skips(jail) == Some(true)).map(|jail| jail.name.clone()).collect()
    }

    /// The names of all jails, enabled or not, in file order.
    pub(super) fn names(&self) -> Vec<JailName> {
        let names = self.layers.sections().iter().map(|section| section.name.as_str());
        names.filter(|name| !matches!(*name, DEFAULT | "INCLUDES")).map(JailName::new).collect()
    }

    /// The first fault in the jail's section, if there is one.
    pub(super) fn sound(&self, name: &JailName) -> Result<(), &'a FaultKind> {
        let own = |fault: &&Fault| fault.section.as_deref() == Some(name.as_str());
        self.layers.faults.iter().find(own).map_or(Ok(()), |fault| Err(&fault.kind))
    }

    /// The jail of that name.
    pub(super) fn jail<'r>(&'r mut self, name: &JailName) -> Option<Jail<'r, 'a>> {
        let section = self.layers.section(name.as_str())?;
        let (unexpanded, stranger) = (BTreeSet::new(), Cell::new(None));
        Some(Jail { name: name.clone(), section, reader: self, unexpanded, stranger })
    }

    /// Tells what concerns several jails at once; answers with what an operator should know besides.
    pub(super) fn finish(self) -> Vec<String> {
        for (action, (place, jails)) in self.not_run {
            let jails = jails.iter().map(|jail| format!("`{jail}`")).collect::<Vec<_>>().join(", ");
            let what = format!("action `{action}` is not run by this version (jail {jails})");
            let remedy =
                "nothing need be done for the bans; what it would have done is missing".to_owned();
            self.problems.push(Problem {
                severity: Severity::Warning,
                jail: None,
                place,
                what,
                remedy,
            });
        }
        let note = |(action, rejects): (&String, &bool)| match rejects {
            true => format!(
                "action `{action}` becomes an XDP ban; where it would reject, packets are dropped in silence"
            ),
            false => format!("action `{action}` becomes an XDP ban"),
        };
        self.translated.iter().filter(|(action, _)| !is_native(action)).map(note).collect()
    }

    fn look_for_slips(&mut self, section: &Section, jail: Option<&JailName>) {
        for (name, text) in section.options.iter().take(options::MOST_LOOKED_AT) {
            if let Some(meant) = options::meant_in_jail(name, &self.used) {
                self.problems.push(Problem {
                    severity: Severity::Warning,
                    jail: jail.cloned(),
                    place: text.place(),
                    what: format!("option `{name}` is not known and used by no other"),
                    remedy: format!("did you mean `{meant}`?"),
                });
            }
        }
    }
}

fn is_native(action: &str) -> bool {
    action == "xdp"
}

/// `ignoreip` of `[DEFAULT]` as networks, when every jail inherits it: the kernel can spare them, too.
pub(super) fn ignored_by_all(layers: &Layers, jails: &[JailSettings]) -> Vec<Located<IpNet>> {
    let inherits = |jail: &JailSettings| layers.own(jail.name.as_str(), "ignoreip").is_none();
    let nets = |jail: &JailSettings| {
        let nets = jail.ignore.iter().filter_map(|ignore| match ignore.value {
            Ignore::Net(net) => Some(Located { value: net, place: ignore.place.clone() }),
            Ignore::Name(_) => None,
        });
        nets.collect::<Vec<_>>()
    };
    // A value that names its jail (`%(__name__)s`) differs from jail to jail though each inherits it.
    let Some(first) = jails.first().map(nets) else { return Vec::new() };
    if jails.iter().all(|jail| inherits(jail) && nets(jail) == first) { first } else { Vec::new() }
}

/// A text that names no time to ban for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BanTimeError {
    /// Not a span of time at all.
    #[error(transparent)]
    NoSpan(#[from] span::SpanError),
    /// Less than nothing, and not -1.
    #[error("{0} seconds lie in the past")]
    Negative(f64),
}

/// Reads a time to ban for, as `bantime` has it: a span ([`seconds`](super::seconds)) cut to whole seconds, or
/// `-1` for no end.
pub fn ban_time(text: &str) -> Result<BanTime, BanTimeError> {
    let seconds = span::seconds(text)?.trunc();
    if seconds == -1.0 {
        return Ok(BanTime::Permanent);
    }
    if seconds < 0.0 {
        return Err(BanTimeError::Negative(seconds));
    }
    // A ban of more than 136 years has no end that anybody will see.
    if seconds > f64::from(u32::MAX) {
        Ok(BanTime::Permanent)
    } else {
        Ok(BanTime::Seconds(seconds as u32))
    }
}

/// One jail being read.
pub(super) struct Jail<'r, 'a> {
    pub(super) name: JailName,
    section: &'r Section,
    reader: &'r mut Reader<'a>,
    /// Options that were told not to expand.
    unexpanded: BTreeSet<String>,
    /// What fail2ban cannot take from the filter, if a value that was asked for as `known/…` held it.
    pub(super) stranger: Cell<Option<&'static str>>,
}

impl Jail<'_, '_> {
    /// `None` for a jail that is not enabled: nothing else of it is looked at.
    fn read(mut self) -> Result<Option<JailSettings>, Refused> {
        let enabled = self.text("enabled", None)?;
        if let Some(text) = &enabled
            && looks_true(text.as_str())
        {
            let what = format!("`enabled = {}` means no: the jail is off", text.as_str());
            self.tell(Severity::Warning, text.place(), what, "write `true` or `false`");
        }
        if !enabled.is_some_and(|text| is_true(text.as_str())) {
            self.look_into_disabled();
            return Ok(None);
        }
        let (name, section) = (self.name.clone(), self.section);
        self.reader.look_for_slips(section, Some(&name));
        // All is read before anything is refused: whoever mends one mistake wants to know the next.
        let backend = self.backend();
        let logtype = backend.as_ref().map_or("file", Backend::logtype);
        let mut files = self.filter_files(logtype);
        let handed = self.hand_on(files.as_mut().ok().and_then(Option::as_mut));
        let filter = files.as_ref().ok().and_then(Option::as_ref);
        filter.inspect(|files| self.look_into(files));
        let max_retry = self.number("maxretry", filter, MAX_RETRY, 1..=u32::MAX);
        let find_time = self.find_time(filter);
        let ban_time = self.ban_time(filter);
        let increment = self.increment(filter);
        let max_matches = self.number("maxmatches", filter, MAX_MATCHES, 0..=MOST_MATCHES);
        let ignore = self.ignored(filter);
        let ignore_self = self.text("ignoreself", filter);
        let acts = self.acts(filter, handed.as_ref().unwrap_or(&Handed::default()));
        let ipv6_prefix = self.ipv6_prefix(filter);
        let silence = self.silence(filter);
        let (ignore_command, ignore_cache) =
            (self.ignore_command(filter), self.ignore_cache(filter));
        let observe = self.observe(filter);
        // Without its filter's files the rest would be a list of names that nobody knows.
        if files.is_err() {
            return Err(Refused);
        }
        handed?;
        let (scope, actions) = acts?;
        let what = self.filter(filter);
        let journalmatch = self.overridden("journalmatch", filter);
        let source = self.source(backend?, journalmatch?, filter);
        Ok(Some(JailSettings {
            place: self.place(),
            filter: what?,
            source: source?,
            max_retry: max_retry?,
            find_time: find_time?,
            ban_time: ban_time?,
            increment: increment?,
            max_matches: max_matches?,
            ignore: ignore?,
            ignore_self: ignore_self?.is_none_or(|text| is_true(text.as_str())),
            ignore_command: ignore_command?,
            ignore_cache: ignore_cache?,
            scope,
            actions,
            ipv6_prefix: ipv6_prefix?,
            silence: silence?,
            observe: observe?,
            name: self.name,
        }))
    }

    /// fail2ban reads some options before it knows whether the jail is on.
    fn look_into_disabled(&mut self) {
        for option in ["backend", "filter"] {
            if let Err(error) = self.expanded(option, None) {
                let what = format!(
                    "`{option}` cannot be expanded: {error}; the jail is off, but fail2ban would not start"
                );
                self.tell(Severity::Warning, error.place.clone(), what, error.remedy());
            }
        }
    }

    pub(super) fn tree(&self) -> &dyn Tree {
        self.reader.tree
    }

    /// Where its section begins.
    pub(super) fn place(&self) -> Option<Place> {
        Some(self.section.place.clone())
    }

    /// Remembers an action that becomes an XDP ban, and whether it would have rejected.
    pub(super) fn translates(&mut self, action: String, rejects: bool) {
        *self.reader.translated.entry(action).or_insert(false) |= rejects;
    }

    /// Remembers an action that nothing runs.
    pub(super) fn leaves_out(&mut self, action: String, place: Option<Place>) {
        let (_, jails) =
            self.reader.not_run.entry(action).or_insert_with(|| (place, BTreeSet::new()));
        jails.insert(self.name.clone());
    }

    pub(super) fn is_fail2ban_tree(&self) -> bool {
        self.reader.fail2ban_tree
    }

    /// Where the option is set, in the jail's section or in `[DEFAULT]`.
    pub(super) fn place_of(&self, option: &str) -> Option<Place> {
        self.reader.layers.raw(self.name.as_str(), option).and_then(Text::place)
    }

    /// Whether the jail's own section sets the option.
    pub(super) fn sets_itself(&self, option: &str) -> bool {
        self.section.options.contains(option)
    }

    /// Whether the jail's section or `[DEFAULT]` sets the option.
    pub(super) fn sets(&self, option: &str) -> bool {
        self.reader.layers.raw(self.name.as_str(), option).is_some()
    }

    /// Tells a problem of this jail.
    pub(super) fn tell(
        &mut self,
        severity: Severity,
        place: Option<Place>,
        what: String,
        remedy: &str,
    ) {
        let (jail, remedy) = (Some(self.name.clone()), remedy.to_owned());
        self.reader.problems.push(Problem { severity, jail, place, what, remedy });
    }

    /// The problem told last, in one line.
    pub(super) fn last_told(&self) -> String {
        let last = self.reader.problems.last();
        last.map_or_else(String::new, |problem| match &problem.place {
            Some(place) => format!("{place}: {}", problem.what),
            None => problem.what.clone(),
        })
    }

    /// Tells why the jail does not run.
    pub(super) fn refuse(
        &mut self,
        place: Option<Place>,
        what: impl std::fmt::Display,
        remedy: &str,
    ) -> Refused {
        self.tell(Severity::Error, place, format!("{what}: the jail does not run"), remedy);
        Refused
    }

    /// Tells, once, that an option cannot be expanded.
    pub(super) fn cannot_expand(&mut self, option: &str, error: ExpandError) -> Refused {
        if !self.unexpanded.insert(option.to_owned()) {
            return Refused;
        }
        self.refuse(
            error.place.clone(),
            format!("`{option}` cannot be expanded: {error}"),
            error.remedy(),
        )
    }

    /// The jail's option, expanded.
    pub(super) fn text(
        &mut self,
        option: &str,
        filter: Option<&FilterFiles>,
    ) -> Result<Option<Text>, Refused> {
        self.expanded(option, filter).map_err(|error| self.cannot_expand(option, error))
    }

    fn expanded(&self, option: &str, filter: Option<&FilterFiles>) -> Lookup {
        let known = |option: &str| {
            let known = filter.map_or(Ok(None), |filter| filter.known(option));
            if let Ok(Some(text)) = &known {
                let stranger = match option {
                    "maxlines" => Some("a number"),
                    _ => Some("a percent sign").filter(|_| !is_well_formed(text.as_str())),
                };
                self.stranger.set(stranger.or(self.stranger.get()));
            }
            known
        };
        let (layers, built_in) = (self.reader.layers, Some(&self.reader.built_in));
        let (section, known): (_, &dyn Fn(&str) -> Lookup) = (self.name.as_str(), &known);
        Context { layers, section, over: None, built_in, known: Some(known) }.get(option)
    }

    /// The jail's option or else the filter's.
    pub(super) fn overridden(
        &mut self,
        option: &str,
        filter: Option<&FilterFiles>,
    ) -> Result<Option<Text>, Refused> {
        let own = self.text(option, filter)?;
        match filter {
            None => Ok(own),
            Some(filter) => {
                filter.overridden(option, own).map_err(|error| self.cannot_expand(option, error))
            }
        }
    }

    fn number(
        &mut self,
        option: &str,
        filter: Option<&FilterFiles>,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, Refused> {
        let text = self.text(option, filter)?;
        Ok(self.number_of(option, text, default, range))
    }

    /// What the text says, or the nearest that is allowed, or the default: wrong numbers are told, never fatal.
    pub(super) fn number_of(
        &mut self,
        option: &str,
        text: Option<Text>,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let Some(text) = text.filter(|text| !text.as_str().trim().is_empty()) else {
            return default;
        };
        let written = text.as_str().trim();
        let Ok(number) = written.parse::<i64>() else {
            let what = format!("`{option} = {written}` is no number; {default} is used");
            self.tell(Severity::Warning, text.place(), what, "write a whole number");
            return default;
        };
        let used = u32::try_from(number.clamp(i64::from(*range.start()), i64::from(*range.end())))
            .unwrap_or(default);
        if i64::from(used) != number {
            let what = format!("`{option} = {number}` is out of range; {used} is used");
            let remedy = format!("write a number from {} to {}", range.start(), range.end());
            self.tell(Severity::Warning, text.place(), what, &remedy);
        }
        used
    }

    fn find_time(&mut self, filter: Option<&FilterFiles>) -> Result<Duration, Refused> {
        let Some(text) = self.text("findtime", filter)? else {
            return Ok(Duration::from_secs_f64(FIND_TIME));
        };
        match span::seconds(text.as_str()) {
            Ok(seconds) if (0.0..=LONGEST_FIND_TIME).contains(&seconds) && seconds > 0.0 => {
                Ok(Duration::from_secs_f64(seconds))
            }
            Ok(seconds) => {
                let what = format!("`findtime` is {seconds} seconds, and no failure could count");
                Err(self.refuse(
                    text.place(),
                    what,
                    "write a span such as `10m`, at most 100 years",
                ))
            }
            Err(error) => {
                Err(self.refuse(text.place(), format!("`findtime`: {error}"), SPAN_REMEDY))
            }
        }
    }

    fn ban_time(&mut self, filter: Option<&FilterFiles>) -> Result<BanTime, Refused> {
        let Some(text) = self.text("bantime", filter)? else { return Ok(BAN_TIME) };
        match ban_time(text.as_str()) {
            Ok(BanTime::Seconds(0)) => {
                let what = "`bantime` is 0: each ban ends in the moment it begins".to_owned();
                self.tell(
                    Severity::Warning,
                    text.place(),
                    what,
                    "write a span such as `10m`, or -1 for no end",
                );
                Ok(BanTime::Seconds(0))
            }
            Ok(time) => Ok(time),
            Err(error) => {
                let remedy = match error {
                    BanTimeError::NoSpan(_) => SPAN_REMEDY,
                    BanTimeError::Negative(_) => "write a span such as `10m`, or -1 for no end",
                };
                Err(self.refuse(text.place(), format!("`bantime`: {error}"), remedy))
            }
        }
    }

    fn ipv6_prefix(&mut self, filter: Option<&FilterFiles>) -> Result<u8, Refused> {
        // fail2ban bans single addresses; one host owns a /64, and whoever wants may try each of its addresses.
        let default = if self.reader.fail2ban_tree { 128 } else { 64 };
        let Some(text) = self.text("ipv6_prefix", filter)? else { return Ok(default) };
        let written = text.as_str().trim();
        match written.strip_prefix('/').unwrap_or(written).parse::<u8>() {
            Ok(length @ 1..=128) => Ok(length),
            _ => {
                let what =
                    format!("`ipv6_prefix = {written}` is no prefix length; {default} is used");
                self.tell(
                    Severity::Error,
                    text.place(),
                    what,
                    "write a number from 1 to 128, as in `64`",
                );
                Ok(default)
            }
        }
    }

    /// fail2ban's booleans take every other word for no, and here that would drop packets.
    fn observe(&mut self, filter: Option<&FilterFiles>) -> Result<bool, Refused> {
        let Some(text) = self.text("observe", filter)? else { return Ok(false) };
        let written = text.as_str().trim().to_ascii_lowercase();
        if !matches!(&*written, "" | "0" | "off" | "false" | "no") && !is_true(&written) {
            let what = format!("`observe = {written}` is neither yes nor no; `yes` is used");
            self.tell(Severity::Error, text.place(), what, "write `yes` or `no`");
            return Ok(true);
        }
        Ok(is_true(&written))
    }

    fn silence(&mut self, filter: Option<&FilterFiles>) -> Result<Option<Duration>, Refused> {
        let Some(text) = self.text("silence", filter)? else { return Ok(None) };
        match text.as_str().trim().to_ascii_lowercase().as_str() {
            "" | "off" | "no" => return Ok(None),
            written => match span::seconds(written) {
                Ok(seconds) if (1.0..=LONGEST_FIND_TIME).contains(&seconds) => {
                    return Ok(Some(Duration::from_secs_f64(seconds)));
                }
                _ => {}
            },
        }
        let what =
            format!("`silence = {}` is no usable time: silence is not reported", text.as_str());
        self.tell(Severity::Error, text.place(), what, "write a span such as `1h`, or `off`");
        Ok(None)
    }
}

const SPAN_REMEDY: &str = "write seconds, or a span such as `10m`, `1h30m`, `1w`";

/// fail2ban's booleans: everything else is false, and never an error; so is a value that begins on the next line.
pub(super) fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "1" | "on" | "true" | "yes")
}

/// Whether a text that means no looks as if it was to mean yes: `ture`, `"yes"`, `enabled`.
fn looks_true(text: &str) -> bool {
    let bare = text.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    let like = ["true", "yes", "enable", "enabled"];
    !is_true(text)
        && (is_true(&bare) || like.contains(&&*bare) || options::meant(&bare, &like).is_some())
}
