//! Bans as they are made, heard by the jails that would else read of them in fail2ban's log (`recidive`).
//!
//! Such a jail's filter is shown each ban as the line that fail2ban would write, so that it decides itself which bans
//! count: by whatever jail, but its own. Nothing is written, read back or waited for; whether that log exists does not
//! matter. What fail2ban itself writes there, running beside us or before us, is read and counted as
//! ever, but for a ban that both make by the same jail within two seconds: its line looks like ours.
use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Ban, Effect, Engine, FailureId, Finding, Matcher, Timestamp};
use crate::config::{JailName, JailSettings, LogPath, SourceSettings};

/// What stands before `[sshd] Ban 192.0.2.1` in fail2ban's lines, behind the date: in its file, in syslog, and in the
/// journal, where some filters want the level and some do not.
const STYLES: [&str; 4] = [
    " fail2ban.actions        [1]: NOTICE  ",
    "host fail2ban.actions[1]: NOTICE  ",
    "host fail2ban[1]: NOTICE  ",
    "host fail2ban[1]: ",
];

/// What files and units of the programs that ban are called.
const PROGRAMS: [&str; 2] = ["fail2ban", "fail2xdp"];

/// A jail's own look at bans.
pub(super) struct Ear {
    matcher: Matcher,
    /// The style that its filter understood last.
    style: usize,
}

impl Ear {
    /// `None` for a jail that reads nothing that fail2ban writes.
    pub fn of(settings: &JailSettings) -> Option<Ear> {
        reads_bans(settings).then(|| {
            // What is wrong with its patterns is told by whoever makes the matcher of its log.
            let (matcher, _) = Matcher::new(settings, TimeZone::UTC);
            Ear { matcher, style: 0 }
        })
    }

    /// What its filter makes of a ban.
    pub fn hear(&mut self, ban: &Ban, now: Timestamp) -> Option<Finding> {
        // A log has whole seconds.
        let at = Timestamp::from_seconds(now.seconds());
        let said = format!("[{}] Ban {}", ban.jail, ban.prefix.addr());
        let mut found = Vec::new();
        for turn in 0..STYLES.len() {
            let style = (self.style + turn) % STYLES.len();
            let line = format!("{}{said}", STYLES[style]);
            self.matcher.line(&line, Some(at), now, true, &mut found);
            if let Some(mut finding) = found.pop() {
                self.style = style;
                finding.lines = vec![said.into()];
                if ban.prefix.prefix_len() < ban.prefix.max_prefix_len() {
                    finding.who = FailureId::Network(ban.prefix);
                }
                return Some(finding);
            }
        }
        None
    }
}

fn reads_bans(settings: &JailSettings) -> bool {
    let is_log = |path: &LogPath| {
        let name = path.pattern.rsplit('/').next().unwrap_or("");
        PROGRAMS.iter().any(|program| name.starts_with(program))
    };
    let is_unit = |term: &String| PROGRAMS.iter().any(|program| term.contains(program));
    let (paths, journal) = match &settings.source {
        SourceSettings::Files { paths, .. } => (&paths[..], None),
        SourceSettings::Journal(journal) => (&[][..], Some(journal)),
        SourceSettings::Auto { paths, journal, .. } => (&paths[..], Some(journal)),
        SourceSettings::Nothing => return false,
    };
    settings.filter.name == "recidive"
        || paths.iter().any(is_log)
        || journal.is_some_and(|journal| journal.matches.iter().flatten().any(is_unit))
}

/// Whose ban a line tells of.
fn banned_by(line: &str) -> Option<&str> {
    let (before, _) = line.rsplit_once("] Ban ")?;
    Some(before.rsplit_once('[')?.1)
}

/// The jail of bans by hand without one. Nobody listens to those.
pub const BY_HAND: &str = "manual";

/// How much later than the ban the line about it may be dated.
const LINE_LATER: Duration = Duration::from_secs(2);

impl Engine {
    /// Tells the jails that listen of a ban that was made; who is banned by that makes a ban of its own.
    pub(super) fn overheard(&mut self, ban: &Ban, now: Timestamp, effects: &mut Vec<Effect>) {
        // Bans by hand that no jail makes are the operator's own word, and fail2ban knows none.
        if !self.index.contains_key(&ban.jail) {
            return;
        }
        for at in 0..self.jails.len() {
            if let Some(finding) = self.jails[at].hear(ban, now) {
                self.found(finding, now, effects);
            }
        }
    }

    /// Tells the jails that listen of a ban made in the last moments before a crash, where they have not counted it: the
    /// lines that led to it are read again, and make no ban any more.
    pub fn remind(&mut self, ban: &Ban, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.index.contains_key(&ban.jail) {
            return effects;
        }
        for at in 0..self.jails.len() {
            let jail = &mut self.jails[at];
            let Some(finding) = jail.hear(ban, ban.since) else { continue };
            let prefix = jail.prefix_of(&finding.who);
            let past = prefix.and_then(|it| self.history.of(&finding.jail, it, now));
            let last = jail.last_failure(&finding.who).max(past.map(|past| past.last));
            if last.is_none_or(|last| last.seconds() < ban.since.seconds()) {
                self.found(finding, now, &mut effects);
            }
        }
        effects
    }

    /// A line of a log that tells a listening jail of a ban of ours that it has heard of already. fail2ban's lines look the
    /// same: ours is one whose ban this engine has made by then, and that the jail has counted.
    pub(super) fn is_echo(&self, finding: &Finding, now: Timestamp) -> bool {
        let Some(listener) = self.jail(&finding.jail).filter(|jail| jail.hears_bans()) else {
            return false;
        };
        let by = finding.lines.last().and_then(|line| banned_by(line)).map(JailName::new);
        if by.as_ref().is_some_and(|by| by.as_str() == BY_HAND) {
            return true;
        }
        let Some(maker) = by.as_ref().and_then(|by| self.jail(by)) else { return false };
        let (Some(made), Some(heard)) =
            (maker.prefix_of(&finding.who), listener.prefix_of(&finding.who))
        else {
            return false;
        };
        let maker = &maker.settings().name;
        let past = self.history.of(maker, made, now).map(|past| past.last);
        let since = self.bans.of(made, maker).map(|ban| ban.since).max(past);
        let counted = listener.last_failure(&finding.who);
        let counted = counted.max(self.history.of(&finding.jail, heard, now).map(|past| past.last));
        since.is_some_and(|since| since <= finding.at.plus(LINE_LATER))
            && counted.is_some_and(|counted| finding.at <= counted.plus(LINE_LATER))
    }
}
