//! `<tag>`: a filter's or action's options put into one another.
use std::collections::HashMap;

use super::{
    expand::{Budget, ExpandError, ExpandFault, Lookup},
    text::Text,
};

/// How often one tag may be replaced in one value (fail2ban's limit).
const MAX_ROUNDS: u8 = 25;

/// Replaces every tag that `lookup` knows, from the inside out, so that `<mdre-<mode>>` works; what comes in is
/// searched for tags as well. Tags that nobody knows stay as they are. `option` is the value's own name.
pub(super) fn substitute(
    option: &str,
    text: Text,
    lookup: &dyn Fn(&str) -> Lookup,
) -> Result<Text, ExpandError> {
    let mut text = text;
    let mut budget = Budget::new();
    let mut rounds: HashMap<String, u8> = HashMap::new();
    let mut unknown: HashMap<String, ()> = HashMap::new();
    let mut at = 0;
    while let Some((open, close)) = next_tag(text.as_str(), at) {
        let tag = &text.as_str()[open + 1..close];
        let place = text.place_at(open);
        let fail = |kind| ExpandError { place, kind };
        if unknown.contains_key(tag) {
            at = open + 1;
            continue;
        }
        if tag == option {
            return Err(fail(ExpandFault::Circle { tag: tag.to_owned() }));
        }
        let tag = tag.to_owned();
        let Some(value) = lookup(&tag)? else {
            unknown.insert(tag, ());
            at = open + 1;
            continue;
        };
        let round = rounds.entry(tag.clone()).or_insert(0);
        *round += 1;
        if *round > MAX_ROUNDS {
            return Err(fail(ExpandFault::Circle { tag }));
        }
        text = match replace_all(&text, open, &format!("<{tag}>"), &value, &mut budget) {
            Ok(text) => text,
            Err(kind) => return Err(fail(kind)),
        };
        // The value may complete a tag that opened before it, as `<mode>` does in `<mdre-<mode>>`.
        at = match text.as_str()[..open].rfind(['<', '>', ' ']) {
            Some(before) if text.as_str()[before..].starts_with('<') => before,
            _ => open,
        };
    }
    Ok(text)
}

/// The first `<…>` from `at` on without blank, `<` or `>` inside: the places of its two brackets.
fn next_tag(text: &str, at: usize) -> Option<(usize, usize)> {
    let mut open = None;
    for (offset, byte) in text.as_bytes().get(at..)?.iter().enumerate() {
        match (byte, open) {
            (b'<', _) => open = Some(at + offset),
            (b'>', Some(open)) if open + 1 < at + offset => return Some((open, at + offset)),
            (b'>' | b' ', _) => open = None,
            _ => {}
        }
    }
    None
}

fn replace_all(
    text: &Text,
    from: usize,
    tag: &str,
    value: &Text,
    budget: &mut Budget,
) -> Result<Text, ExpandFault> {
    let mut replaced = Text::default();
    let mut at = 0;
    for (open, _) in text.as_str().match_indices(tag).filter(|(open, _)| *open >= from) {
        replaced.push(text, at..open, 0);
        replaced.push(value, 0..value.len(), 1);
        at = open + tag.len();
        budget.spend(replaced.len())?;
    }
    replaced.push(text, at..text.len(), 0);
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[(&str, &str)] = &[
        ("mode", "normal"),
        ("mdre-normal", "^a <HOST>"),
        ("lt_file/prefix", "file: "),
        ("lt", "file"),
        ("empty", ""),
        ("list", "<mode>\n<mode>"),
        ("one", "<two>"),
        ("two", "<one>"),
        ("self", "x<self>"),
        ("d0", "0123456789abcdef"),
        ("d1", "<d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0>"),
        ("d2", "<d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1>"),
        ("d3", "<d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2>"),
        ("d4", "<d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3>"),
        ("d5", "<d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4>"),
    ];

    fn substituted(value: &str) -> Result<String, ExpandFault> {
        let lookup = |tag: &str| {
            Ok(OPTIONS
                .iter()
                .find(|(name, _)| *name == tag)
                .map(|(_, value)| Text::new(value, None)))
        };
        let text = substitute("self", Text::new(value, None), &lookup);
        text.map(|text| text.as_str().to_owned()).map_err(|error| error.kind)
    }

    #[track_caller]
    fn check(value: &str, expect: &str) {
        assert_eq!(substituted(value).as_deref(), Ok(expect));
    }

    #[test]
    fn tags_are_replaced_from_the_inside_out() {
        check("<mdre-<mode>>$", "^a <HOST>$");
        check("<lt_<lt>/prefix>x", "file: x");
        check("<mode> <mode>", "normal normal");
        check("<list>", "normal\nnormal");
        check("(?P<<mode>>x)", "(?P<normal>x)");
        check("<m<empty>ode>", "normal");
    }

    #[test]
    fn what_nobody_knows_stays() {
        check(
            "<HOST> <F-USER>\\S+</F-USER> <NOSRV> (?<x>) <> < mode> <a b>",
            "<HOST> <F-USER>\\S+</F-USER> <NOSRV> (?<x>) <> < mode> <a b>",
        );
    }

    #[test]
    fn circles_and_bombs_are_errors() {
        assert_eq!(substituted("<one>"), Err(ExpandFault::Circle { tag: "one".into() }));
        assert_eq!(substituted("<self>"), Err(ExpandFault::Circle { tag: "self".into() }));
        assert!(matches!(substituted("<d5>"), Err(ExpandFault::TooLong | ExpandFault::TooMuch)));
    }
}
