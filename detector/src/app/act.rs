//! What the engine decides and the readers tell, carried out: the kernel first, words after.
use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::{Daemon, surroundings::resolve};
use crate::{
    action::wire::Kind,
    command,
    config::{JailName, span_in_words},
    enforce::EnforceError,
    engine::{
        Ban, Effect, Event, FailureId, Lifted, Question, SparedBy, Suspended, Timestamp, Until,
    },
    source::{FileState, JournalState, Report, Rotation},
};

/// The loggers of fail2ban that say what we say, too.
pub(super) const FILTER: &str = "fail2ban.filter";
pub(super) const ACTIONS: &str = "fail2ban.actions";
const OBSERVER: &str = "fail2ban.observer";

/// A line that fail2ban has, too: `[jail] ` and what happened, and the same in single words for the journal. NOTICE is
/// its level between INFO and WARNING.
macro_rules! say {
    ($logger:expr, notice, $event:literal, $jail:expr, $who:expr, $($text:tt)+) => {
        say!(@ $logger, INFO, true, $event, $jail, $who, format_args!($($text)+))
    };
    ($logger:expr, info, $event:literal, $jail:expr, $who:expr, $($text:tt)+) => {
        say!(@ $logger, INFO, false, $event, $jail, $who, format_args!($($text)+))
    };
    ($logger:expr, warn, $event:literal, $jail:expr, $who:expr, $($text:tt)+) => {
        say!(@ $logger, WARN, false, $event, $jail, $who, format_args!($($text)+))
    };
    ($logger:expr, debug, $event:literal, $jail:expr, $who:expr, $($text:tt)+) => {
        say!(@ $logger, DEBUG, false, $event, $jail, $who, format_args!($($text)+))
    };
    (@ $logger:expr, $level:ident, $notice:literal, $event:literal, $jail:expr, $who:expr, $text:expr) => {
        tracing::event!(
            target: $logger,
            tracing::Level::$level,
            notice = $notice,
            event = $event,
            jail = %$jail,
            address = %$who,
            "[{}] {}",
            $jail,
            $text
        )
    };
}
pub(super) use say;

impl Daemon {
    /// As loud as fail2ban: the longer a ban holds, the odder is another failure.
    fn already_banned(&self, jail: &JailName, prefix: IpNet, failed_at: Timestamp) {
        let who = shown(prefix);
        let since = self.engine.bans().of(prefix, jail).map_or(failed_at, |ban| ban.since);
        match failed_at.seconds() - since.seconds() {
            ..3 => say!(ACTIONS, debug, "already banned", jail, who, "{who} already banned"),
            3..60 => say!(ACTIONS, notice, "already banned", jail, who, "{who} already banned"),
            60.. => say!(ACTIONS, warn, "already banned", jail, who, "{who} already banned"),
        }
    }

    /// True when a ban was made or lifted.
    ///
    /// # Errors
    /// When the kernel's maps refuse a ban; it is then not listed either.
    pub(super) fn carry_out(&mut self, effect: Effect) -> Result<bool, EnforceError> {
        let changed = match effect {
            Effect::Ban { ban, prolonged, failed_at } => {
                if let Some(enforcer) = &mut self.enforcer
                    && let Err(error) = enforcer.ban(ban.prefix, &ban.jail, &ban.scope, ban.until)
                {
                    tracing::error!("[{}] {} is NOT banned: {error}", ban.jail, shown(ban.prefix));
                    self.engine.refused(&ban, prolonged);
                    if prolonged {
                        let tasks = self.tell(Kind::Unban, &ban);
                        self.keeper.lifted(&ban, Lifted::Expired, (self.clock)(), tasks);
                        self.forget_dropped();
                    }
                    return Err(error);
                }
                // fail2ban tells its actions nothing of an end that moves because of another failure.
                let tasks = if prolonged { Vec::new() } else { self.tell(Kind::Ban, &ban) };
                self.keeper.ban(&ban, tasks);
                self.forget_dropped();
                let who = shown(ban.prefix);
                if prolonged {
                    self.already_banned(&ban.jail, ban.prefix, failed_at);
                    self.doubt(&ban.jail, ban.prefix, failed_at);
                    tracing::debug!("[{}] the ban of {who} ends later: {:?}", ban.jail, ban.until);
                } else {
                    say!(ACTIONS, notice, "ban", ban.jail, who, "Ban {who}");
                }
                !prolonged
            }
            Effect::Unban { ban, why } => {
                if let Some(enforcer) = &mut self.enforcer
                    && let Err(error) = enforcer.unban(ban.prefix, &ban.jail)
                {
                    tracing::error!(
                        "[{}] cannot take {} out of the kernel: {error}",
                        ban.jail,
                        shown(ban.prefix)
                    );
                }
                let tasks = self.tell(Kind::Unban, &ban);
                self.keeper.lifted(&ban, why, (self.clock)(), tasks);
                self.forget_dropped();
                let who = shown(ban.prefix);
                say!(ACTIONS, notice, "unban", ban.jail, who, "Unban {who}");
                let why = match why {
                    Lifted::Expired => None,
                    Lifted::ByHand => Some("by hand"),
                    Lifted::JailRemoved => Some("with its jail"),
                    Lifted::Ignored => Some("since its jail ignores it by now"),
                };
                if let Some(why) = why {
                    tracing::info!("[{}] the ban of {who} was lifted {why}", ban.jail);
                }
                true
            }
            Effect::Found { .. } if self.told.attempts() => false,
            Effect::Found { jail, who, at, .. } => {
                let (who, at) = (name_of(&who), local(at));
                say!(FILTER, info, "found", jail, who, "Found {who} - {at}");
                false
            }
            Effect::KnownOffender { jail, who, at, bans, counts_for, reached } => {
                let ban = if reached { ", Ban" } else { "" };
                let (who, at) = (name_of(&who), local(at));
                say!(
                    OBSERVER,
                    info,
                    "bad",
                    jail,
                    who,
                    "Found {who}, bad - {at}, {bans} # -> {counts_for:.1}{ban}"
                );
                false
            }
            Effect::Increased { ban, last, plain } => {
                let Ban { jail, prefix, since, until, count, .. } = &*ban;
                let (who, before) = (shown(*prefix), count - 1);
                let (lasts, end) = match until {
                    Until::Forever => ("permanent".to_owned(), "infinite".to_owned()),
                    Until::At(end) => {
                        let seconds = u64::try_from(end.seconds() - since.seconds()).unwrap_or(0);
                        (span_in_words(seconds), local(*end))
                    }
                };
                self.tell_apart(Kind::Prolong, &ban);
                let (last, plain) = (local(last), span_in_words(plain.into()));
                say!(
                    OBSERVER,
                    info,
                    "bad",
                    jail,
                    who,
                    "IP {who} is bad: {before} # last {last} - incr {plain} to {lasts}"
                );
                say!(
                    OBSERVER,
                    notice,
                    "increase",
                    jail,
                    who,
                    "Increase Ban {who} ({count} # {lasts} -> {end})"
                );
                false
            }
            Effect::NotIncreased { jail, prefix, why } => {
                let who = shown(prefix);
                tracing::error!(
                    "[{jail}] `bantime.formula` has no value for {who}: {why}; it is banned for `bantime`"
                );
                false
            }
            Effect::Ceiling { bans, exceeded } => {
                let most = self.engine.ceiling().most;
                let (what, told) = match exceeded {
                    true => (
                        "alarm",
                        format!(
                            "{bans} new bans within a minute, more than `ban_ceiling` ({most}): networks are not \
                             banned now, nor addresses that somebody logged in from"
                        ),
                    ),
                    false => ("over", format!("no longer more than {most} new bans a minute")),
                };
                match exceeded {
                    true => tracing::error!("{told}"),
                    false => tracing::info!("{told}"),
                }
                self.tell_event(what, &told);
                false
            }
            Effect::Suspended { jail, prefix, why } => {
                let who = shown(prefix);
                let why = match why {
                    Suspended::Network => "it is a network".to_owned(),
                    Suspended::LoggedIn(at) => {
                        format!("somebody logged in from there at {}", local(at))
                    }
                };
                tracing::warn!("[{jail}] {who} is not banned while so many are: {why}");
                false
            }
            Effect::LoggedIn { prefix, at } => {
                self.keeper.logged_in(prefix, at);
                false
            }
            Effect::Pardoned { jail, prefix } => {
                self.keeper.pardoned(jail, prefix);
                false
            }
            Effect::Spared { jail, who, by } => {
                let who = name_of(&who);
                let by = match by {
                    SparedBy::OwnAddress => "ignoreself rule",
                    SparedBy::AllowList(_) => "allow",
                    SparedBy::IgnoreIp(_) => "ip",
                    SparedBy::IgnoreName(_) => "dns",
                    SparedBy::Command => "command",
                    SparedBy::EndsInThePast => {
                        say!(ACTIONS, info, "ignore", jail, who, "Ignore {who}, expired bantime");
                        return Ok(false);
                    }
                    SparedBy::LiftedSince => "unban",
                };
                say!(FILTER, info, "ignore", jail, who, "Ignore {who} by {by}");
                false
            }
            Effect::AlreadyBanned { jail, prefix, failed_at } => {
                self.already_banned(&jail, prefix, failed_at);
                self.doubt(&jail, prefix, failed_at);
                false
            }
            Effect::NoAddress { jail, text } => {
                tracing::warn!("[{jail}] `{text}` reached the threshold and has no address to ban");
                false
            }
            Effect::Forgot { jail, addresses } => {
                tracing::warn!(
                    "[{jail}] too many addresses below the threshold: the oldest {addresses} are forgotten"
                );
                false
            }
            Effect::Ask(question) => {
                let (answers, running) = (self.events.0.clone(), self.commands.clone());
                tokio::spawn(async move {
                    // The gate is never closed.
                    let _turn = running.acquire_owned().await;
                    let (answer, fault) = command::answer(&question, command::DEADLINE).await;
                    if let Some(fault) = fault {
                        let Question { jail, script, .. } = &question;
                        tracing::error!(
                            "[{jail}] `ignorecommand` has no answer: {fault} (`{script}`); the failure counts"
                        );
                    }
                    // The daemon may have ended meanwhile.
                    let _ = answers.send(Event::Answered { question, answer });
                });
                false
            }
            Effect::Unasked { jail, failures } => {
                tracing::error!(
                    "[{jail}] too many failures wait for `ignorecommand`: {failures} so far counted without its answer"
                );
                false
            }
            Effect::Resolve { name } => {
                let (answers, allow_ipv6) = (self.events.0.clone(), self.settings.allow_ipv6);
                tokio::spawn(async move {
                    let addresses = resolve(&name, allow_ipv6).await;
                    // The daemon may have ended meanwhile.
                    let _ = answers.send(Event::Resolved { name, addresses });
                });
                false
            }
        };
        Ok(changed)
    }

    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::LoggedIn { address, at } => {
                self.event(Event::LoggedIn { address, at });
            }
            Report::Finding(finding) => {
                self.event(Event::Finding(finding));
            }
            Report::Position { jails, positions } => {
                self.keeper.cut(&mut self.engine, jails, &positions);
            }
            Report::File { path, state } => match state {
                FileState::Following => tracing::info!("following `{}`", path.display()),
                FileState::Waiting => {
                    tracing::info!("`{}` is not there yet: waiting for it", path.display())
                }
                FileState::Gone => {
                    tracing::warn!("`{}` is gone: waiting for it to come back", path.display())
                }
                FileState::Unreadable(why) => {
                    tracing::error!("cannot read `{}`: {why}", path.display())
                }
            },
            Report::Rotated { path, how } => {
                let how = match how {
                    Rotation::Renamed => "renamed",
                    Rotation::Replaced => "replaced",
                    Rotation::Truncated => "truncated",
                    Rotation::Relinked => "its link leads elsewhere",
                };
                tracing::info!("`{}` was rotated ({how})", path.display());
            }
            Report::Journal { journal, state } => match state {
                JournalState::Following => tracing::info!("following {journal}"),
                JournalState::Unavailable(why) => {
                    tracing::warn!("{journal}: {why}; waiting for it")
                }
            },
            Report::CaughtUp { source } => tracing::debug!("{source}: read to the end"),
            Report::Fault { source, what } => tracing::error!("{source}: {what}"),
        }
    }
}

/// A single address without its length.
pub(crate) fn shown(prefix: IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

pub(super) fn name_of(who: &FailureId) -> String {
    match who {
        FailureId::Network(net) => shown(*net),
        who => who.to_string(),
    }
}

pub(super) fn local(at: Timestamp) -> String {
    match jiff::Timestamp::from_second(at.seconds()) {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%F %T").to_string(),
        Err(_) => at.seconds().to_string(),
    }
}
