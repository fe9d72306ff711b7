//! What a formula may call: Python's own functions of numbers, `math` and `random`.
use std::{cmp::Ordering, ops::RangeInclusive};

use super::value::{FormulaFault, Value, ordered, whole};
use FormulaFault::{Domain, Type};

/// Places behind the point that `round` keeps at the most; a float has no more.
const MOST_PLACES: usize = 330;

/// A function that exists.
#[derive(Clone, Copy)]
pub(super) struct Function {
    what: What,
    /// How many values it takes.
    takes: (usize, usize),
}

#[derive(Clone, Copy)]
enum What {
    Abs,
    Bool,
    Float,
    Int,
    Len,
    Max,
    Min,
    Power,
    Round,
    Sum,
    /// Of one float.
    Of(fn(f64) -> f64),
    Of2(fn(f64, f64) -> f64),
    /// Rounded to a whole number.
    Whole(fn(f64) -> f64),
    Log,
    Random,
    Uniform,
    RandomInt,
}

/// Any number of values.
const ANY: usize = usize::MAX;

const FUNCTIONS: &[(&str, What, RangeInclusive<usize>)] = &[
    ("abs", What::Abs, 1..=1),
    ("bool", What::Bool, 1..=1),
    ("float", What::Float, 1..=1),
    ("int", What::Int, 1..=1),
    ("len", What::Len, 1..=1),
    ("max", What::Max, 1..=ANY),
    ("min", What::Min, 1..=ANY),
    ("pow", What::Power, 2..=2),
    ("round", What::Round, 1..=2),
    ("sum", What::Sum, 1..=1),
    ("math.acos", What::Of(f64::acos), 1..=1),
    ("math.asin", What::Of(f64::asin), 1..=1),
    ("math.atan", What::Of(f64::atan), 1..=1),
    ("math.atan2", What::Of2(f64::atan2), 2..=2),
    ("math.ceil", What::Whole(f64::ceil), 1..=1),
    ("math.cos", What::Of(f64::cos), 1..=1),
    ("math.cosh", What::Of(f64::cosh), 1..=1),
    ("math.degrees", What::Of(|x| x * (180.0 / std::f64::consts::PI)), 1..=1),
    ("math.exp", What::Of(f64::exp), 1..=1),
    ("math.expm1", What::Of(f64::exp_m1), 1..=1),
    ("math.fabs", What::Of(f64::abs), 1..=1),
    ("math.floor", What::Whole(f64::floor), 1..=1),
    ("math.fmod", What::Of2(|a, b| a % b), 2..=2),
    ("math.hypot", What::Of2(f64::hypot), 2..=2),
    ("math.log", What::Log, 1..=2),
    ("math.log10", What::Of(f64::log10), 1..=1),
    ("math.log1p", What::Of(f64::ln_1p), 1..=1),
    ("math.log2", What::Of(f64::log2), 1..=1),
    ("math.pow", What::Of2(f64::powf), 2..=2),
    ("math.radians", What::Of(|x| x * (std::f64::consts::PI / 180.0)), 1..=1),
    ("math.sin", What::Of(f64::sin), 1..=1),
    ("math.sinh", What::Of(f64::sinh), 1..=1),
    ("math.sqrt", What::Of(f64::sqrt), 1..=1),
    ("math.tan", What::Of(f64::tan), 1..=1),
    ("math.tanh", What::Of(f64::tanh), 1..=1),
    ("math.trunc", What::Whole(f64::trunc), 1..=1),
    ("random.random", What::Random, 0..=0),
    ("random.uniform", What::Uniform, 2..=2),
    ("random.randint", What::RandomInt, 2..=2),
];

/// A constant of `math`.
pub(super) fn constant(name: &str) -> Option<f64> {
    Some(match name {
        "pi" => std::f64::consts::PI,
        "e" => std::f64::consts::E,
        "tau" => std::f64::consts::TAU,
        "inf" => f64::INFINITY,
        "nan" => f64::NAN,
        _ => return None,
    })
}

impl Function {
    pub fn of_name(name: &str) -> Option<Function> {
        let (_, what, takes) = FUNCTIONS.iter().find(|(known, ..)| *known == name)?;
        Some(Function { what: *what, takes: (*takes.start(), *takes.end()) })
    }

    /// Whether it can be called with so many values.
    pub fn takes(&self, values: usize) -> bool {
        (self.takes.0..=self.takes.1).contains(&values)
    }

    pub fn of(
        &self,
        values: &[Value],
        random: &mut dyn FnMut() -> f64,
    ) -> Result<Value, FormulaFault> {
        let float = |nth: usize| values[nth].float();
        Ok(match self.what {
            What::Abs => values[0].absolute()?,
            What::Bool => Value::from(values[0].is_true()),
            What::Float => Value::Float(float(0)?),
            What::Int => rounded(&values[0], f64::trunc)?,
            What::Len => Value::Int(values[0].list()?.len() as i128),
            What::Max => best(values, Ordering::Greater)?,
            What::Min => best(values, Ordering::Less)?,
            What::Power => super::Binary::Power.of(&values[0], &values[1])?,
            What::Round => match values.get(1) {
                None => rounded(&values[0], f64::round_ties_even)?,
                Some(places) => to_places(&values[0], places)?,
            },
            What::Sum => values[0]
                .list()?
                .iter()
                .try_fold(Value::Int(0), |sum, value| super::Binary::Plus.of(&sum, value))?,
            What::Whole(round) => rounded(&values[0], round)?,
            What::Of(of) => {
                let value = float(0)?;
                in_domain(of(value), value.is_nan(), value == 0.0 || value == -1.0)?
            }
            What::Of2(of) => {
                let (one, other) = (float(0)?, float(1)?);
                in_domain(of(one, other), one.is_nan() || other.is_nan(), one == 0.0)?
            }
            What::Log => {
                let value = float(0)?;
                let log = |value: f64| in_domain(value.ln(), value.is_nan(), value == 0.0);
                match values.get(1) {
                    None => log(value)?,
                    Some(base) => super::Binary::Divided.of(&log(value)?, &log(base.float()?)?)?,
                }
            }
            What::Random => Value::Float(random()),
            What::Uniform => {
                let (low, high) = (float(0)?, float(1)?);
                Value::Float(low + (high - low) * random())
            }
            What::RandomInt => match (&values[0], &values[1]) {
                (Value::Int(low), Value::Int(high)) if low <= high => {
                    let span = high.checked_sub(*low).ok_or(Domain)? as f64 + 1.0;
                    let by = (random() * span).floor() as i128;
                    Value::Int(low.saturating_add(by).min(*high))
                }
                (Value::Int(_), Value::Int(_)) => return Err(Domain),
                _ => return Err(Type),
            },
        })
    }
}

/// What is no number though all that was given is one has no value; nor has an infinite one at a pole.
fn in_domain(value: f64, was_nan: bool, is_pole: bool) -> Result<Value, FormulaFault> {
    if (value.is_nan() && !was_nan) || (value.is_infinite() && is_pole) {
        Err(Domain)
    } else {
        Ok(Value::Float(value))
    }
}

fn rounded(value: &Value, round: fn(f64) -> f64) -> Result<Value, FormulaFault> {
    match value {
        Value::Int(_) => Ok(value.clone()),
        value => whole(round(value.float()?)),
    }
}

/// Halves to even, in the decimal digits of the exact value, as Python does.
fn to_places(value: &Value, places: &Value) -> Result<Value, FormulaFault> {
    let places = match places {
        Value::Int(places) => usize::try_from(*places).map_err(|_| Domain)?,
        _ => return Err(Type),
    };
    match value {
        Value::Float(float) if float.is_finite() && places < MOST_PLACES => {
            format!("{float:.places$}").parse().map(Value::Float).map_err(|_| Domain)
        }
        Value::List(_) => Err(Type),
        value => Ok(value.clone()),
    }
}

/// The first that none of those behind it exceeds.
fn best(values: &[Value], than: Ordering) -> Result<Value, FormulaFault> {
    let values = match values {
        [list] => list.list()?,
        values => values,
    };
    let (first, rest) = values.split_first().ok_or(Domain)?;
    first.number()?;
    rest.iter().try_fold(first.clone(), |best, value| {
        let better = ordered(value.number()?, best.number()?) == Some(than);
        Ok(if better { value.clone() } else { best })
    })
}
