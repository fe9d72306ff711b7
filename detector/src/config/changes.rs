//! What differs between two configurations, in an operator's words.
use std::{fmt::Write as _, path::PathBuf, time::Duration};

use super::{
    ActionKind, ActionSettings, BanTime, CountingSettings, EnforceSettings, FilterSettings, Ignore,
    IgnoreCache, Increment, JailSettings, JournalSettings, Located, LogPath, LogSettings, Settings,
    SourceSettings, StoreSettings, TellingSettings,
};

/// An option: its name, and its values as shown.
type Shown = (&'static str, Vec<String>);

/// Values longer than this are counted instead of shown, in characters.
const LONG: usize = 60;

/// Options that a running daemon does not take over.
const AT_START: [&str; 6] =
    ["mode", "allow_sessions", "initial_bans", "metrics", "compat-socket", "action_runner"];

/// What a reload from `old` to `new` changes: one line a jail that comes or goes and one an option.
pub fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut said = Vec::new();
    for jail in &old.jails {
        match new.jails.iter().find(|now| now.name == jail.name) {
            None => said.push(format!("[{}] is removed, its bans are lifted", jail.name)),
            Some(now) => {
                let of = format!("[{}] ", jail.name);
                differences(&of, &of_jail(jail), &of_jail(now), &mut said);
            }
        }
    }
    let added =
        new.jails.iter().filter(|jail| old.jails.iter().all(|known| known.name != jail.name));
    said.extend(added.map(|jail| format!("[{}] is new", jail.name)));
    differences("", &of_server(old), &of_server(new), &mut said);
    said
}

fn differences(of: &str, old: &[Shown], new: &[Shown], said: &mut Vec<String>) {
    for ((option, was), (_, is)) in old.iter().zip(new).filter(|(old, new)| old != new) {
        let when = if AT_START.contains(option) { " (from the next start on)" } else { "" };
        let short =
            |values: &[String]| values.len() <= 1 && values.iter().all(|it| it.len() <= LONG);
        if short(was) && short(is) {
            let text = |values: &[String]| values.first().map_or("none", String::as_str).to_owned();
            said.push(format!("{of}{option}: {} -> {}{when}", text(was), text(is)));
            continue;
        }
        let gone = was.iter().filter(|value| !is.contains(value)).count();
        let come = is.iter().filter(|value| !was.contains(value)).count();
        said.push(match (come, gone) {
            (0, 0) => format!("{of}{option}: another order"),
            _ => format!("{of}{option}: {come} added, {gone} removed"),
        });
    }
}

fn of_jail(jail: &JailSettings) -> Vec<Shown> {
    let JailSettings {
        name: _,
        place: _,
        filter,
        source,
        max_retry,
        find_time,
        ban_time,
        increment,
        max_matches,
        ignore,
        ignore_self,
        ignore_command,
        ignore_cache,
        scope,
        actions,
        ipv6_prefix,
        silence,
        observe,
    } = jail;
    let mut shown = vec![
        ("maxretry", vec![max_retry.to_string()]),
        ("findtime", vec![seconds(*find_time)]),
        ("bantime", vec![ban_time_of(*ban_time)]),
        ("bantime.increment", increment.iter().map(incremented).collect()),
        ("maxmatches", vec![max_matches.to_string()]),
        ("ignoreip", ignore.iter().map(|ignore| ignored(&ignore.value)).collect()),
        ("ignoreself", vec![ignore_self.to_string()]),
        ("ignorecommand", ignore_command.iter().cloned().collect()),
        ("ignorecache", ignore_cache.iter().map(cached).collect()),
        ("scope", vec![scope.to_string()]),
        ("action", actions.iter().map(acting).collect()),
        ("ipv6_prefix", vec![ipv6_prefix.to_string()]),
        ("silence", silence.iter().copied().map(seconds).collect()),
        ("observe", vec![observe.to_string()]),
    ];
    shown.extend(of_filter(filter));
    shown.extend(of_source(source));
    shown
}

/// Of commands the name alone: they may hold a password.
fn acting(action: &ActionSettings) -> String {
    let ActionSettings { name, place: _, kind } = action;
    match kind {
        ActionKind::Commands(_) => name.clone(),
        ActionKind::Native(native) => native.in_words(),
    }
}

fn of_filter(filter: &FilterSettings) -> Vec<Shown> {
    let FilterSettings {
        name,
        prefregex,
        failregex,
        ignoreregex,
        max_lines,
        date_patterns,
        use_dns,
        time_zone,
    } = filter;
    vec![
        ("filter", vec![name.clone()]),
        ("prefregex", values(prefregex)),
        ("failregex", values(failregex)),
        ("ignoreregex", values(ignoreregex)),
        ("maxlines", vec![max_lines.to_string()]),
        ("datepattern", values(date_patterns)),
        ("usedns", vec![format!("{use_dns:?}").to_lowercase()]),
        ("logtimezone", values(time_zone)),
    ]
}

/// Whatever the source, the same options, so that another source shows as changes of these.
fn of_source(source: &SourceSettings) -> Vec<Shown> {
    let (backend, paths, encoding, journal) = match source {
        SourceSettings::Files { paths, encoding } => ("files", &paths[..], Some(encoding), None),
        SourceSettings::Journal(journal) => ("journal", &[][..], None, Some(journal)),
        SourceSettings::Auto { paths, encoding, journal } => {
            ("auto", &paths[..], Some(encoding), Some(journal))
        }
        SourceSettings::Nothing => ("none", &[][..], None, None),
    };
    let path = |LogPath { pattern, tail, place: _ }: &LogPath| {
        if *tail { format!("{pattern} tail") } else { pattern.clone() }
    };
    let nothing = JournalSettings::default();
    let JournalSettings { matches, directory, files, flags, namespace } =
        journal.unwrap_or(&nothing);
    vec![
        ("backend", vec![backend.to_owned()]),
        ("logpath", paths.iter().map(path).collect()),
        ("logencoding", encoding.into_iter().cloned().collect()),
        ("journalmatch", matches.iter().map(|terms| terms.join(" ")).collect()),
        ("journalpath", directory.iter().map(|path| path.display().to_string()).collect()),
        ("journalfiles", files.clone()),
        ("journalflags", flags.iter().map(i32::to_string).collect()),
        ("namespace", namespace.iter().cloned().collect()),
    ]
}

fn of_server(settings: &Settings) -> Vec<Shown> {
    let Settings {
        jails: _,
        enforce,
        metrics,
        store,
        counting,
        telling,
        default_ban_time,
        log_level,
        compat_socket,
        log,
        allow_ipv6,
        skip_without_logs,
        action_user,
        action_retry,
        fail2ban_tree: _,
    } = settings;
    let LogSettings { target, syslog_socket } = log;
    let socket = |socket: &Located<PathBuf>| socket.value.display().to_string();
    let CountingSettings { max_pending, max_evidence, max_history, ban_ceiling } = counting;
    let StoreSettings { purge_age, max_matches } = store;
    let TellingSettings { runner, queue } = telling;
    let EnforceSettings {
        interfaces,
        mode,
        observe,
        allow,
        allow_files,
        widest_ban,
        allow_sessions,
        max_bans,
        initial_bans,
        events_per_second,
        compare_every,
    } = enforce;
    vec![
        ("interfaces", interfaces.clone()),
        ("mode", vec![format!("{mode:?}").to_lowercase()]),
        ("observe", vec![observe.to_string()]),
        ("metrics", metrics.iter().map(ToString::to_string).collect()),
        ("allow", allow.iter().map(|allow| allow.value.to_string()).collect()),
        ("allow files", allow_files.iter().map(|file| file.display().to_string()).collect()),
        ("widest_ban", vec![format!("/{}, /{}", widest_ban.v4, widest_ban.v6)]),
        ("allow_sessions", vec![allow_sessions.to_string()]),
        ("max_bans", vec![max_bans.to_string()]),
        ("initial_bans", vec![initial_bans.to_string()]),
        ("events_per_second", vec![events_per_second.to_string()]),
        ("compare_every", vec![seconds(*compare_every)]),
        ("bantime of [DEFAULT]", vec![ban_time_of(*default_ban_time)]),
        ("loglevel", vec![log_level.clone()]),
        ("logtarget", target.iter().map(|target| format!("{:?}", target.value)).collect()),
        ("syslogsocket", syslog_socket.iter().map(socket).collect()),
        ("allowipv6", vec![format!("{allow_ipv6:?}").to_lowercase()]),
        ("skip_if_nologs", skip_without_logs.iter().map(ToString::to_string).collect()),
        ("max_pending", vec![max_pending.to_string()]),
        ("max_evidence", vec![max_evidence.to_string()]),
        ("max_history", vec![max_history.to_string()]),
        ("ban_ceiling", vec![ban_ceiling.to_string()]),
        ("dbpurgeage", vec![seconds(*purge_age)]),
        ("dbmaxmatches", vec![max_matches.to_string()]),
        ("action_runner", runner.iter().map(|path| path.display().to_string()).collect()),
        ("action_queue", vec![queue.to_string()]),
        ("action_user", action_user.iter().cloned().collect()),
        ("action_retry", vec![seconds(*action_retry)]),
        ("compat-socket", compat_socket.iter().map(|path| path.display().to_string()).collect()),
    ]
}

fn values<'a>(located: impl IntoIterator<Item = &'a Located<String>>) -> Vec<String> {
    located.into_iter().map(|located| located.value.clone()).collect()
}

fn ban_time_of(ban_time: BanTime) -> String {
    match ban_time {
        BanTime::Permanent => "-1".into(),
        BanTime::Seconds(seconds) => format!("{seconds}s"),
    }
}

/// Every word of it, so that any change shows.
fn incremented(increment: &Increment) -> String {
    let Increment { factor, formula, multipliers, max_time, random_time, over_all_jails } =
        increment;
    let mut text = format!("factor {factor}");
    if let Some(formula) = formula {
        let _ = write!(text, ", formula {}", formula.text());
    }
    if !multipliers.is_empty() {
        let all: Vec<String> = multipliers.iter().map(f64::to_string).collect();
        let _ = write!(text, ", multipliers {}", all.join(" "));
    }
    if let Some(most) = max_time {
        let _ = write!(text, ", maxtime {most}s");
    }
    if *random_time > 0.0 {
        let _ = write!(text, ", rndtime {random_time}s");
    }
    if *over_all_jails {
        text += ", overalljails";
    }
    text
}

fn cached(cache: &IgnoreCache) -> String {
    let IgnoreCache { key, max_count, max_time } = cache;
    format!("key {key}, {max_count}, {}", seconds(*max_time))
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

fn ignored(ignore: &Ignore) -> String {
    match ignore {
        Ignore::Net(net) => net.to_string(),
        Ignore::Name(name) => name.clone(),
    }
}
