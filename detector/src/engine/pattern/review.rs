//! What an operator should know of a pattern: which engine runs it and why, and whether a line that an attacker
//! writes can put any address where the real one should stand.
use super::{
    parse::{Options, parse},
    syntax::{Class, Greed, Item, Kind, Node, Syntax},
};

/// Groups that say who is banned.
const WHO: [&str; 4] = ["fid", "ip4", "ip6", "dns"];
/// The group of a prefix that hands on the rest of the line.
const CONTENT: &str = "content";
/// A repetition that goes further than this takes in a text with an address in it.
const SHORT: u32 = 20;

/// The engine that a pattern runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `regex`: time linear in the text.
    Regex,
    /// `fancy-regex`: tries again and again, and is stopped after a number of tries. What it is needed for.
    FancyRegex(Vec<&'static str>),
}

/// How a client's own text could pass for a log line's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// The pattern may begin anywhere in the line.
    NotAnchored,
    /// Any text may stand before the address, and what follows it does not fix the rest.
    AnyTextBefore,
}

impl Engine {
    pub(crate) fn of(root: &Node) -> Engine {
        let mut needs = Vec::new();
        root.any(&mut |node| {
            let need = match node {
                Node::Look { ahead: true, negated: false, .. } => "a look-ahead `(?=…)`",
                Node::Look { ahead: true, negated: true, .. } => "a negative look-ahead `(?!…)`",
                Node::Look { ahead: false, .. } => "a look-behind",
                Node::Again { .. } => "a back-reference",
                Node::Condition { .. } => "a condition `(?(…)…|…)`",
                Node::Atomic(_) => "an atomic group `(?>…)`",
                Node::Repeat { greed: Greed::Possessive, .. } => "a possessive repetition",
                _ => return false,
            };
            if !needs.contains(&need) {
                needs.push(need);
            }
            false
        });
        if needs.is_empty() { Engine::Regex } else { Engine::FancyRegex(needs) }
    }
}

/// The engine of a pattern, and how it can be forged. `None` for one that does not compile.
pub(crate) fn review(pattern: &str, lines: bool) -> Option<(Engine, Option<Forgery>)> {
    let syntax = parse(pattern, Options { lines, names_again: false }).ok()?;
    Some((Engine::of(&syntax.root), forgery(&syntax)))
}

/// Whether a group of the pattern may hold other text than Python's would.
pub(crate) fn remembers_otherwise(pattern: &str) -> bool {
    let syntax = parse(pattern, Options::default());
    syntax.is_ok_and(|syntax| syntax.root.may_remember_nothing())
}

/// Whether the pattern lets a client choose the address. A heuristic that errs on the quiet side: it knows text that
/// may hold anything, not which part of a line a client writes.
fn forgery(syntax: &Syntax) -> Option<Forgery> {
    let named = |wanted: &dyn Fn(&str) -> bool| -> Vec<u32> {
        let names = syntax.names.iter().filter(|(name, _)| wanted(name));
        names.map(|(_, number)| *number).collect()
    };
    let who = match named(&|name| name == CONTENT) {
        // Of a prefix it matters where the rest begins: what stands in it is for the failregexes to judge.
        content if !content.is_empty() => {
            let mut walk = Walk { who: &content, ..Walk::default() };
            walk.node(&syntax.root);
            return (walk.found && !walk.anchored).then_some(Forgery::NotAnchored);
        }
        _ => named(&|name| WHO.contains(&name)),
    };
    let mut walk = Walk { who: &who, ..Walk::default() };
    walk.node(&syntax.root);
    if !walk.found {
        None
    } else if !walk.anchored {
        Some(Forgery::NotAnchored)
    } else if walk.wide_before && (!walk.end || walk.wide_behind) {
        Some(Forgery::AnyTextBefore)
    } else {
        None
    }
}

/// What was passed on the way from the left.
#[derive(Clone, Default)]
struct Walk<'w> {
    who: &'w [u32],
    /// `^` came before anything else.
    anchored: bool,
    /// Something that takes up text came.
    begun: bool,
    /// The address came.
    found: bool,
    /// Any text may stand before it.
    wide_before: bool,
    /// Any text may stand behind it.
    wide_behind: bool,
    /// The end of the line came.
    end: bool,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node) {
        match node {
            Node::Start { .. } => self.anchored |= !self.begun,
            Node::End { .. } | Node::VeryEnd => self.end |= self.found,
            Node::Group { number: Some(number), .. } if self.who.contains(number) => {
                (self.found, self.begun) = (true, true);
            }
            Node::Group { inner, .. } | Node::Atomic(inner) => self.node(inner),
            Node::Repeat { inner, min, max, .. } => {
                if max.is_none_or(|max| max > SHORT) && is_wide(inner) {
                    self.wide();
                }
                let before = self.clone();
                self.node(inner);
                if *min == 0 {
                    // It may be skipped: an end or a beginning in it is not sure.
                    (self.anchored, self.end) = (before.anchored, before.end);
                }
            }
            Node::Condition { yes, no, .. } => {
                // Which branch comes depends on what stood before: whoever writes one knows what he does.
                let mut other = self.clone();
                other.node(no);
                self.node(yes);
                self.end |= other.end;
            }
            Node::Choice(branches) => self.branches(branches.iter()),
            Node::Sequence(parts) => parts.iter().for_each(|part| self.node(part)),
            Node::Literal { .. } | Node::Any { .. } | Node::Class(_) | Node::Again { .. } => {
                self.begun = true;
            }
            Node::Empty | Node::WordEdge { .. } | Node::NotInWord | Node::Look { .. } => {}
        }
    }

    fn wide(&mut self) {
        self.begun = true;
        if self.found { self.wide_behind = true } else { self.wide_before = true }
    }

    fn branches<'n>(&mut self, branches: impl Iterator<Item = &'n Node>) {
        let before = self.clone();
        let mut all: Option<Walk<'_>> = None;
        for branch in branches {
            let mut walk = before.clone();
            walk.node(branch);
            all = Some(match all {
                None => walk,
                Some(other) => Walk {
                    who: before.who,
                    anchored: other.anchored && walk.anchored,
                    begun: other.begun || walk.begun,
                    found: other.found || walk.found,
                    wide_before: other.wide_before || walk.wide_before,
                    wide_behind: other.wide_behind || walk.wide_behind,
                    end: other.end && walk.end,
                },
            });
        }
        if let Some(all) = all {
            let who = self.who;
            *self = Walk {
                who,
                anchored: all.anchored,
                begun: all.begun,
                found: all.found,
                wide_before: all.wide_before,
                wide_behind: all.wide_behind,
                end: all.end,
            };
        }
    }
}

/// Whether one step of a repetition takes a blank, a digit or a dot alike: so does a forged address with words
/// around it.
fn is_wide(node: &Node) -> bool {
    match node {
        Node::Any { .. } => true,
        Node::Class(class) => [' ', '1', '.'].iter().all(|c| holds(class, *c)),
        Node::Group { inner, .. } => is_wide(inner),
        Node::Sequence(parts) => {
            // `(?:(?! from ).)*` takes anything but what it excludes.
            let taking = parts.iter().filter(|part| !matches!(part, Node::Look { .. }));
            parts.iter().all(|part| !matches!(part, Node::Look { .. }))
                && taking.clone().count() == 1
                && taking.clone().all(is_wide)
        }
        Node::Choice(branches) => branches.iter().any(is_wide),
        _ => false,
    }
}

/// Whether a class holds a character of ASCII.
fn holds(class: &Class, c: char) -> bool {
    let item = |item: &Item| match item {
        Item::Range(from, to) => (*from..=*to).contains(&c),
        Item::Kind { kind, negated, .. } => {
            let is = match kind {
                Kind::Digit => c.is_ascii_digit(),
                Kind::Space => c.is_ascii_whitespace(),
                Kind::Word => c.is_ascii_alphanumeric() || c == '_',
            };
            is != *negated
        }
    };
    class.items.iter().any(item) != class.negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expect: Option<Forgery>) {
        let (_, forgery) = review(pattern, false).expect(pattern);
        assert_eq!(forgery, expect, "{pattern}");
    }

    #[test]
    fn a_pattern_that_begins_anywhere_or_lets_any_text_stand_before_the_address_can_be_forged() {
        let (anchor, text) = (Some(Forgery::NotAnchored), Some(Forgery::AnyTextBefore));
        check(r"^Failed \S+ for .* from (?P<ip4>[\d.]+)(?: port \d+)?$", None);
        check(r"^Failed \S+ for .* from (?P<ip4>[\d.]+)", text);
        check(r"^Failed for .*? from (?P<ip4>[\d.]+) .*$", text);
        check(r"^Failed for [^<]* from (?P<ip4>[\d.]+) ", text);
        check(r"^Failed for \S+ from (?P<ip4>[\d.]+) ", None);
        check(r"^Failed for .{0,10} from (?P<ip4>[\d.]+) ", None);
        check(r"^(?P<ip4>[\d.]+) .* .*", None);
        check(r"Failed from (?P<ip4>[\d.]+)$", anchor);
        check(r"(?:^| )Failed from (?P<ip4>[\d.]+)$", anchor);
        check(r"^(?:a|b.*) (?:(?P<ip4>x)|(?P<dns>y))", text);
        check(r"^(?:(?! from ).)* from (?P<ip4>x) .*", None);
        check(r"^no address .* at all", None);
        check(r"^\S+ app: (?P<content>.+)$", None);
        check(r"^(?:\S+ )?app\[\d+\]: (?P<content>.*)", None);
        check(r"app: (?P<content>.+)$", anchor);
        check(r"^.* app: (?P<content>.+)$", None);
    }

    #[test]
    fn the_engine_is_named_with_what_it_is_needed_for() {
        let engine = |pattern| review(pattern, false).expect(pattern).0;
        assert_eq!(engine(r"^a (?P<ip4>x)$"), Engine::Regex);
        assert_eq!(
            engine(r"^(?P<q>a)(?!b)c(?=d)(?P=q)(?!e)$"),
            Engine::FancyRegex(vec![
                "a negative look-ahead `(?!…)`",
                "a look-ahead `(?=…)`",
                "a back-reference"
            ])
        );
        assert_eq!(engine("(a)?(?(1)b|c)"), Engine::FancyRegex(vec!["a condition `(?(…)…|…)`"]));
        assert_eq!(
            engine("(?<=a)(?>b)c++").to_owned(),
            Engine::FancyRegex(vec![
                "a look-behind",
                "an atomic group `(?>…)`",
                "a possessive repetition"
            ])
        );
    }
}
