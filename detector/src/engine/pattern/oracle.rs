//! Python's own `re` as the judge: generated patterns and texts, searched by both.
use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::*;

/// Answers a line for each line of `{"p": pattern, "m": MULTILINE, "t": [texts]}`: `null` where the pattern is none,
/// else for each text `null` or the spans of all groups, in characters.
const PYTHON: &str = r#"
import json, re, sys
for line in sys.stdin.read().splitlines():
    q = json.loads(line)
    try:
        r = re.compile(q["p"], re.M if q["m"] else 0)
    except Exception:
        print("null")
        continue
    found = [r.search(t) for t in q["t"]]
    print(json.dumps([f and [f.span(i) for i in range(r.groups + 1)] for f in found]))
"#;

const PATTERNS: usize = 12_500;
const TEXTS: usize = 10;

struct Generator {
    random: StdRng,
    groups: u32,
    names: u32,
    out: String,
}

impl Generator {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.random_range(0..from.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pattern(&mut self) -> String {
        self.out.clear();
        (self.groups, self.names) = (0, 0);
        if self.chance(8) {
            let flag = self.pick(&["(?i)", "(?s)", "(?a)", "(?m)", "(?is)", "(?x)"]);
            self.out.push_str(flag);
        }
        if self.chance(35) {
            self.out.push('^');
        }
        self.choice(3);
        if self.chance(30) {
            let end = self.pick(&["$", "$", "\\Z", "\\s*$"]);
            self.out.push_str(end);
        }
        self.out.clone()
    }

    fn choice(&mut self, depth: u32) {
        let branches = if self.chance(25) { 2 } else { 1 };
        for nth in 0..branches {
            if nth > 0 {
                self.out.push('|');
            }
            for _ in 0..self.random.random_range(1..=3) {
                self.repeated(depth);
            }
        }
    }

    fn repeated(&mut self, depth: u32) {
        self.atom(depth);
        if self.chance(35) {
            let repetition = self
                .pick(&["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "+?", "??", "{0,2}?"]);
            self.out.push_str(repetition);
        }
    }

    fn atom(&mut self, depth: u32) {
        let kind = self.random.random_range(0..100);
        match kind {
            0..40 => {
                let literal = self.pick(&[
                    "a", "b", "c", "A", "1", " ", "\u{e9}", "-", ":", "\\.", "\\[", "\\<", "\\/",
                    "\\x41", "\\-", "ab", "{", "}", "]", "\\ ",
                ]);
                self.out.push_str(literal);
            }
            40..58 => {
                let class = self.pick(&[
                    ".",
                    "\\d",
                    "\\w",
                    "\\s",
                    "\\S",
                    "\\W",
                    "\\D",
                    "[ab]",
                    "[^a]",
                    "[^\\s:]",
                    "[a-c1]",
                    "[\\d.]",
                    "[^[]",
                    "[]a]",
                    "[\\w-]",
                    "[^\\W\\d]",
                    "[ \\-a]",
                    "[A-\u{e9}]",
                    "[a\\]]",
                    "[&&a]",
                    "[a~~b]",
                    "[^\\n]",
                ]);
                self.out.push_str(class);
            }
            58..64 => {
                let edge = self.pick(&["\\b", "\\B", "^", "$", "\\A", "\\Z"]);
                self.out.push_str(edge);
            }
            64..94 if depth > 0 => {
                let open = self.pick(&[
                    "(", "(", "(?:", "(?:", "(?P<", "(?=", "(?!", "(?<=a", "(?i:", "(?<!b", "(?s:",
                    "(?>", "(?-i:", "((?:",
                ]);
                self.out.push_str(open);
                if open == "(?P<" {
                    self.names += 1;
                    write!(self.out, "n{}>", self.names).expect("a String takes all text");
                }
                if matches!(open, "(" | "(?P<" | "((?:") {
                    self.groups += 1;
                }
                if !open.starts_with("(?<") {
                    self.choice(depth - 1);
                }
                self.out.push(')');
                if open == "((?:" {
                    self.out.push(')');
                }
            }
            94..97 if self.groups > 0 => {
                let group = self.random.random_range(1..=self.groups);
                write!(self.out, "(?:\\{group})").expect("a String takes all text");
            }
            97..99 if self.groups > 0 => {
                let group = self.random.random_range(1..=self.groups);
                write!(self.out, "(?({group})a|b)").expect("a String takes all text");
            }
            99 if self.names > 0 => {
                let name = self.random.random_range(1..=self.names);
                write!(self.out, "(?P=n{name})").expect("a String takes all text");
            }
            _ => self.out.push('a'),
        }
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.random.random_range(0..12) {
            let part = self.pick(&[
                "a", "b", "c", "A", "B", "1", "2", " ", "-", ":", ".", "[", "]", "\u{e9}",
                "\u{c9}", "ab", "aa", "<", "/", "{", "&", "~", "\t", "\u{a0}", "\u{661}", "_",
                "\u{1c}", "x",
            ]);
            text.push_str(part);
        }
        if self.chance(10) {
            let at = text.char_indices().map(|(at, _)| at).nth(text.chars().count() / 2);
            text.insert(at.unwrap_or(0), '\n');
        }
        if self.chance(60) {
            text.push('\n');
        }
        text
    }
}

fn ask_python(questions: Vec<Value>) -> Vec<Value> {
    let mut python = Command::new("python3")
        .args(["-W", "ignore", "-X", "utf8", "-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts; install it, or run `cargo xtask test`");
    // It reads all before it answers, so that neither waits for the other.
    let mut stdin = python.stdin.take().expect("a pipe");
    for question in questions {
        writeln!(stdin, "{question}").expect("python reads");
    }
    drop(stdin);
    let stdout = BufReader::new(python.stdout.take().expect("a pipe"));
    let answers = stdout
        .lines()
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
        .collect();
    assert!(python.wait().expect("python ends").success());
    answers
}

/// The groups in characters, as Python counts: -1 twice for one that took no part.
fn spans(text: &str, groups: &Groups, count: u32) -> Value {
    let chars = |at: usize| text[..at].chars().count();
    (0..=count)
        .map(|number| match groups.get(number) {
            None => json!([-1, -1]),
            Some(found) => json!([chars(found.start), chars(found.end)]),
        })
        .collect::<Vec<_>>()
        .into()
}

#[test]
fn generated_patterns_find_what_python_finds() {
    let random = StdRng::seed_from_u64(5);
    let mut generator = Generator { random, groups: 0, names: 0, out: String::new() };
    let mut cases = Vec::new();
    for _ in 0..PATTERNS {
        let (pattern, lines) = (generator.pattern(), generator.chance(10));
        let texts: Vec<String> = (0..TEXTS).map(|_| generator.text()).collect();
        cases.push((pattern, lines, texts));
    }
    let questions = cases.iter().map(|(p, m, t)| json!({ "p": p, "m": m, "t": t })).collect();
    let answers = ask_python(questions);
    assert_eq!(answers.len(), cases.len());

    let mut groups = Groups::default();
    let (mut pairs, mut matched, mut gave_up, mut refused, mut reported) = (0, 0, 0, 0, 0);
    let mut other_groups = 0;
    let mut wrong = Vec::new();
    for ((pattern, lines, texts), answer) in cases.iter().zip(&answers) {
        let compiled = Pattern::new(pattern, *lines);
        let (Ok(compiled), Value::Array(answers)) = (&compiled, answer) else {
            refused += 1;
            if let Err(PatternError::Syntax { fault: SyntaxFault::OpenGroup, .. }) = compiled
                && pattern.contains("(?(")
            {
                // Reported instead of answered: a condition on the group that it stands in.
                reported += 1;
                continue;
            }
            if compiled.is_ok() || !answer.is_null() {
                wrong.push(format!("{pattern:?}: python {answer}, we {:?}", compiled.err()));
            }
            continue;
        };
        for (text, answer) in texts.iter().zip(answers) {
            if text.is_empty() && pattern.contains("\\B") {
                // Python's `\B` is never in an empty text; lines have at least their newline.
                continue;
            }
            pairs += 1;
            let found = match compiled.search(&Subject::new(text), &mut groups) {
                Outcome::Absent => Value::Null,
                Outcome::Matched => spans(text, &groups, compiled.syntax.groups),
                Outcome::GaveUp => {
                    gave_up += 1;
                    continue;
                }
            };
            matched += usize::from(!found.is_null());
            if found != *answer
                && compiled.syntax.root.may_remember_nothing()
                && found.get(0) == answer.get(0)
            {
                other_groups += 1;
            } else if found != *answer {
                wrong.push(format!(
                    "{pattern:?} ({lines}) on {text:?}: python {answer}, we {found}"
                ));
            }
        }
    }
    println!(
        "{pairs} pairs, {matched} matches, {gave_up} given up; {refused} patterns refused by both, {reported} by us \
         alone; {other_groups} groups remember another turn"
    );
    let few: Vec<_> = wrong.iter().take(40).collect();
    assert_eq!(wrong.len(), 0, "of {pairs}: {few:#?}");
    assert!(pairs >= 100_000 && matched > pairs / 4, "{pairs} pairs, {matched} matches");
    assert!(reported * 20 < PATTERNS, "{reported} patterns refused that Python takes");
    assert!(other_groups * 1_000 < pairs, "{other_groups} of {pairs}");
    assert!(gave_up * 1_000 < pairs && refused * 5 < PATTERNS, "{gave_up} {refused}");
}
