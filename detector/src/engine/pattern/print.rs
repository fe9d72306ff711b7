//! Writes a tree in the notation of an engine.
use std::fmt::Write;

use super::syntax::{Class, Greed, Item, Kind, Node};

/// Whose notation, and for which texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `regex::bytes` without Unicode, for texts of ASCII alone.
    Ascii,
    /// `regex`.
    Unicode,
    /// `fancy-regex`.
    Fancy,
}

/// `node` in `dialect`. Only [`Dialect::Fancy`] can say everything.
///
/// Outside it a `$` looks for any line end, which is the same as Python's as long as the text has its
/// only newline at its end.
pub(crate) fn print(node: &Node, dialect: Dialect) -> String {
    let mut printer = Printer { out: String::new(), dialect };
    printer.node(node);
    printer.out
}

struct Printer {
    out: String,
    dialect: Dialect,
}

impl Printer {
    fn node(&mut self, node: &Node) {
        match node {
            node if node.is_nothing() => {}
            Node::Empty => {}
            Node::Literal { char, fold } => self.folding(*fold, |p| p.char(*char)),
            Node::Any { newline: false } => self.out.push('.'),
            Node::Any { newline: true } => self.out.push_str("(?s:.)"),
            Node::Class(class) => self.class(class),
            Node::Start { lines: false } => self.out.push_str(r"\A"),
            Node::Start { lines: true } => self.out.push_str("(?m:^)"),
            Node::End { lines: false } if self.dialect == Dialect::Fancy => {
                self.out.push_str(r"(?=\n?\z)");
            }
            Node::End { .. } => self.out.push_str("(?m:$)"),
            Node::VeryEnd => self.out.push_str(r"\z"),
            Node::WordEdge { negated, ascii: true } if self.dialect == Dialect::Fancy => {
                // This engine cannot leave Unicode inside a pattern.
                self.out.push_str(match negated {
                    false => {
                        r"(?:(?<=[0-9A-Za-z_])(?![0-9A-Za-z_])|(?<![0-9A-Za-z_])(?=[0-9A-Za-z_]))"
                    }
                    true => {
                        r"(?:(?<=[0-9A-Za-z_])(?=[0-9A-Za-z_])|(?<![0-9A-Za-z_])(?![0-9A-Za-z_]))"
                    }
                });
            }
            Node::WordEdge { negated, ascii } => {
                let edge = if *negated { r"\B" } else { r"\b" };
                if *ascii && self.dialect != Dialect::Ascii {
                    self.out.push_str("(?-u:");
                    self.out.push_str(edge);
                    self.out.push(')');
                } else {
                    self.out.push_str(edge);
                }
            }
            Node::NotInWord => self.out.push_str(r"(?:\b{start-half}|\b{end-half})"),
            Node::Group { number, inner } => {
                self.out.push_str(if number.is_some() { "(" } else { "(?:" });
                self.node(inner);
                self.out.push(')');
            }
            Node::Atomic(inner) => self.wrapped("(?>", inner),
            Node::Look { ahead, negated, inner } => self.wrapped(
                match (ahead, negated) {
                    (true, false) => "(?=",
                    (true, true) => "(?!",
                    (false, false) => "(?<=",
                    (false, true) => "(?<!",
                },
                inner,
            ),
            Node::Again { group, fold } => {
                self.folding(*fold, |p| p.format(format_args!(r"(?:\{group})")))
            }
            Node::Condition { group, yes, no } => {
                self.format(format_args!("(?({group})"));
                self.wrapped("(?:", yes);
                self.out.push('|');
                self.wrapped("(?:", no);
                self.out.push(')');
            }
            Node::Repeat { inner, min, max, greed } => {
                if *greed == Greed::Possessive {
                    self.out.push_str("(?>");
                }
                self.wrapped("(?:", inner);
                match (min, max) {
                    (0, None) => self.out.push('*'),
                    (1, None) => self.out.push('+'),
                    (0, Some(1)) => self.out.push('?'),
                    (min, None) => self.format(format_args!("{{{min},}}")),
                    (min, Some(max)) if min == max => self.format(format_args!("{{{min}}}")),
                    (min, Some(max)) => self.format(format_args!("{{{min},{max}}}")),
                }
                match greed {
                    Greed::Greedy => {}
                    Greed::Lazy => self.out.push('?'),
                    Greed::Possessive => self.out.push(')'),
                }
            }
            Node::Sequence(parts) => {
                for part in parts {
                    if matches!(part, Node::Choice(_)) {
                        self.wrapped("(?:", part);
                    } else {
                        self.node(part);
                    }
                }
            }
            Node::Choice(branches) => {
                for (nth, branch) in branches.iter().enumerate() {
                    if nth > 0 {
                        self.out.push('|');
                    }
                    self.node(branch);
                }
            }
        }
    }

    fn format(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a String takes all text");
    }

    fn wrapped(&mut self, open: &str, inner: &Node) {
        self.out.push_str(open);
        self.node(inner);
        self.out.push(')');
    }

    fn folding(&mut self, fold: bool, inner: impl FnOnce(&mut Printer)) {
        if fold {
            self.out.push_str("(?i:");
        }
        inner(self);
        if fold {
            self.out.push(')');
        }
    }

    fn char(&mut self, char: char) {
        match char {
            '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$'
            | '#' | '&' | '-' | '~' => {
                self.out.push('\\');
                self.out.push(char);
            }
            c if c.is_control() || c.is_whitespace() && c != ' ' => {
                self.format(format_args!(r"\x{{{:x}}}", u32::from(c)));
            }
            c => self.out.push(c),
        }
    }

    fn class(&mut self, class: &Class) {
        self.folding(class.fold, |p| {
            p.out.push_str(if class.negated { "[^" } else { "[" });
            for item in &class.items {
                match *item {
                    Item::Range(from, to) => {
                        p.char(from);
                        if from != to {
                            p.out.push('-');
                            p.char(to);
                        }
                    }
                    Item::Kind { kind, negated, ascii } => {
                        let set = match (kind, ascii || p.dialect == Dialect::Ascii) {
                            (Kind::Digit, true) => "0-9",
                            (Kind::Digit, false) => r"\d",
                            (Kind::Word, true) => "0-9A-Za-z_",
                            (Kind::Word, false) => r"\p{L}\p{N}_",
                            // Python counts the four separators 0x1c to 0x1f as blanks.
                            (Kind::Space, true) => r"\x{9}-\x{d}\x{1c}-\x{20}",
                            (Kind::Space, false) => r"\s\x{1c}-\x{1f}",
                        };
                        if negated {
                            p.out.push_str("[^");
                            p.out.push_str(set);
                            p.out.push(']');
                        } else {
                            p.out.push_str(set);
                        }
                    }
                }
            }
            p.out.push(']');
        });
    }
}
