//! `<tag>`: a filter's or action's options put into one another.
use std::collections::HashMap;

use super::{
    expand::{Budget, ExpandError, ExpandFault, Lookup},
    ordered::Ordered,
    text::Text,
};

/// How often one tag may be replaced in one value (fail2ban's limit).
const MAX_ROUNDS: u8 = 26;
/// Bytes looked through and written for the values of one reading, and what a tag counts for besides.
const MAX_WORK: usize = 32 << 20;
const TAG: usize = 64;

/// Replaces every tag in all values as fail2ban does it: value by value in their order, in rounds until one finds
/// nothing more. So `<mdre-<mode>>` works and what comes in is searched for tags as well; what a tag stands for is what
/// its value has come to by then, which matters where a tag is woven from several values.
///
/// A tag that is no value's name stands for what `ask` says; what nobody knows stays. Values and tags that `is_kept`
/// names are left alone. A value that cannot be resolved becomes an error, and so does every value that names it.
pub(super) fn substitute(
    values: &mut Ordered<Lookup>,
    is_kept: &dyn Fn(&str) -> bool,
    ask: &dyn Fn(&str) -> Lookup,
) {
    let mut work = MAX_WORK;
    let mut open: Vec<Value> = (0..values.len())
        .map(|at| Value { at, rounds: HashMap::new(), budget: Budget::new() })
        .filter(|value| values.at(value.at).is_some_and(|(name, _)| !is_kept(name)))
        .collect();
    let mut again = true;
    while std::mem::take(&mut again) {
        open.retain_mut(|value| {
            let Some((name, Ok(Some(before)))) = values.at(value.at) else { return false };
            let rounds = value.rounds.clone();
            let after = value.round(name, before.clone(), values, is_kept, ask, &mut work);
            let is_changed = after.as_ref().map_or(true, |after| after.as_str() != before.as_str());
            let has_tags = after.as_ref().is_ok_and(|it| next_tag(it.as_str(), 0).is_some());
            // fail2ban counts on only from a round that left something to do.
            if rounds.is_empty() && !(is_changed && has_tags) {
                value.rounds = rounds;
            }
            again |= is_changed && has_tags;
            let is_open = after.as_ref().is_ok_and(|after| after.as_str().contains('<'));
            if is_changed {
                let name = name.to_owned();
                values.insert(name, after.map(Some));
            }
            is_open
        });
    }
}

/// A value that may hold tags yet.
struct Value {
    at: usize,
    /// How often each tag was replaced in it.
    rounds: HashMap<String, u8>,
    budget: Budget,
}

impl Value {
    /// Replaces what can be replaced now, searching on from where the last tag stood.
    fn round(
        &mut self,
        name: &str,
        mut text: Text,
        values: &Ordered<Lookup>,
        is_kept: &dyn Fn(&str) -> bool,
        ask: &dyn Fn(&str) -> Lookup,
        work: &mut usize,
    ) -> Result<Text, ExpandError> {
        let mut at = 0;
        let mut cost = text.len();
        while let Some((open, close)) = next_tag(text.as_str(), at) {
            let tag = text.as_str()[open + 1..close].to_owned();
            let place = text.place_at(open);
            let fail = |kind| ExpandError { place: place.clone(), kind };
            *work = work.checked_sub(cost + TAG).ok_or_else(|| fail(ExpandFault::TooMuch))?;
            cost = close - at;
            at = close + 1;
            if is_kept(&tag) {
                continue;
            }
            let rounds = self.rounds.get(&tag).copied().unwrap_or(0);
            if tag == name || rounds >= MAX_ROUNDS {
                return Err(fail(ExpandFault::Circle { tag }));
            }
            let replacement = match values.get(&tag) {
                Some(Err(error)) => return Err(error.clone()),
                Some(Ok(Some(known))) => Some(known.clone()),
                Some(Ok(None)) | None => ask(&tag)?,
            };
            let Some(replacement) = replacement else { continue };
            self.rounds.insert(tag.clone(), rounds + 1);
            (text, at) = replaced(&text, open, &format!("<{tag}>"), &replacement);
            cost = text.len();
            self.budget.spend(cost).map_err(fail)?;
        }
        Ok(text)
    }
}

/// The first `<…>` from `at` on without blank, `<` or `>` inside: the places of its two brackets.
pub(super) fn next_tag(text: &str, at: usize) -> Option<(usize, usize)> {
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

/// The text with each `tag` in it replaced, and where to search on: as many characters from the beginning as before.
fn replaced(text: &Text, open: usize, tag: &str, value: &Text) -> (Text, usize) {
    let mut replaced = Text::default();
    let (mut at, mut is_earlier) = (0, false);
    for (found, _) in text.as_str().match_indices(tag) {
        is_earlier |= found < open;
        replaced.push(text, at..found, 0);
        replaced.push(value, 0..value.len(), 1);
        at = found + tag.len();
    }
    replaced.push(text, at..text.len(), 0);
    let next = match is_earlier {
        false => open,
        true => {
            let characters = text.as_str()[..open].chars().count();
            let mut places = replaced.as_str().char_indices().map(|(place, _)| place);
            places.nth(characters).unwrap_or(replaced.len())
        }
    };
    (replaced, next)
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
        ("open", "<"),
        ("half", "<piece>>"),
        ("piece", "<mo"),
        ("é", "ü"),
        ("one", "<two>"),
        ("two", "<one>"),
        ("d0", "0123456789abcdef"),
        ("d1", "<d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0><d0>"),
        ("d2", "<d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1><d1>"),
        ("d3", "<d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2><d2>"),
        ("d4", "<d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3><d3>"),
        ("d5", "<d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4><d4>"),
    ];

    /// What becomes of a value named `self` that comes after the others, or before them.
    fn substituted(value: &str, is_first: bool) -> Result<String, ExpandFault> {
        let mut values = Ordered::default();
        let own = ("self", value);
        let before = Some(&own).filter(|_| is_first);
        for (name, value) in before.into_iter().chain(OPTIONS).chain([&own]) {
            values.insert((*name).to_owned(), Ok(Some(Text::new(value, None))));
        }
        substitute(&mut values, &|tag| tag == "kept", &|_| Ok(None));
        let text = values.get("self").expect("the value").clone().map_err(|error| error.kind)?;
        Ok(text.expect("a text").as_str().to_owned())
    }

    #[track_caller]
    fn check(value: &str, expect: &str) {
        for is_first in [true, false] {
            assert_eq!(substituted(value, is_first).as_deref(), Ok(expect));
        }
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
    fn what_is_kept_stays_and_what_only_looked_like_a_tag_becomes_one() {
        check("<kept> <mode>", "<kept> normal");
        check("<a <mode>>", "<a normal>");
        check("<open>a> <open>mode>", "<a> normal");
        check("<open>list> <list>", "normal\nnormal normal\nnormal");
        // As many characters from the beginning as before, in a text that became longer there.
        check("<é><open>mode>x<mode>", "ünormalxnormal");
        check("<half>de>", "<mo>de>");
    }

    #[test]
    fn circles_and_bombs_are_errors() {
        let circle = |tag: &str| Err(ExpandFault::Circle { tag: tag.to_owned() });
        assert_eq!(substituted("x<self>", false), circle("self"));
        assert_eq!(substituted("<one>", true), circle("one"));
        assert_eq!(substituted("<one>", false), circle("one"));
        for is_first in [true, false] {
            let bomb = substituted("<d5>", is_first);
            assert!(matches!(bomb, Err(ExpandFault::TooLong | ExpandFault::TooMuch)), "{bomb:?}");
        }
    }
}
