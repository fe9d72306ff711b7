//! Expected groups are what Python 3.11 answers.
use std::time::Instant;

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(pattern: &str, text: &str, expect: Option<&[Option<&str>]>) {
    let compiled =
        Pattern::new(pattern, false).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    let mut groups = Groups::default();
    let outcome = compiled.search(&Subject::new(text), &mut groups);
    let found = (outcome == Outcome::Matched).then(|| {
        (0..=compiled.syntax.groups).map(|n| groups.get(n).map(|at| &text[at])).collect::<Vec<_>>()
    });
    assert_ne!(outcome, Outcome::GaveUp, "{pattern} on {text:?}");
    assert_eq!(found.as_deref(), expect, "{pattern} on {text:?}");
}

#[test]
fn patterns_mean_what_they_mean_in_python() {
    type Case = (&'static str, &'static str, Option<&'static [Option<&'static str>]>);
    let cases: &[Case] = &[
        ("a(b)?c", "xac", Some(&[Some("ac"), None])),
        ("(a|ab)(c|bcd)(d*)", "abcd", Some(&[Some("abcd"), Some("a"), Some("bcd"), Some("")])),
        (r"(?P<x>\w+) (?P=x)", "ab ab", Some(&[Some("ab ab"), Some("ab")])),
        ("(a)|b", "b", Some(&[Some("b"), None])),
        ("^ host$", " host\n", Some(&[Some(" host")])),
        (r"^ host\Z", " host\n", None),
        (r"host\s$", "host\n", Some(&[Some("host\n")])),
        (r"host\s+$", "host\n", Some(&[Some("host\n")])),
        (r"[^[]*\]", "ab[c]d", Some(&[Some("c]")])),
        ("[]a]+", "x]a]", Some(&[Some("]a]")])),
        (r"\<(\d{1,3})\>", "<12>", Some(&[Some("<12>"), Some("12")])),
        ("a{,2}b", "aaab", Some(&[Some("aab")])),
        ("a{x}{", "a{x}{", Some(&[Some("a{x}{")])),
        ("a{,}b", "aab", Some(&[Some("aab")])),
        ("a{2}", "aaa", Some(&[Some("aa")])),
        (r#"\/\:\"\;\,\=\ "#, "/:\";,= ", Some(&[Some("/:\";,= ")])),
        ("(?i)Failed", "xfAILED", Some(&[Some("fAILED")])),
        ("x(?i:Failed)", "xfAILED", Some(&[Some("xfAILED")])),
        ("(?s)a.b", "a\nb", Some(&[Some("a\nb")])),
        ("a.b", "a\nb", None),
        ("(?:(a)|b)*", "ab", Some(&[Some("ab"), Some("a")])),
        ("(a*?)b", "aab", Some(&[Some("aab"), Some("aa")])),
        ("(q)?(?(1)yes|no)", "no", Some(&[Some("no"), None])),
        ("(q)?(?(1)yes|no)", "qyes", Some(&[Some("qyes"), Some("q")])),
        (r#"(?P<q>")?a(?(q)")$"#, "\"a\"", Some(&[Some("\"a\""), Some("\"")])),
        ("a(?!b)c?", "abac", Some(&[Some("ac")])),
        ("(?<=:)x", "a:x", Some(&[Some("x")])),
        ("(?<!a)x", "axbx", Some(&[Some("x")])),
        ("(?>a+)ab", "aaab", None),
        ("a++b", "aaab", Some(&[Some("aaab")])),
        (r"\bfoo\b", "a foo.", Some(&[Some("foo")])),
        (r"\Bo", "foo", Some(&[Some("o")])),
        (r"\s+x", "\x1c\x1fx", Some(&[Some("\x1c\x1fx")])),
        (r"\w+", "\u{e9}t\u{e9}", Some(&[Some("\u{e9}t\u{e9}")])),
        (r"\S+", "a\u{a0}b", Some(&[Some("a")])),
        (r"[\W\d]+", "ab1-2c", Some(&[Some("1-2")])),
        (r"[^\s\d]+", "1 ab 2", Some(&[Some("ab")])),
        (r"\d+", "\u{663}\u{664}", Some(&[Some("\u{663}\u{664}")])),
        (r"\x41\u0042\103\t", "ABC\t", Some(&[Some("ABC\t")])),
        (r"\0", "\x00", Some(&[Some("\x00")])),
        (r"[\b]", "\x08", Some(&[Some("\x08")])),
        (r"(a)\1", "aa", Some(&[Some("aa"), Some("a")])),
        ("(?#note)a", "a", Some(&[Some("a")])),
        ("(?x) a b # c", "ab", Some(&[Some("ab")])),
        ("(?m)^b$", "a\nb\n", Some(&[Some("b")])),
        ("^b", "a\nb", None),
        ("a$", "a\nb\n", None),
        ("(?:(?! from ).)*$", "x from y\n", Some(&[Some("from y")])),
        (r"(?a)\w+", "\u{e9}a", Some(&[Some("a")])),
        ("[a&&b]+", "a&b", Some(&[Some("a&b")])),
        ("[a-]+", "a-b", Some(&[Some("a-")])),
        (r"[\w-]+", "a-b.", Some(&[Some("a-b")])),
        ("~#&-", "~#&-", Some(&[Some("~#&-")])),
        ("\u{e9}+", "a\u{e9}\u{e9}", Some(&[Some("\u{e9}\u{e9}")])),
        ("(?i)\u{e9}+", "\u{c9}", Some(&[Some("\u{c9}")])),
        ("(.*) from ", "a from b from c", Some(&[Some("a from b from "), Some("a from b")])),
        ("(.*?) from ", "a from b from c", Some(&[Some("a from "), Some("a")])),
        ("(?:a|ab)(?:c|bcd)$", "abcd\n", Some(&[Some("abcd")])),
        ("x*", "aaa", Some(&[Some("")])),
        ("(?i:a)B", "AB", Some(&[Some("AB")])),
        ("(?i)a(?-i:b)", "Ab", Some(&[Some("Ab")])),
        ("(?i)a(?-i:b)", "AB", None),
        (r"a\Z", "a\n", None),
        (r"(?m)a$\n(b)", "a\nb\n", Some(&[Some("a\nb"), Some("b")])),
        (r"\n(?P<s>(?:(?:.*\n)*?))c", "a\nb\nc\n", Some(&[Some("\nb\nc"), Some("b\n")])),
        (r"[\d.]+", "v1.2", Some(&[Some("1.2")])),
        (r"[.\-_]+", "a.-_", Some(&[Some(".-_")])),
        (r"(\[)?x(?(1)\])", "[x]", Some(&[Some("[x]"), Some("[")])),
        (r#"(["\'])(.*?)\1"#, "\"it's\"", Some(&[Some("\"it's\""), Some("\""), Some("it's")])),
    ];
    for (pattern, text, expect) in cases {
        check(pattern, text, *expect);
    }
}

#[test]
fn text_beyond_ascii_gives_the_same_groups() {
    // The same pattern on its two engines: the blank and the letter beyond ASCII stand behind the match.
    for tail in ["", " \u{e9}"] {
        let text = format!("user bob from 192.0.2.1{tail}\n");
        check(
            r"user (\w+) from ([\d.]+)",
            &text,
            Some(&[Some("user bob from 192.0.2.1"), Some("bob"), Some("192.0.2.1")]),
        );
    }
}

#[test]
fn only_what_is_regular_runs_in_linear_time() {
    let regular = |pattern: &str| Pattern::new(pattern, false).expect(pattern).is_regular();
    assert!(regular(r"^\s*Failed \S+ for (?P<user>.*?) from (?P<ip4>[\d.]+)(?: port \d+)?$"));
    assert!(!regular(r"^(?:(?! from ).)*$"));
    assert!(!regular(r"(a)?(?(1)b|c)"));
    assert!(!regular(r"(?P<q>.)(?P=q)"));
    assert!(!regular(r"a++"));
}

#[test]
fn a_long_text_without_a_match_is_decided_by_the_relaxed_pattern() {
    let pattern = Pattern::new(r"^start (?!not)(\w+) \1$", false).expect("compiles");
    let mut groups = Groups::default();
    let mut search = |text: &str| pattern.search(&Subject::new(text), &mut groups);
    assert_eq!(search(&"x".repeat(1_000_000)), Outcome::Absent);
    assert_eq!(search(&format!("start x {}", "x".repeat(1_000_000))), Outcome::Absent);
    // Beyond ASCII an engine with fewer tries has to do.
    assert_eq!(search(&format!("start \u{e9} {}", "x".repeat(1_000_000))), Outcome::GaveUp);
    assert_eq!(search("start x x\n"), Outcome::Matched);
    assert_eq!(search("start x x\nmore\n"), Outcome::Absent);
}

#[test]
fn a_mistake_is_named_with_its_place() {
    let fault = |pattern: &str| match Pattern::new(pattern, false) {
        Err(PatternError::Syntax { fault, at, .. }) => (fault, at),
        other => panic!("{pattern}: {other:?}"),
    };
    assert_eq!(fault("a)b"), (SyntaxFault::Unopened, 1));
    assert_eq!(fault("a(b"), (SyntaxFault::Unclosed, 2));
    assert_eq!(fault("[ab"), (SyntaxFault::UnclosedClass, 1));
    assert_eq!(fault("a**"), (SyntaxFault::MultipleRepeat, 3));
    assert_eq!(fault("a{2}{3}"), (SyntaxFault::MultipleRepeat, 7));
    assert_eq!(fault("(*a)"), (SyntaxFault::NothingToRepeat, 1));
    assert_eq!(fault("^*"), (SyntaxFault::NothingToRepeat, 2));
    assert_eq!(fault("a{3,2}"), (SyntaxFault::Bounds, 6));
    assert_eq!(fault(r"\q"), (SyntaxFault::Escape, 1));
    assert_eq!(fault("[z-a]"), (SyntaxFault::Range, 4));
    assert_eq!(fault("a(?i)b").0, SyntaxFault::GlobalFlag);
    assert_eq!(fault("(?P<a>.)(?P<a>.)").0, SyntaxFault::NameTwice("a".into()));
    assert_eq!(fault("(?P<1a>.)").0, SyntaxFault::Name("1a".into()));
    assert_eq!(fault("(?P=who)").0, SyntaxFault::UnknownGroup("who".into()));
    assert_eq!(fault(r"(a\1)").0, SyntaxFault::OpenGroup);
    assert_eq!(fault("(a)?(?(1)a|b|c)").0, SyntaxFault::Condition);
    assert_eq!(fault(&"(".repeat(5000)).0, SyntaxFault::TooDeep);
    let error = Pattern::new("(?i)user (?P<name>[a-z]+ from <HOST>$", false).expect_err("a fault");
    assert_eq!(
        error.to_string(),
        "has a group that is not closed, at character 18 of the expanded pattern, near `)user (?P<name>[a-z]+ fro`"
    );
    assert_eq!(Pattern::new("", false).err(), Some(PatternError::Empty));
}

#[test]
fn a_pattern_that_would_take_all_memory_is_refused() {
    assert!(matches!(
        Pattern::new("(?:(?:a{1000}){1000}){1000}", false),
        Err(PatternError::TooLarge { .. })
    ));
}

#[test]
fn a_hostile_line_ends_in_bounded_time() {
    let exponential = Pattern::new(r"^(?:a|aa)+(?!c)c$", false).expect("compiles");
    let mut groups = Groups::default();
    for length in [100, 10_000, 1_000_000] {
        let text = "a".repeat(length) + "c";
        let start = Instant::now();
        assert_eq!(exponential.search(&Subject::new(&text), &mut groups), Outcome::GaveUp);
        // A thousand times what it should take: this is about minutes, not about milliseconds.
        assert!(start.elapsed().as_secs() < 5, "{length}: {:?}", start.elapsed());
    }
}

proptest! {
    #[test]
    fn no_pattern_and_no_text_panics(pattern in "\\PC{0,40}", text in "\\PC{0,60}") {
        if let Ok(pattern) = Pattern::new(&pattern, false) {
            pattern.search(&Subject::new(&text), &mut Groups::default());
        }
    }

    #[test]
    fn every_engine_finds_the_same(
        pattern in "([a-c.^$|]|\\(|\\)|\\[|\\]|[*+?]|\\{1,2\\}|\\(\\?:|\\(\\?!|\\(\\?P<n>|\\(\\?P=n\\)|\\\\[dswbB1]){0,12}",
        text in "[a-c \n]{0,12}",
    ) {
        let Ok(pattern) = Pattern::new(&pattern, false) else { return Ok(()) };
        let (mut groups, mut by_fancy) = (Groups::default(), Groups::default());
        let outcome = pattern.search(&Subject::new(&text), &mut groups);
        let surely = pattern.run_surely(&Subject::new(&text), &mut Groups::default());
        prop_assert_eq!(outcome, surely);
        prop_assert_eq!(outcome, pattern.search_fancy(&text, 0, &mut by_fancy));
        if outcome == Outcome::Matched {
            prop_assert_eq!(groups.get(0), by_fancy.get(0));
        }
    }
}
