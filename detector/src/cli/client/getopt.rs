//! Options of fail2ban's programs, read as getopt(3) reads them: the first word that is none ends them, long names may
//! be cut short.

/// An option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    /// `-c`, `--conf`
    Config(String),
    /// `-s`, `--socket`
    Socket(String),
    /// `--json`, which is ours
    Json,
    /// `-f`; `-b` is the opposite
    Foreground(bool),
    /// `-i`
    Interactive,
    /// `-t`, `--test`
    Test,
    /// `-d`, `--dp`, `--dump-pretty`
    Dump {
        /// Over several lines.
        pretty: bool,
    },
    /// `--str2sec`
    Seconds(String),
    /// `--loglevel`
    LogLevel(String),
    /// `--logtarget`
    LogTarget(String),
    /// `--syslogsocket`
    SyslogSocket(String),
    /// `-h`, `--help`
    Help,
    /// `-V`, `--version`
    Version {
        /// The number alone.
        short: bool,
    },
    /// Taken and not needed here.
    WithoutEffect,
}

/// The words make no command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown;

/// Long names, and whether a value follows.
const LONG: [(&str, bool); 16] = [
    ("loglevel", true),
    ("logtarget", true),
    ("syslogsocket", true),
    ("test", false),
    ("async", false),
    ("conf", true),
    ("pidfile", true),
    ("pname", true),
    ("socket", true),
    ("timeout", true),
    ("str2sec", true),
    ("help", false),
    ("version", false),
    ("dp", false),
    ("dump-pretty", false),
    ("json", false),
];

/// The options, and the words behind them.
pub(super) fn read(words: &[String]) -> Result<(Vec<Opt>, Vec<String>), Unknown> {
    let mut options = Vec::new();
    let mut rest = words;
    while let [word, others @ ..] = rest {
        if word == "--" {
            rest = others;
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            rest = others;
            let (name, mut value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let (name, takes) = full(name)?;
            if takes && value.is_none() {
                value = Some(next(&mut rest)?);
            }
            if !takes && value.is_some() {
                return Err(Unknown);
            }
            options.push(of_long(name, value.unwrap_or_default()));
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            rest = others;
            let mut chars = letters.chars();
            while let Some(letter) = chars.next() {
                if matches!(letter, 'c' | 's' | 'p') {
                    let value = match chars.as_str() {
                        "" => next(&mut rest)?,
                        value => value.to_owned(),
                    };
                    options.push(match letter {
                        'c' => Opt::Config(value),
                        's' => Opt::Socket(value),
                        _ => Opt::WithoutEffect,
                    });
                    break;
                }
                options.push(of_letter(letter)?);
            }
        } else {
            break;
        }
    }
    Ok((options, rest.to_vec()))
}

fn next(rest: &mut &[String]) -> Result<String, Unknown> {
    let [value, others @ ..] = *rest else { return Err(Unknown) };
    *rest = others;
    Ok(value.clone())
}

/// The one name that begins so.
fn full(name: &str) -> Result<(&'static str, bool), Unknown> {
    if let Some(whole) = LONG.iter().find(|(long, _)| *long == name) {
        return Ok(*whole);
    }
    let mut beginning = LONG.iter().filter(|(long, _)| long.starts_with(name));
    match (beginning.next(), beginning.next()) {
        (Some(one), None) => Ok(*one),
        _ => Err(Unknown),
    }
}

fn of_long(name: &str, value: String) -> Opt {
    match name {
        "conf" => Opt::Config(value),
        "socket" => Opt::Socket(value),
        "test" => Opt::Test,
        "str2sec" => Opt::Seconds(value),
        "loglevel" => Opt::LogLevel(value),
        "logtarget" => Opt::LogTarget(value),
        "syslogsocket" => Opt::SyslogSocket(value),
        "help" => Opt::Help,
        "version" => Opt::Version { short: false },
        "dp" | "dump-pretty" => Opt::Dump { pretty: true },
        "json" => Opt::Json,
        _ => Opt::WithoutEffect,
    }
}

fn of_letter(letter: char) -> Result<Opt, Unknown> {
    Ok(match letter {
        'h' => Opt::Help,
        'V' => Opt::Version { short: true },
        'd' => Opt::Dump { pretty: false },
        't' => Opt::Test,
        'i' => Opt::Interactive,
        'f' => Opt::Foreground(true),
        'b' => Opt::Foreground(false),
        'v' | 'q' | 'x' => Opt::WithoutEffect,
        _ => return Err(Unknown),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, options: &[Opt], rest: &str) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (read, words) = read(&words).expect(line);
        assert_eq!((read.as_slice(), words.join(" ").as_str()), (options, rest));
    }

    #[test]
    fn options_end_at_the_first_word_that_is_none() {
        let config = || Opt::Config("/etc/x".into());
        check("-c /etc/x status", &[config()], "status");
        check(
            "-c/etc/x -vq status -v",
            &[config(), Opt::WithoutEffect, Opt::WithoutEffect],
            "status -v",
        );
        check("--conf=/etc/x -- -d", &[config()], "-d");
        check(
            "--so /s -xf start",
            &[Opt::Socket("/s".into()), Opt::WithoutEffect, Opt::Foreground(true)],
            "start",
        );
        check("get j banip --with-time", &[], "get j banip --with-time");
        check("--version", &[Opt::Version { short: false }], "");
        check(
            "--logt STDERR --logl=DEBUG --sys auto -f",
            &[
                Opt::LogTarget("STDERR".into()),
                Opt::LogLevel("DEBUG".into()),
                Opt::SyslogSocket("auto".into()),
                Opt::Foreground(true),
            ],
            "",
        );
        check("-tV", &[Opt::Test, Opt::Version { short: true }], "");
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for line in ["-z", "--nope", "-c", "--log x", "--test=yes", "--socket"] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(read(&words), Err(Unknown), "{line}");
        }
    }
}
