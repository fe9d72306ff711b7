//! `ignorecommand` and `ignorecache`: an operator's own program decides whom to spare. It is asked outside: the
//! question leaves as an effect, and the failure waits until the answer comes back as an event.
use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use ipnet::IpNet;

use super::{
    Effect, Engine, FailureId, Finding, SparedBy, Timestamp,
    script::{LONGEST_VALUE, newest, reversed},
};
use crate::config::{BanTime, IgnoreCache, JailName, JailSettings, replace_tags};

/// Failures that wait for an answer, and bytes of their lines; what finds no room is counted without asking.
const WAITING: usize = 16_384;
const WAITING_BYTES: usize = 16 << 20;

/// A command for the shell, and the values of the variables that it names. Nothing of a log ever stands in the command
/// itself but what is letters, digits and a few signs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Whose `ignorecommand` it is.
    pub jail: JailName,
    /// For the shell.
    pub script: Box<str>,
    /// Names and values.
    pub variables: Vec<(Box<str>, Box<str>)>,
}

/// What the command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Status 0: the failure does not count.
    Ignore,
    /// Status 1: it does.
    Count,
    /// Nothing: it could not run, took too long, or ended otherwise. The failure counts.
    Failed,
}

/// How the questions stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuestionTotals {
    /// Failures that wait for an answer.
    pub waiting: usize,
    /// Questions that had none, since the daemon started.
    pub failed: u64,
    /// Failures counted without asking because too many waited, since the daemon started.
    pub unasked: u64,
}

/// Failures that wait, by their question.
#[derive(Default)]
pub(super) struct Asking {
    waiting: HashMap<Question, Vec<Finding>>,
    bytes: usize,
    totals: QuestionTotals,
}

/// Answers kept for a while (`ignorecache`); the oldest go first.
#[derive(Default)]
pub(super) struct Answers {
    known: HashMap<Box<str>, (bool, Timestamp)>,
    order: VecDeque<Box<str>>,
}

impl Answers {
    fn get(&self, key: &str, now: Timestamp) -> Option<bool> {
        self.known.get(key).filter(|(_, until)| *until > now).map(|(ignore, _)| *ignore)
    }

    fn put(&mut self, key: Box<str>, ignore: bool, cache: &IgnoreCache, now: Timestamp) {
        if self.known.insert(key.clone(), (ignore, now.plus(cache.max_time))).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > cache.max_count as usize
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

fn size(finding: &Finding) -> usize {
    finding.lines.iter().map(|line| line.len()).sum()
}

impl Engine {
    /// Gives the finding back where it can be counted or left at once; else it waits.
    pub(super) fn ask(
        &mut self,
        at: usize,
        finding: Finding,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Option<Finding> {
        let settings = self.jails[at].settings();
        if let Some(cache) = &settings.ignore_cache {
            let key = key_of(&cache.key, settings, &finding);
            match self.jails[at].answers.get(&key, now) {
                Some(true) => {
                    let (jail, by) = (finding.jail, SparedBy::Command);
                    effects.push(Effect::Spared { jail, who: finding.who, by });
                    return None;
                }
                Some(false) => return Some(finding),
                None => {}
            }
        }
        let Some(command) = &settings.ignore_command else { return Some(finding) };
        let question = question(command, settings, &finding);
        let bytes = size(&finding);
        let asking = &mut self.asking;
        if asking.totals.waiting >= WAITING || asking.bytes + bytes > WAITING_BYTES {
            asking.totals.unasked += 1;
            // Once for each doubling: there may be many.
            if asking.totals.unasked.is_power_of_two() {
                let (jail, failures) = (finding.jail.clone(), asking.totals.unasked);
                effects.push(Effect::Unasked { jail, failures });
            }
            return Some(finding);
        }
        asking.totals.waiting += 1;
        asking.bytes += bytes;
        match asking.waiting.get_mut(&question) {
            Some(waiting) => waiting.push(finding),
            None => {
                asking.waiting.insert(question.clone(), vec![finding]);
                effects.push(Effect::Ask(question));
            }
        }
        None
    }

    /// The answer to [`Effect::Ask`]: what waited for it is counted, or not.
    pub(super) fn answered(
        &mut self,
        question: &Question,
        answer: Answer,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self.asking.waiting.remove(question).unwrap_or_default();
        self.asking.totals.waiting -= waiting.len();
        self.asking.bytes -= waiting.iter().map(size).sum::<usize>();
        self.asking.totals.failed += u64::from(answer == Answer::Failed);
        let ignore = answer == Answer::Ignore;
        for finding in waiting {
            // A reload may have taken the jail away.
            let Some(&at) = self.index.get(&finding.jail) else { continue };
            self.cache(at, &finding, ignore, now);
            if ignore {
                let (jail, by) = (finding.jail, SparedBy::Command);
                effects.push(Effect::Spared { jail, who: finding.who, by });
            } else {
                self.count(at, finding, now, effects);
            }
        }
    }

    /// Keeps an answer for the next failure of the same key.
    pub(super) fn cache(&mut self, at: usize, finding: &Finding, ignore: bool, now: Timestamp) {
        let settings = self.jails[at].settings();
        if let Some(cache) = settings.ignore_cache.clone() {
            let key = key_of(&cache.key, settings, finding).into();
            self.jails[at].answers.put(key, ignore, &cache, now);
        }
    }

    /// How the questions stand.
    pub fn questions(&self) -> QuestionTotals {
        self.asking.totals
    }

    /// Whether a failure of one of these jails waits for an answer: it is read, and not counted yet.
    pub fn is_asking(&self, jails: &[JailName]) -> bool {
        self.asking.waiting.keys().any(|question| jails.contains(&question.jail))
    }
}

/// Where a tag stands in a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Single,
    Double,
}

/// The command with the failure's values, each of them one word for the shell whatever it holds.
fn question(command: &str, settings: &JailSettings, finding: &Finding) -> Question {
    let mut variables: Vec<(Box<str>, Box<str>)> = Vec::new();
    let mut quotes = Quotes::None;
    let script = replace_tags(command, |between, tag| {
        let value = value_of(tag, settings, finding)?;
        quotes = after(quotes, between);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@%+=,-".contains(c);
        if value.chars().all(is_plain) {
            return Some(value.into_owned());
        }
        let name = tag.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let name = format!("f2x_{name}");
        if variables.iter().all(|(known, _)| **known != *name) {
            let value = newest(&value, LONGEST_VALUE).replace('\0', "");
            variables.push((name.clone().into(), value.into()));
        }
        Some(match quotes {
            Quotes::None => format!("\"${{{name}}}\""),
            Quotes::Double => format!("${{{name}}}"),
            Quotes::Single => format!("'\"${{{name}}}\"'"),
        })
    });
    Question { jail: finding.jail.clone(), script: script.into(), variables }
}

/// What quotes are open behind a piece of a command.
fn after(mut quotes: Quotes, piece: &str) -> Quotes {
    let mut chars = piece.chars();
    while let Some(c) = chars.next() {
        quotes = match (quotes, c) {
            (Quotes::None, '\'') => Quotes::Single,
            (Quotes::None, '"') => Quotes::Double,
            (Quotes::Single, '\'') | (Quotes::Double, '"') => Quotes::None,
            (Quotes::None | Quotes::Double, '\\') => {
                chars.next();
                quotes
            }
            _ => quotes,
        };
    }
    quotes
}

fn key_of(template: &str, settings: &JailSettings, finding: &Finding) -> String {
    replace_tags(template, |_, tag| Some(value_of(tag, settings, finding)?.into_owned()))
}

/// What a tag stands for, of those that [`crate::config`] lets through.
fn value_of<'f>(tag: &str, settings: &JailSettings, finding: &'f Finding) -> Option<Cow<'f, str>> {
    let address = match &finding.who {
        FailureId::Address(address) => Some(*address),
        FailureId::Network(net) => Some(net.addr()),
        FailureId::Name(_) | FailureId::Text(_) => None,
    };
    if let Some(field) = tag.strip_prefix("F-") {
        let field = field.to_ascii_lowercase().replace('-', "_");
        let value = finding.fields.iter().find(|(name, _)| **name == *field);
        return Some(value.map_or("", |(_, text)| text).into());
    }
    Some(match tag {
        "ip" | "fid" => match &finding.who {
            FailureId::Network(net) if net.prefix_len() == net.max_prefix_len() => {
                net.addr().to_string().into()
            }
            who => who.to_string().into(),
        },
        // The name would take a look-up; the address tells hosts apart as well.
        "ip-host" => address?.to_string().into(),
        "ip-rev" => reversed(address?).into(),
        "family" => match IpNet::from(address?) {
            IpNet::V4(_) => "inet4".into(),
            IpNet::V6(_) => "inet6".into(),
        },
        "time" => finding.at.seconds().to_string().into(),
        "matches" => finding.lines.join("\n").into(),
        "bantime" => match settings.ban_time {
            BanTime::Permanent => "-1".into(),
            BanTime::Seconds(seconds) => seconds.to_string().into(),
        },
        "failures" | "bancount" | "restored" => "0".into(),
        "br" => "\n".into(),
        "sp" => " ".into(),
        _ => return None,
    })
}
