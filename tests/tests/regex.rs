//! Promise: `fail2xdp regex` finds what fail2ban-regex finds, says it in the same shape, and tells how near a miss was.
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use fail2xdp_tests::{binary, fail2ban, fail2ban_config, fail2ban_samples};
use serde_json::{Value, json};

/// Runs fail2ban-regex once for each list of arguments it reads, in one process, and writes what each printed.
const JUDGE: &str = r#"
import contextlib, io, json, sys
from fail2ban.client import fail2banregex
for args in json.load(sys.stdin):
    said, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            fail2banregex.exec_command_line(args)
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        code = 1 # as Python ends what dies
    print(json.dumps([code, said.getvalue()]), flush=True)
"#;

/// Texts in samples that have an address's shape and are none: fail2ban-regex shows them, we miss the line.
const NO_ADDRESSES: [&str; 1] = ["192.030.0.6"];

/// What fail2ban-regex prints for each list of arguments.
fn judged(tests: &[Vec<String>]) -> Vec<(i64, String)> {
    let mut child = fail2ban(JUDGE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts: install the package `python3`");
    let mut stdin = child.stdin.take().expect("it is piped");
    let lists = serde_json::to_vec(tests).expect("strings become JSON");
    let writer = std::thread::spawn(move || stdin.write_all(&lists));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("the judge reads");
    let said = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let read = |line: &str| -> (i64, String) { serde_json::from_str(line).expect("a pair") };
    let judged: Vec<_> = said.lines().map(read).collect();
    assert_eq!(judged.len(), tests.len(), "the judge gave up");
    judged
}

/// What we print, called as fail2ban-regex is called.
fn ours(args: &[String]) -> (i64, String) {
    let link = link();
    let output = Command::new(&link).args(args).stdin(Stdio::null()).output().expect("we start");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1).into(), said)
}

/// A symbolic link by which we are fail2ban-regex.
fn link() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("regex");
    fs::create_dir_all(&folder).expect("a directory");
    let link = folder.join("fail2ban-regex");
    // Tests of this file run at once, and it may lead elsewhere since the last run: each in one step.
    let draft = folder.join(format!("{:?}", std::thread::current().id()));
    let _ = fs::remove_file(&draft);
    std::os::unix::fs::symlink(binary(), &draft)
        .and_then(|()| fs::rename(&draft, &link))
        .expect("a link");
    link
}

/// A filter with the parameters that a sample file wants it tested with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tested {
    file: PathBuf,
    filter: String,
    /// Never empty: what is in brackets is a filter, not a jail.
    options: BTreeMap<String, String>,
}

impl Tested {
    fn args(&self, form: &[&str]) -> Vec<String> {
        let pairs = self.options.iter().map(|(name, value)| format!("{name}=\"{value}\""));
        let filter = format!("{}[{}]", self.filter, pairs.collect::<Vec<_>>().join(", "));
        let config = fail2ban_config().display().to_string();
        let (file, before) = (self.file.display().to_string(), ["-r", "-c", &config]);
        let words = before.iter().chain(form).copied();
        words.map(str::to_owned).chain([file, filter]).collect()
    }
}

/// Every sample file with every set of options that it names.
fn samples() -> Vec<Tested> {
    let mut tested = Vec::new();
    for entry in fs::read_dir(fail2ban_samples()).expect("a directory").flatten() {
        let name = entry.file_name().into_string().expect("sample files have plain names");
        // Those beginning so are for filters that are made for fail2ban's own tests.
        if !entry.path().is_file() || name.starts_with("zzz-") {
            continue;
        }
        let (file, text) = usable(&entry.path());
        let directive = |line: &str, name: &str| -> Option<Value> {
            let rest = line.trim_start_matches('#').trim_start().strip_prefix(name)?;
            line.starts_with('#').then(|| serde_json::from_str(rest).expect("JSON follows"))
        };
        let mut defaults = json!({});
        let mut sets = Vec::new();
        for line in text.lines() {
            if let Some(value) = directive(line, "fileOptions:") {
                defaults = value;
            } else if let Some(value) = directive(line, "filterOptions:") {
                match value {
                    Value::Array(list) => sets.extend(list),
                    one => sets.push(one),
                }
            }
        }
        if sets.is_empty() {
            sets.push(json!({}));
        }
        for set in sets {
            let mut filter = name.clone();
            let mut options = BTreeMap::from([("logtype".to_owned(), "file".to_owned())]);
            for part in [&defaults, &set] {
                for (key, value) in part.as_object().expect("options are pairs") {
                    let value = value.as_str().unwrap_or_default().to_owned();
                    match key.as_str() {
                        "test.filter-name" => filter = value,
                        key if key.starts_with("test.") => {}
                        _ => drop(options.insert(key.clone(), value)),
                    }
                }
            }
            let one = Tested { file: file.clone(), filter, options };
            if fail2ban_config().join(format!("filter.d/{}.conf", one.filter)).is_file()
                && !tested.contains(&one)
            {
                tested.push(one);
            }
        }
    }
    tested.sort();
    tested
}

/// A copy without what is no address, its last line ended: fail2ban-regex reads no line that is not.
fn usable(sample: &Path) -> (PathBuf, String) {
    let bytes = fs::read(sample).expect("it can be read");
    let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|byte| *byte == b'\n');
    let is_good = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line);
        !NO_ADDRESSES.iter().any(|text_of_one| text.contains(text_of_one))
    };
    let mut copy: Vec<u8> = lines.filter(is_good).collect::<Vec<_>>().join(&b'\n');
    copy.push(b'\n');
    let name = sample.file_name().expect("a file has a name");
    let path = link().parent().expect("it lies in a directory").join(name);
    // Several tests write the same at once: each in one step.
    let draft = path.with_extension(format!("{:?}", std::thread::current().id()));
    fs::write(&draft, &copy).and_then(|()| fs::rename(&draft, &path)).expect("room for a copy");
    (path, String::from_utf8_lossy(&copy).into_owned())
}

/// What is the same whenever it is printed: lines without a date have the time of now, and Python writes a time with a
/// zone as a whole number.
fn timeless(said: &str) -> String {
    let now = fail2xdp_tests::now();
    let word = |word: &str| match word.parse::<f64>() {
        Ok(time) if (time - now).abs() < 3600.0 => "now".to_owned(),
        Ok(time) if time > 1e9 => format!("{time}"),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    said.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn compare(
    tested: &[Tested],
    form: &[&str],
    shown: fn(&str) -> String,
    agree: fn(&str, &str) -> bool,
) {
    let args: Vec<Vec<String>> = tested.iter().map(|one| one.args(form)).collect();
    let theirs = judged(&args);
    let mut wrong = Vec::new();
    for ((one, args), (code, said)) in tested.iter().zip(&args).zip(&theirs) {
        let (our_code, our_said) = ours(args);
        let (expect, found) = (shown(said), shown(&our_said));
        if our_code != *code || !agree(&expect, &found) {
            let first =
                expect.lines().zip(found.lines()).find(|(theirs, ours)| !agree(theirs, ours));
            wrong.push(format!(
                "{} {:?} {}: exit {our_code} for {code}, {} lines for {}, first difference {first:?}",
                one.filter,
                one.options,
                one.file.display(),
                found.lines().count(),
                expect.lines().count(),
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), tested.len(), wrong.join("\n"));
}

#[test]
fn failures_of_all_samples_are_those_of_fail2ban_regex() {
    let samples = samples();
    assert!(samples.len() > 100, "only {} samples", samples.len());
    compare(&samples, &["-o", "<ip> <time> <F-USER>"], timeless, |theirs, ours| theirs == ours);
}

#[test]
fn counts_of_all_samples_are_those_of_fail2ban_regex() {
    let counts = |said: &str| said.lines().filter(|line| line.starts_with("Lines:")).collect();
    compare(&samples(), &["-l", "critical"], counts, |theirs, ours| theirs == ours);
}

/// A few bytes of a line changed, no line end among them.
fn mutated(line: &str, random: &mut u64) -> String {
    let mut below = |end: usize| {
        // xorshift64*
        *random ^= *random >> 12;
        *random ^= *random << 25;
        *random ^= *random >> 27;
        (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    };
    let mut chars: Vec<char> = line.chars().collect();
    for _ in 0..=below(3) {
        if chars.is_empty() {
            break;
        }
        let at = below(chars.len());
        let other = ['x', ' ', '7', ':', '"', 'ß', '[', ']', '.', '=', '-', '<', '\t'][below(13)];
        match below(5) {
            0 => drop(chars.remove(at)),
            1 => chars.insert(at, other),
            2 => chars[at] = other,
            3 => chars.truncate(at + 1),
            _ => {
                let again = chars[at..(at + 9).min(chars.len())].to_vec();
                chars.splice(at..at, again);
            }
        }
    }
    chars.into_iter().collect()
}

/// A failure of what has an address's shape and is none, or of nobody.
fn is_no_address(line: &str) -> bool {
    let who = line.split(' ').next().unwrap_or_default();
    let shape = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':');
    let is_shaped = who.contains(':') || who.matches('.').count() == 3;
    who.chars().all(shape) && is_shaped && who.parse::<std::net::IpAddr>().is_err()
}

#[test]
fn failures_of_mutated_samples_are_those_of_fail2ban_regex() {
    let full = std::env::var_os("FAIL2XDP_FULL").is_some();
    for seed in 1..=if full { 10 } else { 1 } {
        let mut samples = samples();
        for (nth, one) in samples.iter_mut().enumerate() {
            let bytes = fs::read(&one.file).expect("it can be read");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let mut random = seed * 1000 + nth as u64 + 1;
            let told = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            let lines: Vec<String> = told.map(|line| mutated(line, &mut random)).collect();
            let name = format!("mutated-{seed}-{nth}");
            one.file = link().parent().expect("it lies in a directory").join(name);
            fs::write(&one.file, lines.join("\n") + "\n").expect("room for a copy");
        }
        compare(&samples, &["-o", "<ip> <time> <F-USER>"], timeless, agree);
    }
}

/// The same failures, but for two differences that are meant: of what has an address's shape and is none there is none
/// here; and where a session's address is followed by a name, we go by the name and fail2ban by the address.
fn agree(theirs: &str, ours: &str) -> bool {
    let parts = |line: &str| match line.split_once(' ') {
        Some((who, rest)) => (who.to_owned(), rest.to_owned()),
        None => (line.to_owned(), String::new()),
    };
    let address = |who: &str| who.parse::<std::net::IpAddr>().ok();
    let mut ours = ours.lines().peekable();
    for theirs in theirs.lines() {
        let (their_who, their_rest) = parts(theirs);
        let same = ours.next_if(|ours| {
            let (our_who, our_rest) = parts(ours);
            let one = address(&our_who);
            *ours == theirs
                || our_rest == their_rest && (one.is_none() || one == address(&their_who))
        });
        if same.is_none() && !is_no_address(theirs) {
            return false;
        }
    }
    ours.next().is_none()
}

fn path(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name).display().to_string()
}

/// A report without what differs from run to run, and without what only we tell.
fn report(said: &str) -> String {
    let mut lines = Vec::new();
    let mut nearest = false;
    for line in said.lines().filter(|line| !line.starts_with("[processed in")) {
        nearest |= line == "|- Nearest miss:";
        if !nearest {
            lines.push(line);
        }
        nearest &= line != "`-";
    }
    // The fourteenth date template takes more forms than Debian's fail2ban knows.
    let theirs = "(?:T|  ?)Ex24hourExMinuteExSecond";
    let text = lines.join("\n").replace("(?:-|T|  ?)Ex24hour:?ExMinute:?ExSecond", theirs);
    // We say so of the second regex that matches a line, it of the third.
    text.replace(" (multiple regex matched)", "")
}

/// The same arguments to both programs, the same from both: exit status and what `shown` makes of the report.
#[track_caller]
fn same(tests: &[Vec<&str>], shown: fn(&str) -> String) {
    let config = fail2ban_config().display().to_string();
    let with_config = |args: &Vec<&str>| -> Vec<String> {
        ["-c", &config].iter().chain(args).map(|word| (*word).to_owned()).collect()
    };
    let tests: Vec<Vec<String>> = tests.iter().map(with_config).collect();
    for (args, (code, theirs)) in tests.iter().zip(judged(&tests)) {
        let (our_code, said) = ours(args);
        assert_eq!((our_code, shown(&said)), (code, shown(&theirs)), "{args:?}");
    }
}

#[test]
fn the_report_has_fail2bans_shape() {
    let log = path("regex/sshd.log");
    let filter = "sshd[logtype=file]";
    let reports = [
        vec!["-r", &log, "bad <HOST>"],
        vec!["-r", &log, "Failed \\S+ for <F-USER>\\S+</F-USER> from <HOST>", "root"],
        vec!["-r", "-v", &log, "bad <HOST>", "two"],
        vec!["-r", "--print-all-matched", &log, "Failed password for .* from <HOST>"],
        vec!["-r", "--print-no-missed", &log, "Failed password for .* from <HOST>"],
        vec!["-L", "3", &log, "^.* begins$<SKIPLINES>^.* from <ADDR>"],
        vec!["-d", "%Y-%m-%d", "x 2026-11-20 10:00:00 bad 192.0.2.1", "bad <F-ID>\\S+</F-ID>"],
        vec!["one 192.0.2.1\ntwo 192.0.2.2", "one <HOST>"],
        vec!["a line that is so long that it has to be cut in the head 192.0.2.1", "head <HOST>"],
    ];
    same(&reports, |said| {
        assert!(said.contains("\nLines: "), "{said}");
        report(said)
    });
    // In the pattern's text an address is written otherwise, and in the head are options we had to name.
    same(&[vec!["-r", &log, filter]], |said| {
        let told =
            |line: &&str| !line.starts_with("|  ^(?P<mlfid>") && !line.contains("filter options");
        report(said).lines().filter(told).collect::<Vec<_>>().join("\n")
    });
    let errors = [vec!["bad 192.0.2.1", "(bad"], vec!["x", "bad"], vec!["x", "bad <HOST>", "(bad"]];
    same(&errors, |said| said.lines().any(|line| line.starts_with("ERROR: ")).to_string());
    same(&[vec!["only one word"]], |_| String::new());
    let codecs = [
        vec!["-e", "nobody-s", &log, "bad <HOST>"],
        vec!["-e", "nobody-s", "2026-11-20 10:00:00 bad 192.0.2.1", "bad <HOST>"],
    ];
    same(&codecs, |_| String::new());
    same(&[vec!["-V"]], |said| said.lines().count().to_string());
}

#[test]
fn every_option_is_fail2bans() {
    let folder = tempfile::tempdir().expect("a directory");
    let long = folder.path().join("long.log");
    let lines = (0..30).map(|nth| {
        let what =
            ["bad 192.0.2.1", "worse 192.0.2.2 bad 192.0.2.2", "good", "spare bad 192.0.2.3"];
        format!("2026-11-20 10:00:{nth:02} host {}\n", what[nth % 4])
    });
    fs::write(&long, lines.collect::<String>()).expect("a file");
    let (long, latin) = (long.display().to_string(), folder.path().join("latin.log"));
    fs::write(&latin, b"2026-11-20 10:00:00 M\xfcller bad 192.0.2.1\n").expect("a file");
    let latin = latin.display().to_string();
    let filter =
        "[Definition]\nfailregex = bad <HOST>\n            worse <HOST>\nignoreregex = spare\n";
    let own = folder.path().join("own.conf");
    fs::write(&own, filter).expect("a file");
    let own = own.display().to_string();
    let reports = [
        vec!["--print-all-missed", &long, &own],
        vec!["--print-all-ignored", "--print-no-missed", &long, &own],
        vec!["--print-no-ignored", "--print-all-matched", &long, &own],
        vec!["-L", "5", &long, "^.*nobody <HOST>$"],
        vec!["--no-check-all", "-v", &long, &own],
        vec!["-v", &long, &own],
        vec!["--verbosity", "1", &long, &own],
        vec!["--usedns", "no", "bad example.org\nbad 192.0.2.1", "bad <HOST>"],
        vec!["--usedns", "raw", "-v", "2026-11-20 10:00:00 bad example.org", "bad <HOST>"],
        vec!["-v", "--timezone", "UTC+0300", "2026-11-20 10:00:00 bad 192.0.2.1", "bad <HOST>"],
        vec!["-v", "--TZ", "EST", "Nov 20 10:00:00 bad 192.0.2.1", "bad <HOST>"],
        vec!["-e", "latin-1", "--print-all-matched", &latin, "M\u{fc}ller bad <HOST>"],
        vec!["--log-level", "critical", "-t", "--full-traceback", &long, "bad <HOST>"],
        vec!["-l", "critical", "--print-no-missed", &long, "bad <HOST>", "spare"],
        vec!["--datepattern", "^%Y-%m-%d %H:%M:%S", &long, "bad <HOST>"],
        vec!["--maxlines", "2", "--raw", &long, "^.*worse <ADDR> .*$<SKIPLINES>^.*good$"],
        vec!["-m", "_SYSTEMD_UNIT=x.service", &long, "bad <HOST>"],
    ];
    same(&reports, report);
    same(&[vec!["--verbose-date", &long, &own]], |said| {
        // Patterns of dates are written otherwise.
        let told = |line: &&str| !line.trim_start_matches(['|', ' ']).starts_with('#');
        report(said).lines().filter(told).collect::<Vec<_>>().join("\n")
    });
    same(&[vec!["--nope", &long, "bad <HOST>"]], |_| String::new());
    same(&[vec!["--help"], vec!["--version"]], |_| String::new());
    // fail2ban-regex 1.0.2 does not know it yet.
    let (code, said) = ours(&["-i", "-o", "id", &long, &own].map(str::to_owned));
    assert_eq!((code, said.lines().count()), (0, 7), "{said}");
}

#[test]
fn every_form_of_output_is_fail2bans() {
    let log = path("regex/sshd.log");
    let literal = "Failed \\S+ for <F-USER>\\S+</F-USER> from <HOST> port <F-PORT/>";
    let forms = [
        "id",
        "fid",
        "ip",
        "msg",
        "user",
        "host",
        "ip4",
        "ip6",
        "dns",
        "fport",
        "matches",
        "<ip> <fid> <family> <ip-rev>",
        "<F-USER> <F-NOPE> <nope> < <F-ID>",
        "<matches><br><sp>.",
    ];
    let filters = ["sshd[logtype=file]", literal];
    let mut tests: Vec<Vec<&str>> = Vec::new();
    for filter in filters {
        tests.extend(forms.iter().map(|form| vec!["-r", "-o", form, &log, filter]));
    }
    // Of a session we list every group, fail2ban-regex only those that some line of it filled.
    tests.push(vec!["-r", "-o", "row", &log, literal]);
    same(&tests, str::to_owned);
}

#[test]
fn a_miss_says_how_near_it_was() {
    let line = "Nov 20 10:00:00 host sshd[4]: Failed passwrd fr root from 192.0.2.1";
    let run = |words: &[&str]| {
        let output = Command::new(binary()).args(words).output().expect("we start");
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let config = fail2ban_config().display().to_string();
    let said = run(&["--config", &config, "regex", line, "sshd"]);
    for part in [
        "Use             jail : sshd",
        "4) matched   `Failed passwrd f`",
        "and found     `r root from 192.0.2.1`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said =
        run(&["--json", "regex", "bad thing of 192.0.2.1", "^bad (?:wing|thing) from <HOST>$"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        report["lines"],
        json!({"tested": 1, "matched": 0, "ignored": 0, "missed": 1, "not_an_address": 0})
    );
    let miss = &report["missed"][0]["nearest"][0];
    assert_eq!(miss["matched"], "bad thing ");
    assert_eq!(miss["wanted"], "from <HOST>$");
    assert_eq!(miss["found"], "of 192.0.2.1");
}

#[test]
fn standard_input_is_a_log() {
    let mut child = Command::new(binary())
        .args(["regex", "-o", "id", "-", "bad <HOST>"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("we start");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(b"bad 192.0.2.1\n\n# bad 192.0.2.2\nbad 2001:DB8::1")
        .expect("we read");
    let output = child.wait_with_output().expect("we end");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "192.0.2.1\n2001:db8::1\n");
}

#[test]
fn a_huge_log_takes_seconds() {
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join("huge.log");
    let line = "Nov 20 10:00:00 host sshd[4]: Server listening on 0.0.0.0 port 22.\n";
    fs::write(&log, line.repeat(200_000)).expect("room for a log");
    let start = std::time::Instant::now();
    let output = Command::new(binary())
        .args(["regex", &log.display().to_string(), "sshd"])
        .output()
        .expect("we start");
    let took = start.elapsed();
    let _ = fs::remove_file(&log);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Lines: 200000 lines"), "{said}");
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}
