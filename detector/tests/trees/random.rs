//! Random trees: every rule of fail2ban's dialect that could go wrong, mixed by a seed.
//!
//! Most of a tree is sound, so that both programs read it to its end: names refer to names before them, and slips are
//! rare. What fail2ban 1.0.2 refuses and its successor takes (`x?family=inet6=…` in brackets, blanks around a `=` there)
//! does not occur.
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom as _};

use crate::texts::Texts;

/// Variables of every section. A value refers to those that stand before its own, so that circles are rare.
const VARS: [&str; 6] = ["vara", "varb", "varc", "vard", "vare", "m-x"];

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Jail,
    Filter,
    Action,
    Server,
}

const JAIL: &[&str] = &[
    "maxretry",
    "findtime",
    "bantime",
    "maxmatches",
    "usedns",
    "ignoreip",
    "ignoreself",
    "ignorecommand",
    "ignorecache",
    "logencoding",
    "logtimezone",
    "bantime.increment",
    "bantime.factor",
    "bantime.overalljails",
    "failregex",
    "ignoreregex",
    "prefregex",
    "datepattern",
    "maxlines",
    "journalmatch",
    "port",
    "protocol",
    "unknown",
];
const FILTER: &[&str] = &[
    "failregex",
    "ignoreregex",
    "prefregex",
    "datepattern",
    "maxlines",
    "usedns",
    "journalmatch",
    "host",
    "logtype",
    "other",
];
const ACTION: &[&str] = &[
    "actionstart",
    "actionstop",
    "actioncheck",
    "actionban",
    "actionunban",
    "actionflush",
    "actionreload",
    "actionprolong",
    "norestored",
    "actionstart_on_demand",
    "timeout",
    "bantime",
    "blocktype",
    "name",
    "chain",
];
const SERVER: &[&str] = &[
    "loglevel",
    "logtarget",
    "syslogsocket",
    "allowipv6",
    "dbfile",
    "dbpurgeage",
    "dbmaxmatches",
    "stacksize",
];

const NUMBERS: &[&str] = &["3", "+7", "1_0", "007", "x", "5.0", "-1", "%(vara)s", "", "12"];
const TRUTHS: &[&str] = &["true", "yes", "1", "On", "no", "0", "maybe", "", "%(vara)s", "TRUE"];
const TIMES: &[&str] = &["600", "10m", "1h 30m", "-1", "1d12h", "soon", "%(varb)s", "5*60", ""];
const DNS: &[&str] = &["yes", "warn", "no", "raw", "No", "%(vara)s", ""];
const LEVELS: &[&str] = &["INFO", "debug", "WARNING", "NOTICE", "20"];
const TARGETS: &[&str] =
    &["STDOUT", "/x/y.log", "SYSLOG[facility=daemon]", "None", ":memory:", "/x/%(__name__)s"];
const IGNORED: &[&str] = &[
    "127.0.0.1/8 ::1",
    "192.0.2.1,192.0.2.2",
    "host.example\n  10.0.0.0/8, 10.1.1.1\n",
    "%(varb)s 192.0.2.7",
    "",
    ",, ,",
];
const MATCHES: &[&str] = &[
    "_SYSTEMD_UNIT=sshd.service + _COMM=sshd",
    "A=1 B=2\n  C=3",
    "\"A=1 2\" 'B=x y' C=a\\ b",
    "_SYSTEMD_UNIT=%(__name__)s.service",
    "",
    "A=%(vara)s",
];
const PATHS: &[&str] = &[
    "/dev/null",
    "/etc/hostname tail",
    "/etc/host*\n  /dev/null head",
    "/nowhere/at.all",
    "%(logs)s",
    "",
    "\n  /dev/null\n\n  /dev/zero tail",
];
const WORDS: &[&str] = &[
    "x", "a b", "1", "é", "#h", "a;b", "=", ":", "\\d+", "\\\\", "'", "\"", "[", "]", ",", "$",
    "^", "(?:a|b)", "word ", " word", "\u{a0}", "<", ">", "()s",
];

/// What a filter's and an action's files may ask of their jail.
const HANDED: &[&str] = &[
    "maxretry",
    "findtime",
    "bantime",
    "backend",
    "filter",
    "enabled",
    "logpath",
    "usedns",
    "ignoreself",
    "failregex",
    "maxmatches",
    "FindTime",
];

/// One tree being made.
struct Maker {
    rng: StdRng,
    texts: Texts,
}

/// The tree of that seed.
pub fn tree(seed: u64) -> Texts {
    let mut maker = Maker { rng: StdRng::seed_from_u64(seed), texts: Texts::default() };
    maker.base(Kind::Server, "fail2ban");
    maker.base(Kind::Jail, "jail");
    for name in ["f", "g", "sub/h"] {
        maker.base(Kind::Filter, &format!("filter.d/{name}"));
    }
    for name in ["act", "bct", "c.t"] {
        maker.base(Kind::Action, &format!("action.d/{name}"));
    }
    maker.texts
}

impl Maker {
    /// Once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.rng.random_ratio(1, times)
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).expect("something to choose from")
    }

    /// All files of one base name: the four groups, and what they include.
    fn base(&mut self, kind: Kind, base: &str) {
        let (folder, stem) =
            base.rsplit_once('/').map_or(("", base), |(folder, stem)| (folder, stem));
        let slash = if folder.is_empty() { "" } else { "/" };
        let at = |name: &str| format!("{folder}{slash}{name}");
        let mut main = self.includes(stem);
        main += &self.file(kind, true);
        self.put(&format!("{base}.conf"), &main);
        for (layer, rare) in [
            (".d/10.conf", 3),
            (".d/9.conf", 4),
            (".local", 3),
            (".d/a.local", 4),
            (".d/.hidden.conf", 12),
        ] {
            if self.once_in(rare) {
                let text = self.file(kind, false);
                self.put(&format!("{base}{layer}"), &text);
            }
        }
        for name in ["one", "two", "three"] {
            for (suffix, rare) in [(".conf", 2), (".local", 5)] {
                if self.once_in(rare) {
                    let mut text = self.includes(stem);
                    text += &self.file(kind, false);
                    self.put(&at(&format!("{stem}-{name}{suffix}")), &text);
                }
            }
        }
    }

    /// `[INCLUDES]`, sometimes of files that are not there, sometimes in a circle.
    fn includes(&mut self, stem: &str) -> String {
        if !self.once_in(3) {
            return String::new();
        }
        let mut text = String::from("[INCLUDES]\n");
        for option in ["before", "after"] {
            if self.once_in(2) {
                continue;
            }
            let names: Vec<String> = (0..self.rng.random_range(1..3))
                .map(|_| match self.rng.random_range(0..8) {
                    0 => "nowhere.conf".to_owned(),
                    1 => format!("{stem}.conf"),
                    2 => format!("{stem}-%(what)s.conf"),
                    3 => format!("{stem}-two.local"),
                    4 => format!("{stem}-three.conf"),
                    _ => format!("{stem}-one.conf"),
                })
                .collect();
            text += &format!("{option} = {}\n", names.join("\n   "));
        }
        text + "what = two\n"
    }

    fn put(&mut self, name: &str, text: &str) {
        let text = if self.once_in(20) { text.replace('\n', "\r\n") } else { text.to_owned() };
        self.texts.put(name, text);
    }

    /// The sections of one file. The `main` one defines what the others may refer to.
    fn file(&mut self, kind: Kind, main: bool) -> String {
        let mut sections = vec![self.section(kind, "DEFAULT", &[], main)];
        let (inner, often) = match kind {
            Kind::Jail => (JAIL, 8),
            Kind::Filter => (FILTER, if main { 3 } else { 6 }),
            Kind::Action => (ACTION, if main { 2 } else { 5 }),
            Kind::Server => (SERVER, 3),
        };
        let chosen = |maker: &mut Maker, often: u32| -> Vec<&'static str> {
            inner.iter().copied().filter(|_| maker.once_in(often)).collect()
        };
        if kind == Kind::Jail {
            let options = chosen(self, 12);
            sections[0] += &self.options(kind, &options, VARS.len());
            sections.push(self.section(kind, "helper", &[], main));
            if self.once_in(20) {
                sections.push(self.section(kind, "j1?x=y", &["maxretry"], false));
            }
            for jail in ["j1", "j2", "other jail"] {
                if main || self.once_in(2) {
                    let options = chosen(self, often);
                    let call = if main || self.once_in(4) { self.calls() } else { String::new() };
                    sections.push(self.section(kind, jail, &options, false) + &call);
                }
            }
        } else {
            let options = chosen(self, often);
            sections.push(self.section(kind, "Definition", &options, false));
            if self.once_in(2) {
                let options = chosen(self, 10);
                sections.push(self.section(kind, "Init", &options, false));
            }
            sections.push(self.section(kind, "helper", &[], main));
            if self.once_in(3) {
                let family = self.one(&[
                    "helper?family=inet6",
                    "Init?family=inet6",
                    "Init?family=inet4",
                    "Definition?family=inet6",
                ]);
                let options: Vec<&str> =
                    if self.once_in(3) { vec!["blocktype"] } else { Vec::new() };
                sections.push(self.section(kind, family, &options, false));
            }
        }
        if kind == Kind::Server && self.once_in(3) {
            sections.push(format!("[Thread]\nstacksize = {}\n", self.one(NUMBERS)));
        }
        let mut text = String::new();
        for section in sections {
            // Never before the first one of all.
            if self.once_in(6) {
                text +=
                    self.one(&["# a comment\n", "; another = one\n", "\n\n", "   # indented\n"]);
            }
            text += &section;
        }
        text
    }

    /// A section with some variables, all of them where it is the ground for others, and these options.
    fn section(&mut self, kind: Kind, name: &str, options: &[&str], all: bool) -> String {
        let mut chosen: Vec<&str> = VARS.into_iter().filter(|_| all || self.once_in(4)).collect();
        chosen.extend(options);
        if name == "DEFAULT" && all {
            chosen.push("logs");
        }
        // `[Init?…]` knows no circle: it is never read by name.
        format!("[{name}]\n{}", self.options(kind, &chosen, VARS.len()))
    }

    fn options(&mut self, kind: Kind, names: &[&str], reach: usize) -> String {
        let mut text = String::new();
        for name in names {
            let rank = VARS.iter().position(|var| var == name).unwrap_or(reach);
            let value = self.value(kind, name, rank);
            let name = match self.rng.random_range(0..100) {
                0..9 => name.to_uppercase(),
                // Behind another option it belongs to that one's value.
                9 => format!("  {name}"),
                10 if self.once_in(5) => {
                    let own = self.one(&["known/", "helper/", "j1/"]);
                    format!("{own}{name}")
                }
                11 if self.once_in(5) => format!("{name}?family=inet4"),
                _ => (*name).to_owned(),
            };
            let sign = match kind {
                Kind::Server => " = ",
                _ => self.one(&[" = ", " = ", " = ", "=", ": ", " : ", " =\n    "]),
            };
            let end =
                self.one(&["\n", "\n", "\n", "\n", " ; said\n", "  \n", "\n\n", "\n# more\n"]);
            text += &format!("{name}{sign}{value}{end}");
        }
        text
    }

    fn value(&mut self, kind: Kind, option: &str, rank: usize) -> String {
        let fixed = match option {
            "maxretry" | "maxmatches" | "maxlines" | "dbmaxmatches" | "stacksize" => NUMBERS,
            "ignoreself"
            | "bantime.increment"
            | "bantime.overalljails"
            | "norestored"
            | "actionstart_on_demand" => TRUTHS,
            "findtime" | "dbpurgeage" => TIMES,
            "bantime" if kind == Kind::Jail => TIMES,
            "loglevel" => LEVELS,
            "logtarget" | "dbfile" => TARGETS,
            "usedns" => DNS,
            "ignoreip" => IGNORED,
            "journalmatch" => MATCHES,
            "logpath" | "logs" => &PATHS[..4],
            _ => return self.text(kind, rank),
        };
        self.one(fixed).to_owned()
    }

    /// Words, names and tags, over one line or several.
    fn text(&mut self, kind: Kind, rank: usize) -> String {
        let mut text = String::new();
        for nth in 0..self.rng.random_range(0..4) {
            if nth > 0 {
                text +=
                    self.one(&["", "", " ", " ", "\n    ", "\n\n    ", "\n    # between\n    "]);
            }
            text += &self.piece(kind, rank);
        }
        text
    }

    fn piece(&mut self, kind: Kind, rank: usize) -> String {
        let before = if self.once_in(250) { VARS.len() } else { rank };
        let var = match before {
            0 => return self.word(kind),
            _ => self.one(&VARS[..before]),
        };
        match self.rng.random_range(0..36) {
            0 => format!("%({})s", var.to_uppercase()),
            1..=7 => format!("%({var})s"),
            8 => format!("%(default/{var})s"),
            9 | 10 => format!("%(helper/{var})s"),
            11 => format!("%(known/{var})s"),
            12 => "%%".to_owned(),
            13 if self.once_in(50) => {
                self.one(&["%", "%(nobody)s", "%(vara)", "%()s", "%(helper/VARA)s"]).to_owned()
            }
            14 => "%(__name__)s".to_owned(),
            15 if kind != Kind::Jail => format!("<{}>", var.to_uppercase()),
            16..=18 if kind != Kind::Jail => format!("<{var}>"),
            19 if kind != Kind::Jail && self.once_in(5) => {
                format!("<known/{}>", var.to_uppercase())
            }
            19 if kind != Kind::Jail => format!("<known/{var}>"),
            20 if kind != Kind::Jail => format!("<helper/{var}>"),
            21 if kind != Kind::Jail => self
                .one(&[
                    "<m-<helper/vara>>",
                    "<var<letter>>",
                    "<<vara>>",
                    "<default/varb>",
                    "<nobody/x>",
                ])
                .to_owned(),
            22 => self
                .one(&["<HOST>", "<ip>", "<F-USER>\\S+</F-USER>", "<>", "< x>", "<ADDR>"])
                .to_owned(),
            23 if kind == Kind::Jail && self.once_in(8) => {
                format!("%(known/{})s", self.one(FILTER))
            }
            // Seldom, as fail2ban dies of one that the jail does not set.
            24 if kind == Kind::Action && self.once_in(30) => format!("%({})s", self.one(HANDED)),
            24 if kind != Kind::Jail => format!("<{}>", self.one(HANDED)),
            25 if kind != Kind::Jail && self.once_in(15) => {
                self.one(&["%(backend)s", "%(filter)s", "%(enabled)s", "<Backend>"]).to_owned()
            }
            25 if self.once_in(50) => format!("%(known/{})s", var.to_uppercase()),
            26 => self
                .one(&["<matches>", "<bantime>", "<name>", "<blocktype>", "<mode>", "<chain>"])
                .to_owned(),
            _ => self.word(kind),
        }
    }

    /// A word; in jails hardly ever a quote, which would end up within brackets.
    fn word(&mut self, kind: Kind) -> String {
        let word = self.one(WORDS);
        if kind == Kind::Jail && ["'", "\""].contains(&word) && !self.once_in(30) {
            return "-".to_owned();
        }
        word.to_owned()
    }

    /// What makes a jail run: its filter and its actions, and a log.
    fn calls(&mut self) -> String {
        let filter = match self.rng.random_range(0..20) {
            0 => "nowhere".to_owned(),
            1 => String::new(),
            2 => "%(__name__)s".to_owned(),
            3 => "sub/h".to_owned(),
            4..=10 => "g".to_owned(),
            _ => "f".to_owned(),
        };
        let filter = self.call(&filter, FILTER);
        let mut actions = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let name = match self.rng.random_range(0..12) {
                0 => "nowhere",
                1 => "p.py",
                2 => "c.t",
                3..=6 => "bct",
                _ => "act",
            };
            actions.push(self.call(name, ACTION));
        }
        let between = self.one(&[" ", "\n    ", "  "]);
        let mut text = format!(
            "enabled = {}\nfilter = {filter}\naction = {}\n",
            self.one(&["true", "true", "true", "yes", "1", "no"]),
            actions.join(between),
        );
        if self.once_in(2) {
            text += &format!("logpath = {}\n", self.one(PATHS));
        }
        if self.once_in(2) {
            let backend = ["auto", "polling", "systemd", "systemd[journalpath=/x]", "%(vara)s"];
            text += &format!("backend = {}\n", self.one(&backend));
        }
        text
    }

    /// `name[param=value, …]`.
    fn call(&mut self, name: &str, options: &[&'static str]) -> String {
        if name.is_empty() || self.once_in(3) {
            return name.to_owned();
        }
        let mut params = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let param = match self.rng.random_range(0..4) {
                0 => self.one(options),
                1 => self.one(&["mode", "logtype", "name", "letter", "actname", "new", "findtime"]),
                _ => self.one(&VARS),
            };
            let param = if self.once_in(8) { param.to_uppercase() } else { param.to_owned() };
            let value = match self.rng.random_range(0..3) {
                0 => self.one(&["1", "a", "", "a b", "x-y", "%(vara)s", "<known/vara>"]).to_owned(),
                _ => {
                    let quote = self.one(&["\"", "'"]);
                    let inside = self.text(Kind::Filter, VARS.len());
                    // The value ends at the next quote.
                    format!("{quote}{}{quote}", inside.replace(quote, ""))
                }
            };
            params.push(format!("{param}={value}"));
        }
        let between = self.one(&[", ", ",", "][", ",\n      "]);
        let slip = if self.once_in(60) { self.one(&["p", ", x", "\""]) } else { "" };
        format!("{name}[{}{slip}]", params.join(between))
    }
}
