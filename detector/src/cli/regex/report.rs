//! The report, in fail2ban-regex's shape and as JSON.
use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use super::{
    RegexArgs, python,
    tally::{Kept, Missed, RuleHits, Shown, Tally},
};
use crate::{
    clock,
    config::{JailSettings, Located},
    engine::{NearMiss, NearMisses, Timestamp, date_in_words, expand_tags},
};

/// Missed lines whose nearest miss is shown when they are too many to be printed.
const SOME: usize = 5;
/// Characters of a piece of pattern or line that are shown.
const PIECE: usize = 90;

pub(super) struct Report<'r> {
    pub jail: &'r JailSettings,
    pub args: &'r RegexArgs,
    pub tally: &'r mut Tally,
    pub took: Duration,
}

impl Report<'_> {
    fn verbose(&self) -> bool {
        self.args.verbose > 0 || self.args.verbosity.is_some_and(|level| level > 0)
    }

    /// As fail2ban-regex prints it; writing to a string does not fail.
    pub fn text(mut self) -> String {
        let mut out = String::from("\nResults\n=======\n");
        let filter = &self.jail.filter;
        if let Some(prefix) = &filter.prefregex {
            let _ = writeln!(out, "\nPrefregex: {} total", self.tally.prefix);
            let _ = writeln!(out, "|  {}", expand_tags(&prefix.value, filter.use_dns));
            for groups in self.tally.prefix_groups.iter().filter(|_| self.verbose()) {
                let pairs: Vec<_> =
                    groups.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
                let _ = writeln!(out, "|      {}", python::dict(&pairs));
            }
            out.push_str("`-\n");
        }
        self.regexes(&mut out, "Failregex", &filter.failregex, &self.tally.rules);
        let ignores = self.tally.ignores.iter();
        let ignores: Vec<_> =
            ignores.map(|count| RuleHits { count: *count, shown: Vec::new() }).collect();
        self.regexes(&mut out, "Ignoreregex", &filter.ignoreregex, &ignores);
        self.dates(&mut out);
        let tally = &self.tally;
        let _ = writeln!(
            out,
            "\nLines: {} lines, {} ignored, {} matched, {} missed\n[processed in {:.2} sec]\n",
            tally.lines(),
            tally.ignored.count,
            tally.matched.count,
            tally.missed.count,
            self.took.as_secs_f64()
        );
        if tally.not_an_address > 0 {
            let count = tally.not_an_address;
            let _ = writeln!(out, "{count} match(es) of what has an address's shape and is none\n");
        }
        for fault in tally.matcher.patterns().filter_map(|pattern| pattern.fault()) {
            let _ = writeln!(out, "{fault}\n");
        }
        let args = self.args;
        if args.print_all_matched {
            lines(&mut out, "Matched", "", &tally.matched, |line| line);
        }
        if !args.print_no_ignored {
            lines(&mut out, "Ignored", "--print-all-ignored", &tally.ignored, |line| line);
        }
        if !args.print_no_missed {
            lines(&mut out, "Missed", "--print-all-missed", &tally.missed, |missed| &missed.line);
            self.nearest(&mut out);
        }
        out
    }

    fn regexes(
        &self,
        out: &mut String,
        title: &str,
        regexes: &[Located<String>],
        hits: &[RuleHits],
    ) {
        let total: u64 = hits.iter().map(|hits| hits.count).sum();
        let _ = writeln!(out, "\n{title}: {total} total");
        let mut told = false;
        for (nth, (regex, hits)) in regexes.iter().zip(hits).enumerate() {
            if hits.count == 0 && !self.verbose() {
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                out.push_str("|-  #) [# of hits] regular expression\n");
            }
            let _ = writeln!(out, "|{:>4}) [{}] {}", nth + 1, hits.count, regex.value);
            for shown in hits.shown.iter().filter(|_| self.verbose()) {
                let _ = writeln!(out, "|      {}", in_words(shown));
            }
        }
        if told {
            out.push_str("`-\n");
        }
    }

    fn dates(&self, out: &mut String) {
        out.push_str("\nDate template hits:\n");
        let mut told = false;
        for (name, count) in self.tally.matcher.date_templates() {
            if count == 0 && !self.verbose() {
                continue;
            }
            if !std::mem::replace(&mut told, true) {
                out.push_str("|- [# of hits] date format\n");
            }
            let _ = writeln!(out, "|  [{count}] {}", date_in_words(&name));
            if self.args.verbose_date {
                let _ = writeln!(out, "|      # pattern: {name}");
            }
        }
        if told {
            out.push_str("`-\n");
        }
    }

    /// What fail2ban-regex cannot tell: how far the patterns got in the lines they missed.
    fn nearest(&mut self, out: &mut String) {
        let missed = &self.tally.missed;
        let too_many = missed.count > missed.first.len() as u64 || is_too_many(missed);
        let shown = if too_many { SOME } else { missed.first.len() };
        if missed.first.is_empty() {
            return;
        }
        out.push_str("|- Nearest miss:\n");
        let most = if self.verbose() { usize::MAX } else { 1 };
        let mut misses = NearMisses::new(&self.jail.filter);
        for missed in missed.first.iter().take(shown) {
            let _ = writeln!(out, "|  {}", missed.line);
            let all = near(missed, &mut misses);
            let nowhere = all.iter().filter(|(miss, _)| miss.weight == 0).count();
            let some = all.len() - nowhere;
            for (miss, subject) in all.into_iter().take(some.min(most)) {
                let (name, pattern) = self.pattern(&miss);
                let _ =
                    writeln!(out, "|    {name} matched   {}", piece(&subject[miss.found.clone()]));
                let _ =
                    writeln!(out, "|         then wanted   {}", piece(&pattern[miss.reached..]));
                let _ =
                    writeln!(out, "|         and found     {}", piece(&subject[miss.found.end..]));
            }
            if some == 0 || most > 1 && nowhere > 0 {
                let whose = if some == 0 { "no regex" } else { "no other regex" };
                let _ = writeln!(out, "|    {whose} matched even its first characters");
            }
        }
        out.push_str("`-\n");
    }

    fn pattern(&self, miss: &NearMiss) -> (String, &str) {
        let filter = &self.jail.filter;
        match (miss.rule, &filter.prefregex) {
            (Some(nth), _) => (format!("{:>3})", nth + 1), filter.failregex[nth].value.as_str()),
            (None, Some(prefix)) => ("prefregex".to_owned(), prefix.value.as_str()),
            (None, None) => (String::new(), ""),
        }
    }

    /// The same for programs.
    pub fn json(self) -> Value {
        let filter = &self.jail.filter;
        let place = |regex: &Located<String>| regex.place.as_ref().map(ToString::to_string);
        let found = |shown: &Shown| {
            json!({
                "id": shown.who,
                "time": shown.at.map(seconds),
                "multiple": shown.multiple,
            })
        };
        let rules = filter.failregex.iter().zip(&self.tally.rules).enumerate();
        let rules: Vec<Value> = rules
            .map(|(nth, (regex, hits))| {
                json!({
                    "number": nth + 1,
                    "regex": regex.value,
                    "place": place(regex),
                    "hits": hits.count,
                    "found": hits.shown.iter().map(found).collect::<Vec<_>>(),
                })
            })
            .collect();
        let ignores = filter.ignoreregex.iter().zip(&self.tally.ignores).enumerate();
        let ignores: Vec<Value> = ignores
            .map(|(nth, (regex, hits))| {
                json!({
                    "number": nth + 1, "regex": regex.value, "place": place(regex), "hits": hits,
                })
            })
            .collect();
        let templates = self.tally.matcher.date_templates();
        let dates: Vec<Value> = templates
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| {
                json!({ "format": date_in_words(name), "pattern": name, "hits": count })
            })
            .collect();
        let mut misses = NearMisses::new(filter);
        let missed: Vec<Value> = self
            .tally
            .missed
            .first
            .iter()
            .map(|missed| {
                let nearest = near(missed, &mut misses).into_iter().map(|(miss, subject)| {
                    let (_, pattern) = self.pattern(&miss);
                    json!({
                        "failregex": miss.rule.map(|nth| nth + 1),
                        "regex": pattern,
                        "reached": &pattern[..miss.reached],
                        "wanted": &pattern[miss.reached..],
                        "matched": &subject[miss.found.clone()],
                        "found": subject[miss.found.end..].trim_end_matches('\n'),
                    })
                });
                json!({ "line": missed.line, "nearest": nearest.collect::<Vec<_>>() })
            })
            .collect();
        let tally = &self.tally;
        let stopped = tally.matcher.patterns().filter(|pattern| pattern.gave_up() > 0);
        let gave_up = stopped.map(|pattern| {
            json!({
                "pattern": pattern.name.to_string(),
                "place": pattern.place.as_ref().map(ToString::to_string),
                "lines": pattern.gave_up(),
            })
        });
        json!({
            "lines": {
                "tested": tally.lines(),
                "matched": tally.matched.count,
                "ignored": tally.ignored.count,
                "missed": tally.missed.count,
                "not_an_address": tally.not_an_address,
            },
            "prefregex": filter.prefregex.as_ref().map(|regex| {
                json!({ "regex": regex.value, "place": place(regex), "hits": tally.prefix })
            }),
            "failregex": rules,
            "ignoreregex": ignores,
            "gave_up": gave_up.collect::<Vec<_>>(),
            "dates": dates,
            "matched": tally.matched.first,
            "ignored": tally.ignored.first,
            "missed": missed,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// How far patterns got in a missed line, each with the text it saw: `prefregex` alone where that is
/// what does not match.
fn near<'m>(missed: &'m Missed, misses: &mut NearMisses) -> Vec<(NearMiss, &'m str)> {
    let seen = &missed.seen;
    if seen.prefix_matched == Some(false) {
        return misses.prefix(&seen.text).into_iter().map(|miss| (miss, &*seen.text)).collect();
    }
    let subject = seen.content.as_deref().unwrap_or(&seen.text);
    misses.rules(subject).into_iter().map(|miss| (miss, subject)).collect()
}

fn piece(text: &str) -> String {
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return "(nothing)".to_owned();
    }
    let text = text.replace('\n', "\\n");
    match text.char_indices().nth(PIECE) {
        Some((end, _)) => format!("`{}`…", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn is_too_many<T>(kept: &Kept<T>) -> bool {
    kept.limit != usize::MAX && kept.count >= kept.limit as u64
}

fn lines<T>(out: &mut String, title: &str, all: &str, kept: &Kept<T>, line: fn(&T) -> &String) {
    if kept.count == 0 {
        return;
    }
    if is_too_many(kept) {
        let count = kept.count;
        let _ = writeln!(
            out,
            "{title} line(s): too many to print.  Use {all} to print all {count} lines"
        );
        return;
    }
    let _ = writeln!(out, "|- {title} line(s):");
    for kept in &kept.first {
        let _ = writeln!(out, "|  {}", line(kept));
    }
    out.push_str("`-\n");
}

/// A hit, with its time as C's asctime has it.
fn in_words(shown: &Shown) -> String {
    let at = shown.at.unwrap_or_else(clock::now);
    let time = jiff::Timestamp::from_microsecond(at.micros()).unwrap_or_default();
    let time = time.to_zoned(jiff::tz::TimeZone::system()).strftime("%a %b %d %H:%M:%S %Y");
    let who = shown.who.as_deref().unwrap_or("None");
    let multiple = if shown.multiple { " (multiple regex matched)" } else { "" };
    format!("{who}  {time}{multiple}")
}

/// Whole seconds since the epoch, with a fraction where there is one.
fn seconds(at: Timestamp) -> Value {
    match at.micros() % 1_000_000 {
        0 => json!(at.seconds()),
        _ => json!(at.micros() as f64 / 1e6),
    }
}
