//! What a pattern means: the tree that Python's notation is read into.
//!
//! Flags are resolved while reading, so a node says all that it does: a literal knows whether it folds
//! case, a dot whether it takes newlines.

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Matches nothing, anywhere.
    Empty,
    /// One character.
    Literal { char: char, fold: bool },
    /// `.`: any character; newlines only under `(?s)`.
    Any { newline: bool },
    /// `[…]`, `\d` and the like.
    Class(Class),
    /// `^`: the beginning; of every line under `(?m)`.
    Start { lines: bool },
    /// `$`: the end, also before a final newline; of every line under `(?m)`.
    End { lines: bool },
    /// `\Z`: the very end.
    VeryEnd,
    /// `\b` and `\B`.
    WordEdge { negated: bool, ascii: bool },
    /// Not between two word characters: what fail2ban puts around dates, `(?=^|\b|\W)`.
    NotInWord,
    /// `(…)`; only groups with a number are remembered.
    Group { number: Option<u32>, inner: Box<Node> },
    /// `(?>…)`: once matched, never tried another way.
    Atomic(Box<Node>),
    /// `(?=…)`, `(?!…)`, `(?<=…)`, `(?<!…)`.
    Look { ahead: bool, negated: bool, inner: Box<Node> },
    /// `(?P=name)` and `\1`.
    Again { group: u32, fold: bool },
    /// `(?(name)yes|no)`.
    Condition { group: u32, yes: Box<Node>, no: Box<Node> },
    /// `*`, `+`, `?`, `{m,n}`.
    Repeat { inner: Box<Node>, min: u32, max: Option<u32>, greed: Greed },
    /// One after the other.
    Sequence(Vec<Node>),
    /// The first that lets the rest match.
    Choice(Vec<Node>),
}

/// In which order a repetition tries its lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greed {
    /// Longest first.
    Greedy,
    /// Shortest first.
    Lazy,
    /// Longest only.
    Possessive,
}

/// A set of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) negated: bool,
    pub(crate) fold: bool,
    pub(crate) items: Vec<Item>,
}

/// Part of a [`Class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Both ends included.
    Range(char, char),
    /// `\d` and the like; `ascii` under `(?a)`.
    Kind { kind: Kind, negated: bool, ascii: bool },
}

/// The character kinds with an escape of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `\d`
    Digit,
    /// `\s`
    Space,
    /// `\w`
    Word,
}

/// A pattern read, with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) root: Node,
    /// Numbered groups, without the whole match.
    pub(crate) groups: u32,
    /// Names in the order of their groups.
    pub(crate) names: Vec<(Box<str>, u32)>,
}

impl Node {
    /// Whether this or any part of it satisfies `wanted`.
    pub(crate) fn any(&self, wanted: &mut dyn FnMut(&Node) -> bool) -> bool {
        wanted(self)
            || match self {
                Node::Group { inner, .. }
                | Node::Atomic(inner)
                | Node::Look { inner, .. }
                | Node::Repeat { inner, .. } => inner.any(wanted),
                Node::Condition { yes, no, .. } => yes.any(wanted) || no.any(wanted),
                Node::Sequence(parts) | Node::Choice(parts) => {
                    parts.iter().any(|part| part.any(wanted))
                }
                _ => false,
            }
    }

    /// Matches the empty text, everywhere, and remembers nothing: engines refuse to repeat it.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Node::Empty => true,
            Node::Group { number: None, inner }
            | Node::Atomic(inner)
            | Node::Repeat { inner, .. } => inner.is_nothing(),
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().all(Node::is_nothing),
            _ => false,
        }
    }

    /// Takes up no text, wherever it matches.
    pub(crate) fn is_zero_width(&self) -> bool {
        match self {
            Node::Empty
            | Node::Start { .. }
            | Node::End { .. }
            | Node::VeryEnd
            | Node::WordEdge { .. }
            | Node::NotInWord
            | Node::Look { .. } => true,
            Node::Group { inner, .. } | Node::Atomic(inner) | Node::Repeat { inner, .. } => {
                inner.is_zero_width()
            }
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().all(Node::is_zero_width),
            Node::Condition { yes, no, .. } => yes.is_zero_width() && no.is_zero_width(),
            Node::Literal { .. } | Node::Any { .. } | Node::Class(_) | Node::Again { .. } => false,
        }
    }

    /// Beyond what an automaton can do in one pass: needs an engine that tries again.
    pub(crate) fn needs_backtracking(&self) -> bool {
        self.any(&mut |node| {
            matches!(
                node,
                Node::Atomic(_)
                    | Node::Look { .. }
                    | Node::Again { .. }
                    | Node::Condition { .. }
                    | Node::Repeat { greed: Greed::Possessive, .. }
            )
        })
    }

    /// Repeats something with a group in it that can be empty: Python's group then remembers an empty last turn,
    /// where ours remember the one before it. What matches is the same.
    pub(crate) fn may_remember_nothing(&self) -> bool {
        self.any(&mut |node| {
            let Node::Repeat { inner, max, .. } = node else { return false };
            *max != Some(1)
                && inner.can_be_empty()
                && inner.any(&mut |node| matches!(node, Node::Group { number: Some(_), .. }))
        })
    }

    /// Matches the empty text somewhere.
    pub(super) fn can_be_empty(&self) -> bool {
        match self {
            Node::Literal { .. } | Node::Any { .. } | Node::Class(_) => false,
            Node::Again { .. } => true,
            Node::Group { inner, .. } | Node::Atomic(inner) => inner.can_be_empty(),
            Node::Repeat { inner, min, .. } => *min == 0 || inner.can_be_empty(),
            Node::Sequence(parts) => parts.iter().all(Node::can_be_empty),
            Node::Choice(parts) => parts.iter().any(Node::can_be_empty),
            Node::Condition { yes, no, .. } => yes.can_be_empty() || no.can_be_empty(),
            node => node.is_zero_width(),
        }
    }

    /// The same without what an automaton cannot do, so that it matches wherever this one does, and
    /// elsewhere. Groups stay, but what they remember need not be the same.
    pub(crate) fn relaxed(&self) -> Node {
        let relax = |node: &Node| Box::new(node.relaxed());
        match self {
            Node::Look { .. } => Node::Empty,
            Node::Again { .. } => Node::Repeat {
                inner: Box::new(Node::Any { newline: true }),
                min: 0,
                max: None,
                greed: Greed::Greedy,
            },
            Node::Condition { yes, no, .. } => Node::Group {
                number: None,
                inner: Box::new(Node::Choice(vec![yes.relaxed(), no.relaxed()])),
            },
            Node::Atomic(inner) => Node::Group { number: None, inner: relax(inner) },
            Node::Repeat { inner, min, max, greed } => Node::Repeat {
                inner: relax(inner),
                min: *min,
                max: *max,
                greed: if *greed == Greed::Possessive { Greed::Greedy } else { *greed },
            },
            Node::Group { number, inner } => Node::Group { number: *number, inner: relax(inner) },
            Node::Sequence(parts) => Node::Sequence(parts.iter().map(Node::relaxed).collect()),
            Node::Choice(branches) => Node::Choice(branches.iter().map(Node::relaxed).collect()),
            node => node.clone(),
        }
    }

    /// Holds a character outside ASCII.
    pub(crate) fn beyond_ascii(&self) -> bool {
        self.any(&mut |node| match node {
            Node::Literal { char, .. } => !char.is_ascii(),
            Node::Class(class) => class.items.iter().any(
                |item| matches!(item, Item::Range(from, to) if !from.is_ascii() || !to.is_ascii()),
            ),
            _ => false,
        })
    }

    /// Holds a `$` that only looks at the end of the whole text.
    pub(crate) fn asks_for_the_end(&self) -> bool {
        self.any(&mut |node| matches!(node, Node::End { lines: false }))
    }
}
