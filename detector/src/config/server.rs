//! `fail2xdp.conf`: what is ours alone; and the few options of `fail2ban.conf` that we honour.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    AllowIpv6, AttachMode, CountingSettings, EnforceSettings, Located, LogFormat, LogSettings,
    LogTarget, Problem, Severity, StoreSettings, TellingSettings, WidestBan, expand::Context,
    ignore, layers::Layers, log, options, ports, seconds, text::Text,
};

const SECTION: &str = "Definition";
/// fail2ban's section of a single option, which we have no use for.
const THREAD: &str = "Thread";

/// Where fail2ban listens, unless `socket` says otherwise.
const FAIL2BAN_SOCKET: &str = "/run/fail2ban/fail2ban.sock";

/// Default and bound of `max_bans`, each family.
const MAX_BANS: u32 = 4_194_304;
/// What the maps are made for at first, each family.
const INITIAL_BANS: u32 = 65_536;
/// `widest_ban`: what registries hand out to a provider at the least is hardly one attacker's.
const WIDEST_BAN: WidestBan = WidestBan { v4: 16, v6: 32 };
/// Sampled drops a second.
const EVENTS: u32 = 100;
/// Bans of one family that any machine could hold: the bound of `max_bans`.
const MOST_BANS: u32 = 1 << 28;
/// The kernel's limit for an interface's name, its end included.
const INTERFACE_NAME: usize = 16;

const OPTIONS: &[&str] = &[
    "interface",
    "interfaces",
    "mode",
    "observe",
    "allow",
    "allow_sessions",
    "widest_ban",
    "max_bans",
    "initial_bans",
    "events_per_second",
    "compare_every",
    "loglevel",
    "logtarget",
    "syslogsocket",
    "allowipv6",
    "dbpurgeage",
    "dbmaxmatches",
    "max_pending",
    "max_evidence",
    "compat-socket",
    "max_history",
    "ban_ceiling",
    "metrics",
    "action_runner",
    "action_queue",
    "action_user",
    "action_retry",
];

/// `compare_every`, and its bounds in seconds: the most is a day.
const COMPARE_EVERY: &str = "5m";
const COMPARE_BOUNDS: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

/// `action_retry`, and its bounds in seconds: the most is an hour.
const ACTION_RETRY: &str = "30s";
const RETRY_BOUNDS: std::ops::RangeInclusive<f64> = 0.0..=3600.0;

/// `dbpurgeage` and `dbmaxmatches`, as fail2ban ships them.
const PURGE_AGE: &str = "1d";
const MAX_MATCHES: u32 = 10;
const MOST_MATCHES: u32 = 1000;
/// Bounds of `dbpurgeage` in seconds: the most is a hundred years.
const PURGE_BOUNDS: std::ops::RangeInclusive<f64> = 0.0..=3_155_760_000.0;

/// `max_pending`, and bounds: the fewest that forgetting a sixteenth works with, the most a machine could hold.
const PENDING: u32 = 1_000_000;
const FEWEST_PENDING: u32 = 16;
const MOST_PENDING: u32 = 1 << 28;
/// `max_history`, with the same bounds.
const HISTORY: u32 = 1_000_000;
/// `ban_ceiling`: a botnet on one machine makes fewer, a filter that takes everybody for an attacker more.
const BAN_CEILING: u32 = 1000;
/// `max_evidence` and its bound, in MiB.
const EVIDENCE: u32 = 24;
const MOST_EVIDENCE: u32 = 1 << 16;

/// `action_queue` and its bound.
const ACTION_QUEUE: u32 = 10_000;
const MOST_ACTION_QUEUE: u32 = 1_000_000;

/// The server's share of the settings.
pub(super) struct Server {
    pub(super) enforce: EnforceSettings,
    pub(super) log_level: String,
    pub(super) log: LogSettings,
    pub(super) allow_ipv6: AllowIpv6,
    pub(super) store: StoreSettings,
    pub(super) counting: CountingSettings,
    pub(super) telling: TellingSettings,
    pub(super) compat_socket: Option<PathBuf>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) action_user: Option<String>,
    pub(super) action_retry: Duration,
}

/// Reads `fail2xdp.conf`, and what it leaves open from `fail2ban.conf`.
pub(super) fn read(own: &Layers, fail2ban: &Layers, problems: &mut Vec<Problem>) -> Server {
    let mut reader = Reader { context: Context::of_file(own, SECTION), problems };
    reader.unknown_options(own);
    let max_bans = reader.number("max_bans", MAX_BANS, 1..=MOST_BANS);
    let initial_bans = reader.number("initial_bans", INITIAL_BANS.min(max_bans), 1..=max_bans);
    let (allow, allow_files) = reader.allow();
    let enforce = EnforceSettings {
        interfaces: reader.interfaces(),
        mode: reader.mode(),
        observe: reader.boolean("observe", false),
        allow,
        allow_files,
        widest_ban: reader.widest_ban(),
        allow_sessions: reader.boolean("allow_sessions", true),
        max_bans,
        initial_bans,
        events_per_second: reader.number("events_per_second", EVENTS, 0..=u32::MAX),
        compare_every: reader
            .time("compare_every", COMPARE_EVERY, COMPARE_BOUNDS)
            .unwrap_or_else(|| time(COMPARE_EVERY)),
    };
    let counting = CountingSettings {
        max_pending: reader.number("max_pending", PENDING, FEWEST_PENDING..=MOST_PENDING),
        max_evidence: reader.number("max_evidence", EVIDENCE, 0..=MOST_EVIDENCE),
        max_history: reader.number("max_history", HISTORY, FEWEST_PENDING..=MOST_PENDING),
        ban_ceiling: reader.number("ban_ceiling", BAN_CEILING, 0..=u32::MAX),
    };
    let telling = TellingSettings {
        runner: reader.action_runner(),
        queue: reader.number("action_queue", ACTION_QUEUE, 1..=MOST_ACTION_QUEUE),
    };
    let compat = reader.boolean("compat-socket", false);
    let (log_level, metrics) = (reader.log_level(), reader.metrics());
    let (log_target, syslog_socket) = (reader.log_target(), reader.syslog_socket());
    let allow_ipv6 = reader.allow_ipv6();
    let purge_age =
        |reader: &mut Reader<'_, '_>| reader.time("dbpurgeage", PURGE_AGE, PURGE_BOUNDS);
    let (own_age, max_matches) = (purge_age(&mut reader), reader.max_matches());
    // What our own file leaves open is asked of fail2ban's.
    let mut other =
        Reader { context: Context::of_file(fail2ban, SECTION), problems: reader.problems };
    let log_level = log_level.or_else(|| other.log_level());
    let log = LogSettings {
        target: log_target.or_else(|| other.log_target()),
        syslog_socket: syslog_socket.or_else(|| other.syslog_socket()).flatten(),
    };
    let allow_ipv6 = allow_ipv6.or_else(|| other.allow_ipv6()).unwrap_or(AllowIpv6::Auto);
    let store = StoreSettings {
        purge_age: own_age.or_else(|| purge_age(&mut other)).unwrap_or_else(|| time(PURGE_AGE)),
        max_matches: max_matches.or_else(|| other.max_matches()).unwrap_or(MAX_MATCHES),
    };
    let compat_socket = compat.then(|| {
        let socket = other.text("socket");
        PathBuf::from(socket.as_ref().map_or(FAIL2BAN_SOCKET, |socket| socket.as_str().trim()))
    });
    other.look_at_the_rest(fail2ban);
    let mut own = Reader { context: Context::of_file(own, SECTION), problems: other.problems };
    let action_user = own.text("action_user").map(|user| user.as_str().trim().to_owned());
    let action_retry =
        own.time("action_retry", ACTION_RETRY, RETRY_BOUNDS).unwrap_or_else(|| time(ACTION_RETRY));
    let log_level = log_level.unwrap_or_else(|| "INFO".to_owned());
    Server {
        enforce,
        log_level,
        log,
        allow_ipv6,
        store,
        counting,
        telling,
        compat_socket,
        metrics,
        action_user,
        action_retry,
    }
}

struct Reader<'a, 'p> {
    context: Context<'a>,
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_, '_> {
    fn problem(&mut self, severity: Severity, at: &Located<String>, what: String, remedy: &str) {
        let (place, remedy) = (at.place.clone(), remedy.to_owned());
        self.problems.push(Problem { severity, jail: None, place, what, remedy });
    }

    fn unknown_options(&mut self, own: &Layers) {
        let section = own.section(SECTION).map(|section| &section.options);
        let section = section.into_iter().flatten().take(options::MOST_LOOKED_AT);
        for (name, text) in section.filter(|(name, _)| !OPTIONS.contains(&name.as_str())) {
            let remedy = match options::meant(name, OPTIONS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", listed(OPTIONS)),
            };
            self.problem(
                Severity::Warning,
                &text.located(),
                format!("option `{name}` is not known"),
                &remedy,
            );
        }
    }

    /// Tells what of `fail2ban.conf` we do not use and fail2ban could not read.
    fn look_at_the_rest(&mut self, fail2ban: &Layers) {
        let (of_server, of_threads) = (["socket", "pidfile", "dbfile"], ["stacksize"]);
        let options = of_server.map(|option| (SECTION, option)).into_iter();
        for (section, option) in options.chain(of_threads.map(|option| (THREAD, option))) {
            let context = Context::of_file(fail2ban, section);
            if fail2ban.section(section).is_some()
                && let Err(error) = context.get(option)
            {
                let what =
                    format!("`{option}` cannot be expanded: {error}; fail2ban would not start");
                let at = Located { value: String::new(), place: error.place.clone() };
                self.problem(Severity::Warning, &at, what, error.remedy());
            }
        }
    }

    /// The option expanded; `None` when it is not set, empty or cannot be expanded.
    fn text(&mut self, option: &str) -> Option<Text> {
        match self.context.get(option) {
            Ok(text) => text.filter(|text| !text.as_str().trim().is_empty()),
            Err(error) => {
                let what = format!("`{option}` cannot be expanded: {error}; its default is used");
                let at = Located { value: String::new(), place: error.place.clone() };
                self.problem(Severity::Error, &at, what, error.remedy());
                None
            }
        }
    }

    fn number(&mut self, option: &str, default: u32, range: std::ops::RangeInclusive<u32>) -> u32 {
        let Some(text) = self.text(option) else { return default };
        match text.as_str().trim().replace('_', "").parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let what = format!(
                    "`{option} = {}` is no usable number; {default} is used",
                    text.as_str()
                );
                let remedy = format!("write a number from {} to {}", range.start(), range.end());
                self.problem(Severity::Error, &text.located(), what, &remedy);
                default
            }
        }
    }

    /// A span of time within these bounds in seconds; `None` when it is not set.
    fn time(
        &mut self,
        option: &str,
        default: &str,
        bounds: std::ops::RangeInclusive<f64>,
    ) -> Option<Duration> {
        let text = self.text(option)?;
        match seconds(text.as_str()) {
            Ok(seconds) if bounds.contains(&seconds) => Some(Duration::from_secs_f64(seconds)),
            _ => {
                let told = text.as_str();
                let what = format!("`{option} = {told}` is no usable time; {default} is used");
                self.problem(Severity::Error, &text.located(), what, "write a time such as `7d`");
                Some(time(default))
            }
        }
    }

    fn max_matches(&mut self) -> Option<u32> {
        self.text("dbmaxmatches")?;
        Some(self.number("dbmaxmatches", MAX_MATCHES, 0..=MOST_MATCHES))
    }

    fn boolean(&mut self, option: &str, default: bool) -> bool {
        let Some(text) = self.text(option) else { return default };
        match text.as_str().trim().to_ascii_lowercase().as_str() {
            "1" | "on" | "true" | "yes" => true,
            "0" | "off" | "false" | "no" => false,
            other => {
                let used = if default { "yes" } else { "no" };
                let what = format!("`{option} = {other}` is neither yes nor no; `{used}` is used");
                self.problem(Severity::Error, &text.located(), what, "write `yes` or `no`");
                default
            }
        }
    }

    fn mode(&mut self) -> AttachMode {
        let Some(text) = self.text("mode") else { return AttachMode::Auto };
        match text.as_str().trim().to_ascii_lowercase().as_str() {
            "auto" => AttachMode::Auto,
            "native" => AttachMode::Native,
            "generic" => AttachMode::Generic,
            "none" => AttachMode::None,
            other => {
                let what = format!("`mode = {other}` is none; `auto` is used");
                self.problem(
                    Severity::Error,
                    &text.located(),
                    what,
                    "write `auto`, `native`, `generic` or `none`",
                );
                AttachMode::Auto
            }
        }
    }

    fn interfaces(&mut self) -> Vec<String> {
        let mut interfaces: Vec<String> = Vec::new();
        for option in ["interface", "interfaces"] {
            let Some(text) = self.text(option) else { continue };
            for name in ports::words(text.as_str()) {
                if name.len() >= INTERFACE_NAME || name.contains('/') || name == "." || name == ".."
                {
                    let what = format!("`{name}` can be no interface's name; it is left out");
                    self.problem(
                        Severity::Error,
                        &text.located(),
                        what,
                        "take a name that `ip link` shows",
                    );
                } else if !interfaces.iter().any(|known| known == name) {
                    interfaces.push(name.to_owned());
                }
            }
        }
        interfaces
    }

    fn allow(&mut self) -> (Vec<Located<ipnet::IpNet>>, Vec<PathBuf>) {
        let Some(text) = self.text("allow") else { return Default::default() };
        let (mut allow, mut files) = (Vec::new(), Vec::new());
        for line in text.lines() {
            for word in ports::words(&line.value) {
                if let Some(file) = word.strip_prefix("file:") {
                    if file.starts_with('/') {
                        files.push(PathBuf::from(file));
                    } else {
                        let what = format!("`allow`: `{word}` names no file; it protects nobody");
                        self.problem(
                            Severity::Error,
                            &line,
                            what,
                            "write `file:` and a whole path",
                        );
                    }
                    continue;
                }
                match ignore::network(word) {
                    Ok(value) => allow.push(Located { value, place: line.place.clone() }),
                    Err(error) => {
                        let what = format!("`allow`: {error}; it protects nobody");
                        let remedy = "write an address or a network, as in `192.0.2.1` or `2001:db8::/32`; names are \
                                      looked up for a jail's `ignoreip` only";
                        self.problem(Severity::Error, &line, what, remedy);
                    }
                }
            }
        }
        (allow, files)
    }

    fn widest_ban(&mut self) -> WidestBan {
        let Some(text) = self.text("widest_ban") else { return WIDEST_BAN };
        let length = |word: &str, most| {
            let length = word.strip_prefix('/').unwrap_or(word).parse::<u8>().ok()?;
            (length <= most).then_some(length)
        };
        let words: Vec<&str> = ports::words(text.as_str()).collect();
        if let [v4, v6] = words[..]
            && let (Some(v4), Some(v6)) = (length(v4, 32), length(v6, 128))
        {
            return WidestBan { v4, v6 };
        }
        let WidestBan { v4, v6 } = WIDEST_BAN;
        let what =
            format!("`widest_ban = {}` is no pair of lengths; /{v4}, /{v6} is used", text.as_str());
        let remedy = "write two prefix lengths, for IPv4 and IPv6, as in `/16, /32`";
        self.problem(Severity::Error, &text.located(), what, remedy);
        WIDEST_BAN
    }

    /// Where metrics are read over TCP. Whoever reaches it may read: a word of warning beyond this machine.
    fn metrics(&mut self) -> Option<SocketAddr> {
        let text = self.text("metrics")?;
        let written = text.as_str().trim();
        if matches!(&*written.to_ascii_lowercase(), "off" | "no") {
            return None;
        }
        let Ok(address) = written.parse::<SocketAddr>() else {
            let what = format!("`metrics = {written}` is no address with a port; there are none");
            let remedy = "write an address such as `127.0.0.1:9418`, or `off`";
            self.problem(Severity::Error, &text.located(), what, remedy);
            return None;
        };
        if !address.ip().is_loopback() {
            let what = format!("`metrics = {address}` can be read by other machines");
            let remedy = "write a loopback address, or see to it that only yours reach it";
            self.problem(Severity::Warning, &text.located(), what, remedy);
        }
        Some(address)
    }

    /// `None`: the daemon starts its own.
    fn action_runner(&mut self) -> Option<PathBuf> {
        let text = self.text("action_runner")?;
        let written = text.as_str().trim();
        if written.starts_with('/') {
            return Some(PathBuf::from(written));
        }
        let what = format!("`action_runner = {written}` is no path; the daemon starts its own");
        let remedy =
            "write the whole path of the socket that `fail2xdp action-runner --listen` made";
        self.problem(Severity::Error, &text.located(), what, remedy);
        None
    }

    fn log_target(&mut self) -> Option<Located<(LogTarget, LogFormat)>> {
        let text = self.text("logtarget")?;
        let Located { value: written, place } = text.located();
        match log::target(&text) {
            Ok(value) => Some(Located { value, place }),
            Err(error) => {
                let what = format!("`logtarget = {written}`: {error}; its default is used");
                self.problem(Severity::Error, &text.located(), what, error.remedy());
                None
            }
        }
    }

    /// `None` where nothing is said, no path for the system's.
    fn syslog_socket(&mut self) -> Option<Option<Located<PathBuf>>> {
        let text = self.text("syslogsocket")?;
        let Located { value: written, place } = text.located();
        match written.trim() {
            word if word.eq_ignore_ascii_case("auto") => Some(None),
            path if path.starts_with('/') => Some(Some(Located { value: path.into(), place })),
            other => {
                let what = format!("`syslogsocket = {other}` is no path; the system's is used");
                let remedy = "write `auto`, or a socket's whole path such as `/dev/log`";
                self.problem(Severity::Error, &text.located(), what, remedy);
                None
            }
        }
    }

    fn allow_ipv6(&mut self) -> Option<AllowIpv6> {
        let text = self.text("allowipv6")?;
        match text.as_str().trim().to_ascii_lowercase().as_str() {
            "auto" => Some(AllowIpv6::Auto),
            "yes" | "1" | "on" | "true" => Some(AllowIpv6::Yes),
            "no" | "0" | "off" | "false" => Some(AllowIpv6::No),
            other => {
                let what = format!("`allowipv6 = {other}` is none; `auto` is used");
                let remedy = "write `auto`, `yes` or `no`";
                self.problem(Severity::Error, &text.located(), what, remedy);
                None
            }
        }
    }

    fn log_level(&mut self) -> Option<String> {
        const LEVELS: &[&str] = &[
            "CRITICAL",
            "ERROR",
            "WARNING",
            "NOTICE",
            "INFO",
            "DEBUG",
            "TRACEDEBUG",
            "HEAVYDEBUG",
        ];
        let text = self.text("loglevel")?;
        let written = text.as_str().trim().to_ascii_uppercase();
        // Python's other words for the same.
        let level = match written.as_str() {
            "WARN" => "WARNING",
            "FATAL" => "CRITICAL",
            "MSG" => "18",
            "NOTSET" => "0",
            level => level,
        };
        if LEVELS.contains(&level) || level.bytes().all(|b| b.is_ascii_digit()) {
            return Some(level.to_owned());
        }
        let what = format!("`loglevel = {}` is none; its default is used: `INFO`", text.as_str());
        self.problem(
            Severity::Warning,
            &text.located(),
            what,
            &format!("write one of {}", listed(LEVELS)),
        );
        None
    }
}

/// A default.
fn time(text: &str) -> Duration {
    Duration::from_secs_f64(seconds(text).expect("defaults are times"))
}

/// Names for a message.
fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
