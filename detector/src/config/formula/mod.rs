//! `bantime.formula` and `bantime.factor`: the part of Python's expressions that ban times are written in.
//!
//! ```text
//! text ── lex ── tokens ── parse ── tree ── value (with ban.Time, ban.Count, banFactor) ── seconds
//! ```
//!
//! fail2ban evaluates them as Python, by root. Here nothing can be called but what `functions` lists, and there are no
//! loops: a formula is done after as many steps as it has words. Numbers are Python's, `/` always a fraction, `//` and
//! `%` rounded down, whole numbers exact; but one beyond 127 bits goes on as a float, and a float that would be too
//! large is infinite, where Python raises `OverflowError`.
mod functions;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::{fmt, sync::Arc};

use functions::Function;
use value::{Binary, Compare, Value};
pub use value::{FormulaFault, Number};

/// Longest formula, in bytes.
pub const MAX_LENGTH: usize = 1000;
/// Deepest nesting of brackets, signs and conditions.
const MAX_DEPTH: usize = 50;

/// A text that is no formula: which character, from 1, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} at character {at}")]
pub struct FormulaError {
    /// The character, from 1.
    pub at: usize,
    /// What is wrong there, lower-case, without a full stop.
    pub why: String,
}

/// What a formula may name.
pub struct Known<'k> {
    /// `ban.Time`: the jail's `bantime`, in seconds.
    pub time: u32,
    /// `ban.Count`: bans before this one.
    pub count: u32,
    /// `banFactor`.
    pub factor: Number,
    /// A number by chance, at least 0 and below 1; asked once for each use.
    pub random: &'k mut dyn FnMut() -> f64,
}

/// A formula that can be calculated. Equal to another of the same text.
#[derive(Clone)]
pub struct Formula {
    text: Arc<str>,
    root: Arc<Node>,
}

impl Formula {
    /// Reads a formula over `ban.Time`, `ban.Count` and `banFactor`.
    ///
    /// ```
    /// # use fail2xdp::config::{Formula, Known, Number};
    /// let formula = Formula::new("ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor").unwrap();
    /// let mut known = Known { time: 600, count: 3, factor: Number::Int(1), random: &mut || 0.5 };
    /// assert_eq!(formula.value(&mut known), Ok(Number::Int(4800)));
    /// assert_eq!(Formula::new("ban.Time * open('x')").unwrap_err().at, 17);
    /// ```
    ///
    /// # Errors
    /// What is no expression, names anything else, or is longer or deeper nested than anybody needs.
    pub fn new(text: &str) -> Result<Formula, FormulaError> {
        Formula::read(text, true)
    }

    /// Calculates what names no ban, as `2.0 / 2.885385`.
    ///
    /// # Errors
    /// As [`Formula::new`]; what has no value is wrong at its first character.
    pub fn constant(text: &str) -> Result<Number, FormulaError> {
        let (factor, random) = (Number::Int(1), &mut || 0.0);
        Formula::read(text, false)?
            .value(&mut Known { time: 0, count: 0, factor, random })
            .map_err(|fault| FormulaError { at: 1, why: fault.to_string() })
    }

    fn read(text: &str, ban: bool) -> Result<Formula, FormulaError> {
        if text.len() > MAX_LENGTH {
            let why = format!("longer than {MAX_LENGTH} bytes");
            return Err(FormulaError { at: 1, why });
        }
        let root = parse::formula(&lex::tokens(text)?, ban)?;
        Ok(Formula { text: text.into(), root: Arc::new(root) })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it comes to.
    ///
    /// # Errors
    /// Where Python would raise: a division by zero, a root of less than nothing, a list where a number is wanted.
    pub fn value(&self, known: &mut Known<'_>) -> Result<Number, FormulaFault> {
        self.root.value(known)?.number()
    }
}

impl PartialEq for Formula {
    fn eq(&self, other: &Formula) -> bool {
        self.text == other.text
    }
}

impl Eq for Formula {}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Formula({:?})", self.text)
    }
}

/// A part of a formula.
enum Node {
    Constant(Value),
    Time,
    Count,
    Factor,
    List(Vec<Node>),
    Negative(Box<Node>),
    Positive(Box<Node>),
    Inverted(Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    /// `a < b <= c`: every neighbour with its next.
    Compared(Box<Node>, Vec<(Compare, Node)>),
    If {
        condition: Box<Node>,
        then: Box<Node>,
        otherwise: Box<Node>,
    },
    Item(Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

impl Node {
    fn value(&self, known: &mut Known<'_>) -> Result<Value, FormulaFault> {
        Ok(match self {
            Node::Constant(value) => value.clone(),
            Node::Time => Value::Int(known.time.into()),
            Node::Count => Value::Int(known.count.into()),
            Node::Factor => known.factor.into(),
            Node::List(nodes) => Value::List(values(nodes, known)?.into()),
            Node::Negative(node) => node.value(known)?.negative()?,
            Node::Positive(node) => node.value(known)?.number()?.into(),
            Node::Inverted(node) => node.value(known)?.inverted()?,
            Node::Not(node) => Value::from(!node.value(known)?.is_true()),
            Node::And(one, other) => match one.value(known)? {
                value if value.is_true() => other.value(known)?,
                value => value,
            },
            Node::Or(one, other) => match one.value(known)? {
                value if value.is_true() => value,
                _ => other.value(known)?,
            },
            Node::Binary(how, one, other) => how.of(&one.value(known)?, &other.value(known)?)?,
            Node::Compared(first, rest) => {
                let mut left = first.value(known)?;
                for (how, node) in rest {
                    let right = node.value(known)?;
                    if !how.holds(&left, &right)? {
                        return Ok(Value::from(false));
                    }
                    left = right;
                }
                Value::from(true)
            }
            Node::If { condition, then, otherwise } => {
                let chosen = if condition.value(known)?.is_true() { then } else { otherwise };
                chosen.value(known)?
            }
            Node::Item(list, index) => list.value(known)?.item(&index.value(known)?)?,
            Node::Call(function, nodes) => {
                let values = values(nodes, known)?;
                function.of(&values, known.random)?
            }
        })
    }
}

fn values(nodes: &[Node], known: &mut Known<'_>) -> Result<Vec<Value>, FormulaFault> {
    nodes.iter().map(|node| node.value(known)).collect()
}
