//! Ban times that grow: `bantime.increment` and what belongs to it.
use super::{
    Formula, Increment, Number,
    filter::FilterFiles,
    jail::{Jail, Refused, is_true},
    span,
    text::Text,
};

/// Entries of `bantime.multipliers` and the bound of each.
const MOST_MULTIPLIERS: usize = 100;
const GREATEST: f64 = 1e12;

const FORMULA_REMEDY: &str = "write a calculation over `ban.Time`, `ban.Count` and `banFactor`, with `math` and \
                              `random` where needed";
const SPAN_REMEDY: &str = "write seconds, or a span such as `5w`";

impl Jail<'_, '_> {
    /// Reads the options; `None` where bans always last the same. As in fail2ban a mistake in them matters only
    /// when they are used; there it keeps the server from starting, here the jail.
    pub(super) fn increment(
        &mut self,
        filter: Option<&FilterFiles>,
    ) -> Result<Option<Increment>, Refused> {
        let Some(text) = self.text("bantime.increment", filter)? else { return Ok(None) };
        if !is_true(text.as_str()) {
            return Ok(None);
        }
        let mut written = |option: &str| -> Result<Option<Text>, Refused> {
            let text = self.text(&format!("bantime.{option}"), filter)?;
            Ok(text.filter(|text| !text.as_str().trim().is_empty()))
        };
        let [factor, formula, multipliers] = ["factor", "formula", "multipliers"].map(&mut written);
        let [max_time, random_time, over_all] =
            ["maxtime", "rndtime", "overalljails"].map(&mut written);
        let (factor, multipliers) = (self.factor(factor?)?, self.multipliers(multipliers?)?);
        let formula = self.formula(formula?)?;
        let max_time = self.span_of("bantime.maxtime", max_time?)?;
        let random_time = self.span_of("bantime.rndtime", random_time?)?;
        Ok(Some(Increment {
            factor,
            formula,
            multipliers,
            max_time,
            random_time: random_time.unwrap_or(0.0),
            over_all_jails: over_all?.is_some_and(|text| is_true(text.as_str())),
        }))
    }

    /// A calculation without names or units, such as `2.0 / 2.885385`.
    fn factor(&mut self, text: Option<Text>) -> Result<Number, Refused> {
        let Some(text) = text else { return Ok(Number::Int(1)) };
        match Formula::constant(text.as_str().trim()) {
            Ok(factor) if factor.as_f64() > 0.0 && factor.as_f64() <= GREATEST => Ok(factor),
            _ => {
                let what = format!("`bantime.factor = {}` is no usable number", text.as_str());
                Err(self.refuse(text.place(), what, "write a number above 0, as in `1` or `3 / 2`"))
            }
        }
    }

    fn formula(&mut self, text: Option<Text>) -> Result<Option<Formula>, Refused> {
        let Some(text) = text else { return Ok(None) };
        let written = text.as_str().trim();
        Formula::new(written).map(Some).map_err(|error| {
            let blanks = text.len() - text.as_str().trim_start().len();
            let at = written.char_indices().nth(error.at - 1).map_or(written.len(), |(at, _)| at);
            let what = format!("`bantime.formula` cannot be calculated: {error}");
            self.refuse(text.place_at(blanks + at), what, FORMULA_REMEDY)
        })
    }

    fn multipliers(&mut self, text: Option<Text>) -> Result<Vec<f64>, Refused> {
        let Some(text) = text else { return Ok(Vec::new()) };
        let words: Vec<&str> = text.as_str().split_whitespace().collect();
        let numbers: Vec<f64> = words
            .iter()
            .filter_map(|word| word.parse::<u64>().ok())
            .map(|number| (number as f64).min(GREATEST))
            .collect();
        if numbers.len() != words.len() || words.len() > MOST_MULTIPLIERS {
            let what = format!("`bantime.multipliers = {}` is no list of numbers", text.as_str());
            let remedy = format!(
                "write up to {MOST_MULTIPLIERS} whole numbers with blanks between, as in `1 2 4 8`"
            );
            return Err(self.refuse(text.place(), what, &remedy));
        }
        Ok(numbers)
    }

    fn span_of(&mut self, option: &str, text: Option<Text>) -> Result<Option<f64>, Refused> {
        let Some(text) = text else { return Ok(None) };
        match span::seconds(text.as_str()) {
            Ok(seconds) if seconds >= 0.0 => Ok(Some(seconds)),
            Ok(seconds) => {
                let what = format!("`{option}` is {seconds} seconds");
                Err(self.refuse(text.place(), what, SPAN_REMEDY))
            }
            Err(error) => {
                Err(self.refuse(text.place(), format!("`{option}`: {error}"), SPAN_REMEDY))
            }
        }
    }
}
