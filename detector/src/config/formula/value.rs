//! Numbers as Python has them.
use std::{cmp::Ordering, sync::Arc};

use FormulaFault::{Domain, Index, Type, Zero};

/// Why a formula has no value, where Python would raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormulaFault {
    /// `ZeroDivisionError`.
    #[error("it divides by zero")]
    Zero,
    /// `ValueError`: the logarithm of nothing, a shift by less than nothing.
    #[error("it asks a function for what it has no value for")]
    Domain,
    /// `TypeError`: a list or a fraction where a whole number is wanted.
    #[error("it calculates with what is no fitting number")]
    Type,
    /// `IndexError`.
    #[error("it asks for more than its list holds")]
    Index,
}

/// A number.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole one.
    Int(i128),
    /// Any other.
    Float(f64),
}

impl Number {
    /// The nearest float.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

/// Of one kind and the same, so that `1` and `1.0`, which may lead to different ends, differ.
impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            (Number::Int(one), Number::Int(other)) => one == other,
            (Number::Float(one), Number::Float(other)) => one.to_bits() == other.to_bits(),
            _ => false,
        }
    }
}

impl Eq for Number {}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Int(value) => value.fmt(f),
            Number::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// What a part of a formula comes to. Lists are shared: each part of them stands in the formula itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Int(i128),
    Float(f64),
    List(Arc<[Value]>),
}

impl From<Number> for Value {
    fn from(number: Number) -> Value {
        match number {
            Number::Int(value) => Value::Int(value),
            Number::Float(value) => Value::Float(value),
        }
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Value {
        Value::Int(is.into())
    }
}

impl Value {
    pub fn number(&self) -> Result<Number, FormulaFault> {
        match self {
            Value::Int(value) => Ok(Number::Int(*value)),
            Value::Float(value) => Ok(Number::Float(*value)),
            Value::List(_) => Err(Type),
        }
    }

    pub fn float(&self) -> Result<f64, FormulaFault> {
        self.number().map(Number::as_f64)
    }

    pub fn list(&self) -> Result<&[Value], FormulaFault> {
        match self {
            Value::List(values) => Ok(values),
            Value::Int(_) | Value::Float(_) => Err(Type),
        }
    }

    fn int(&self) -> Result<i128, FormulaFault> {
        match self {
            Value::Int(value) => Ok(*value),
            Value::Float(_) | Value::List(_) => Err(Type),
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::List(values) => !values.is_empty(),
        }
    }

    pub fn negative(&self) -> Result<Value, FormulaFault> {
        Ok(match self.number()? {
            Number::Int(value) => exact(value.checked_neg(), || -(value as f64)),
            Number::Float(value) => Value::Float(-value),
        })
    }

    pub fn absolute(&self) -> Result<Value, FormulaFault> {
        Ok(match self.number()? {
            Number::Int(value) => exact(value.checked_abs(), || (value as f64).abs()),
            Number::Float(value) => Value::Float(value.abs()),
        })
    }

    pub fn inverted(&self) -> Result<Value, FormulaFault> {
        self.int().map(|value| Value::Int(!value))
    }

    /// One of a list, counted from its end where the index is below zero.
    pub fn item(&self, index: &Value) -> Result<Value, FormulaFault> {
        let (values, index) = (self.list()?, index.int()?);
        let from_end = if index < 0 { values.len() as i128 } else { 0 };
        let at = index.checked_add(from_end).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| values.get(at)).cloned().ok_or(Index)
    }
}

/// The whole number, or where it would be too large the float nearest to it.
fn exact(int: Option<i128>, float: impl FnOnce() -> f64) -> Value {
    int.map_or_else(|| Value::Float(float()), Value::Int)
}

/// A float without its fraction, as a whole number; the infinite stays.
pub(super) fn whole(value: f64) -> Result<Value, FormulaFault> {
    const LIMIT: f64 = (1u128 << 127) as f64;
    if value.is_nan() {
        Err(Domain)
    } else if (-LIMIT..LIMIT).contains(&value) {
        Ok(Value::Int(value as i128))
    } else {
        Ok(Value::Float(value))
    }
}

/// What stands between two numbers.
#[derive(Clone, Copy)]
pub(super) enum Binary {
    Plus,
    Minus,
    Times,
    Divided,
    Floored,
    Modulo,
    Power,
    Left,
    Right,
    And,
    Or,
    Xor,
}

impl Binary {
    pub fn of(self, one: &Value, other: &Value) -> Result<Value, FormulaFault> {
        match self {
            Binary::Left => return shifted(one.int()?, other.int()?),
            Binary::Right => {
                let (value, by) = (one.int()?, other.int()?);
                return if by < 0 { Err(Domain) } else { Ok(Value::Int(value >> by.min(127))) };
            }
            Binary::And => return Ok(Value::Int(one.int()? & other.int()?)),
            Binary::Or => return Ok(Value::Int(one.int()? | other.int()?)),
            Binary::Xor => return Ok(Value::Int(one.int()? ^ other.int()?)),
            _ => {}
        }
        let (a, b) = (one.float()?, other.float()?);
        if let (Value::Int(one), Value::Int(other)) = (one, other) {
            let (one, other) = (*one, *other);
            let rest = one.checked_rem(other).unwrap_or(0);
            // The rest has the divisor's sign.
            let crosses = rest != 0 && (rest < 0) != (other < 0);
            return match self {
                Binary::Plus => Ok(exact(one.checked_add(other), || a + b)),
                Binary::Minus => Ok(exact(one.checked_sub(other), || a - b)),
                Binary::Times => Ok(exact(one.checked_mul(other), || a * b)),
                _ if other == 0 && !matches!(self, Binary::Power) => Err(Zero),
                Binary::Floored => {
                    let quotient = one.checked_div(other);
                    Ok(exact(quotient.map(|it| it - i128::from(crosses)), || (a / b).floor()))
                }
                Binary::Modulo => Ok(Value::Int(if crosses { rest + other } else { rest })),
                Binary::Power => match u32::try_from(other) {
                    Ok(exponent) => Ok(exact(one.checked_pow(exponent), || a.powf(b))),
                    Err(_) if one.unsigned_abs() <= 1 && other > 0 => {
                        // 0, 1 and -1 stay small, however often.
                        Ok(Value::Int(if other % 2 == 0 { one * one } else { one }))
                    }
                    Err(_) => power(a, b),
                },
                _ => Ok(Value::Float(a / b)),
            };
        }
        Ok(Value::Float(match self {
            Binary::Plus => a + b,
            Binary::Minus => a - b,
            Binary::Times => a * b,
            Binary::Power => return power(a, b),
            _ if b == 0.0 => return Err(Zero),
            Binary::Floored => divided(a, b).0,
            Binary::Modulo => divided(a, b).1,
            _ => a / b,
        }))
    }
}

fn shifted(value: i128, by: i128) -> Result<Value, FormulaFault> {
    if by < 0 {
        return Err(Domain);
    }
    let fits = u32::try_from(by).ok().filter(|by| *by < 127);
    let int = fits.and_then(|by| value.checked_mul(1i128 << by));
    let int = if value == 0 { Some(0) } else { int };
    Ok(exact(int, || value as f64 * (by.min(5000) as f64).exp2()))
}

/// Quotient rounded down, and rest with the divisor's sign, as CPython's `float_divmod` has them.
fn divided(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest != 0.0 {
        if (b < 0.0) != (rest < 0.0) {
            rest += b;
            quotient -= 1.0;
        }
    } else {
        rest = 0f64.copysign(b);
    }
    if quotient == 0.0 {
        return (0f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

fn power(a: f64, b: f64) -> Result<Value, FormulaFault> {
    if a == 0.0 && b < 0.0 {
        return Err(Zero);
    }
    if a < 0.0 && a.is_finite() && b.is_finite() && b.fract() != 0.0 {
        // A complex number.
        return Err(Type);
    }
    Ok(Value::Float(a.powf(b)))
}

/// What is asked about two values.
#[derive(Clone, Copy)]
pub(super) enum Compare {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
    In,
    NotIn,
}

impl Compare {
    pub fn holds(self, one: &Value, other: &Value) -> Result<bool, FormulaFault> {
        let among = || Ok(other.list()?.iter().any(|value| is_equal(one, value)));
        let order = || Ok(ordered(one.number()?, other.number()?));
        Ok(match self {
            Compare::In => among()?,
            Compare::NotIn => !among()?,
            Compare::Equal => is_equal(one, other),
            Compare::Unequal => !is_equal(one, other),
            Compare::Less => order()?.is_some_and(Ordering::is_lt),
            Compare::LessOrEqual => order()?.is_some_and(Ordering::is_le),
            Compare::Greater => order()?.is_some_and(Ordering::is_gt),
            Compare::GreaterOrEqual => order()?.is_some_and(Ordering::is_ge),
        })
    }
}

/// `None` where one of them is no number at all (NaN).
pub(super) fn ordered(one: Number, other: Number) -> Option<Ordering> {
    match (one, other) {
        (Number::Int(one), Number::Int(other)) => Some(one.cmp(&other)),
        _ => one.as_f64().partial_cmp(&other.as_f64()),
    }
}

fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len()
                && one.iter().zip(other.iter()).all(|(one, other)| is_equal(one, other))
        }
        _ => match (one.number(), other.number()) {
            (Ok(one), Ok(other)) => ordered(one, other).is_some_and(Ordering::is_eq),
            _ => false,
        },
    }
}
