//! Logs that are made here: of whom, in which form, at which times.
use std::fmt::Write;

use jiff::{Timestamp, tz::TimeZone};

/// Sessions whose lines are strewn among one another.
const OPEN: usize = 12;
/// A session ends after so many lines of the log, or nearly so: of a hundred that are open, fail2ban forgets the first.
const LATE: usize = 40;
/// So many lines on end are of attackers of one family. Where a process speaks of two clients (it does in some samples, and an
/// accident can make it seem so) we go by the address named last, and fail2ban by that of IPv4.
const OF_ONE_FAMILY: usize = 5_000;

/// Random numbers that are the same for the same seed (xorshift64*).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }

    /// An attacker with an address of IPv6, or of IPv4, a few of whom send most: the rank falls off as Zipf has it.
    fn attacker(&mut self, six: bool) -> String {
        let part = (self.next() % (1 << 20)) as f64 / f64::from(1 << 20);
        let rank = (3000f64.powf(part)) as usize;
        match (six, rank % 2) {
            (true, 0) => format!("2001:db8:{:x}::{:x}", rank % 7, rank),
            (true, _) => format!("2001:DB8:0:{:X}:0:0:0:{:x}", rank % 5, rank),
            (false, _) => format!("203.0.{}.{}", 113 + rank / 250, rank % 250),
        }
    }
}

/// Where and when a log is written.
pub struct Scene {
    /// The machine's zone.
    pub zone: &'static str,
    /// Seconds east of Greenwich of dates without a zone, where that is not the machine's (`logtimezone`).
    pub offset: Option<i32>,
    /// Unix time of its first line.
    pub start: i64,
    /// Seconds up to its last.
    pub span: i64,
    /// Unix times have a fraction.
    pub fraction: bool,
}

impl Scene {
    /// The zone of dates that name none.
    fn written(&self) -> TimeZone {
        match self.offset {
            Some(offset) => TimeZone::fixed(jiff::tz::Offset::from_seconds(offset).expect("small")),
            None => TimeZone::get(self.zone).expect("a zone that is known"),
        }
    }
}

/// How a log writes its times.
#[derive(Clone, Copy)]
pub enum Dates {
    /// `Nov 21 17:00:00`, in local time.
    Syslog,
    /// `2026-11-21T17:00:00.123456+01:00`.
    Iso,
    /// `2026-11-21 17:00:00`, in local time.
    Plain,
    /// `2026/11/21 17:00:00`, in local time.
    Slashes,
    /// `21/Nov/2026:17:00:00 +0000` in another zone than ours.
    Clf,
    /// `[Sat Nov 21 17:00:00.123456 2026]`, in local time.
    Apache,
    /// `1795283678.123`.
    Epoch,
}

impl Dates {
    /// The date of `at`, and the Unix time that it says.
    fn write(self, at: i64, scene: &Scene, random: &mut Random) -> (String, f64) {
        let time = Timestamp::from_second(at).expect("of our days");
        let here = time.to_zoned(scene.written());
        let micros = random.below(1_000_000);
        let text = match self {
            Dates::Syslog => here.strftime("%b %e %H:%M:%S").to_string(),
            Dates::Iso => format!("{}.{micros:06}{}", here.strftime("%FT%T"), here.strftime("%:z")),
            Dates::Plain => here.strftime("%F %T").to_string(),
            Dates::Slashes => here.strftime("%Y/%m/%d %H:%M:%S").to_string(),
            Dates::Clf => {
                let there = time.to_zoned(TimeZone::get("America/St_Johns").expect("a zone"));
                there.strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
            }
            Dates::Apache => format!(
                "[{}.{micros:06} {}]",
                here.strftime("%a %b %d %H:%M:%S"),
                here.strftime("%Y")
            ),
            Dates::Epoch => {
                let millis = if scene.fraction { micros / 1000 } else { 0 };
                return (format!("{at}.{millis:03}"), at as f64 + millis as f64 / 1e3);
            }
        };
        (text, at as f64)
    }
}

/// A service with its jail.
pub struct Service<'t> {
    pub jail: &'t str,
    pub filter: &'t str,
    pub options: &'t str,
    pub dates: Dates,
    /// What it says of an attack, of which `DATE`, `ADDR`, `USER` and `PID` are replaced; several lines of a session are
    /// strewn among those of others.
    pub attacks: &'t [&'t [&'t str]],
    pub noise: &'t [&'t str],
}

/// A log, and the Unix time at which each of its lines was written.
#[derive(Default)]
pub struct Log {
    pub text: String,
    pub times: Vec<f64>,
}

impl Log {
    /// Adds `line`, written at `at`.
    fn push(&mut self, line: &str, at: i64, from: (&Service<'_>, &Scene), random: &mut Random) {
        let (service, scene) = from;
        let (date, time) = service.dates.write(at, scene, random);
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{}", line.replacen("DATE", &date, 1));
        self.times.push(time);
    }

    /// Of `count` lines.
    pub fn of(service: &Service<'_>, count: usize, scene: &Scene, random: &mut Random) -> Log {
        let mut log = Log::default();
        // Lines of sessions that have begun, and when that was.
        let mut open: Vec<(usize, Vec<String>)> = Vec::new();
        let mut pid = 100_000;
        let first = random.below(2);
        for written in 0..count {
            if open.len() < OPEN {
                pid += 1;
                let noise = !service.noise.is_empty() && random.below(3) == 0;
                let lines: &[&str] = match noise {
                    true => &service.noise[random.below(service.noise.len())..][..1],
                    false => service.attacks[random.below(service.attacks.len())],
                };
                let address = random.attacker((first + written / OF_ONE_FAMILY) % 2 == 1);
                let users = ["root", "admin", "bob", "it's", "ünï", "a b", "x from y", "%s"];
                let user = random.one_of(&users);
                let fill = |line: &&str| {
                    let line = line.replace("ADDR", &address).replace("USER", user);
                    line.replace("PID", &pid.to_string())
                };
                open.push((written, lines.iter().rev().map(fill).collect()));
            }
            let nth = match open[0].0 + LATE <= written {
                true => 0,
                false => random.below(open.len()),
            };
            let line = open[nth].1.pop().expect("only sessions with lines stay open");
            if open[nth].1.is_empty() {
                open.remove(nth);
            }
            let line = if random.below(10) == 0 { mutated(&line, random) } else { line };
            let at = scene.start + scene.span * written as i64 / count as i64;
            log.push(&line, at, (service, scene), random);
        }
        log
    }

    /// Adds somebody who is banned by whatever kind of attack the jail knows.
    pub fn end(&mut self, who: &str, service: &Service<'_>, scene: &Scene, random: &mut Random) {
        for nth in 0..12 {
            for line in service.attacks[nth % service.attacks.len()] {
                let line = line.replace("ADDR", who).replace("USER", "last");
                let line = line.replace("PID", &(200_000 + nth).to_string());
                self.push(&line, scene.start + scene.span, (service, scene), random);
            }
        }
    }
}

/// A line with an accident or two; its date stays whole, since what is without one is read by the clock.
fn mutated(line: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = line.chars().collect();
    for _ in 0..=random.below(2) {
        let at = random.below(chars.len());
        let near_date = |at: usize, chars: &[char]| {
            let text: String =
                chars[at.saturating_sub(5)..(at + 5).min(chars.len())].iter().collect();
            text.contains("DATE") || text.contains("ATE") || text.contains("DAT")
        };
        if near_date(at, &chars) {
            continue;
        }
        match random.below(5) {
            0 => drop(chars.remove(at)),
            1 => chars.insert(
                at,
                random
                    .one_of(&["x", " ", "9", ":", "\"", "ß", "[", "\t"])
                    .chars()
                    .next()
                    .expect("one"),
            ),
            2 => {
                chars[at] = random
                    .one_of(&["x", " ", "0", ".", "]", "\u{1F980}", "=", "<"])
                    .chars()
                    .next()
                    .expect("one")
            }
            3 if !chars[at..].iter().collect::<String>().contains("DATE") => chars.truncate(at + 1),
            _ => {
                let again: Vec<char> = chars[at..(at + 7).min(chars.len())].to_vec();
                chars.splice(at..at, again);
            }
        }
    }
    chars.into_iter().collect()
}
