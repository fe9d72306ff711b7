//! Ban times that grow with every ban (`bantime.increment`), in fail2ban's arithmetic.
use std::time::Duration;

use super::{Timestamp, Until};
use crate::config::{FormulaFault, Increment, Known, Number};

/// Nothing doubles oftener: not the default formula, nor what a known offender's failure counts for.
pub(super) const MOST_DOUBLINGS: u32 = 20;

/// Random numbers: the same for the same seed (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        // Nothing leads out of 0.
        Random(seed.max(1))
    }

    /// At least 0 and below 1.
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }
}

/// Seconds that a ban lasts after `count` bans before it, at least 1, where the first lasts `time`.
///
/// # Errors
/// When the formula has no value for this count.
pub(super) fn seconds(
    increment: &Increment,
    time: u32,
    count: u32,
    random: &mut Random,
) -> Result<f64, FormulaFault> {
    let Increment { factor, formula, multipliers, max_time, random_time, over_all_jails: _ } =
        increment;
    let plain = f64::from(time);
    let grown = if let Some(last) = multipliers.last() {
        // The first is never used: the ban without a past is not multiplied.
        plain * factor.as_f64() * multipliers.get(count as usize).unwrap_or(last)
    } else {
        let value = match formula {
            None => Number::Float(
                plain * f64::from(1u32 << count.min(MOST_DOUBLINGS)) * factor.as_f64(),
            ),
            Some(formula) => formula.value(&mut Known {
                time,
                count,
                factor: *factor,
                random: &mut || random.next(),
            })?,
        };
        // What is no number at all is not greater either.
        plain.max(value.as_f64())
    };
    let limited = max_time.map_or(grown, |most| grown.min(most));
    let by_chance = if *random_time > 0.0 { random.next() * random_time } else { 0.0 };
    Ok(limited + by_chance)
}

/// The end of a ban of so many seconds: a whole second, as the kernel's maps hold it, never earlier than decided. One
/// that nobody will see is none.
pub(super) fn end(since: Timestamp, seconds: f64) -> Until {
    if seconds > f64::from(u32::MAX) {
        return Until::Forever;
    }
    let end = since.plus(Duration::from_secs_f64(seconds.max(0.0)));
    Until::At(Timestamp::from_seconds(end.seconds() + i64::from(end.micros() % 1_000_000 != 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Formula;

    fn increment() -> Increment {
        Increment {
            factor: Number::Int(1),
            formula: None,
            multipliers: Vec::new(),
            max_time: None,
            random_time: 0.0,
            over_all_jails: false,
        }
    }

    /// Seconds after 1, 2, 3, 4 and 30 bans of 10 minutes.
    #[track_caller]
    fn check(increment: &Increment, expect: [f64; 5]) {
        let of = |count| seconds(increment, 600, count, &mut Random::new(7)).expect("a value");
        assert_eq!([1, 2, 3, 4, 30].map(of), expect);
    }

    fn formula(text: &str) -> Option<Formula> {
        Some(Formula::new(text).expect("a formula"))
    }

    #[test]
    fn times_double_unless_told_otherwise() {
        let plain = increment();
        check(&plain, [1200.0, 2400.0, 4800.0, 9600.0, 629_145_600.0]);
        check(
            &Increment { factor: Number::Float(1.5), ..plain.clone() },
            [1800.0, 3600.0, 7200.0, 14_400.0, 943_718_400.0],
        );
        check(
            &Increment { max_time: Some(5000.0), ..plain.clone() },
            [1200.0, 2400.0, 4800.0, 5000.0, 5000.0],
        );
        let multipliers = vec![1.0, 5.0, 30.0];
        check(
            &Increment { multipliers, ..plain.clone() },
            [3000.0, 18_000.0, 18_000.0, 18_000.0, 18_000.0],
        );
        check(
            &Increment { formula: formula("ban.Time * ban.Count / 2"), ..plain.clone() },
            [600.0, 600.0, 900.0, 1200.0, 9000.0],
        );
        check(&Increment { formula: formula("math.nan"), ..plain }, [600.0; 5]);
    }

    #[test]
    fn a_multiplier_and_maxtime_may_shorten_and_a_formula_may_not() {
        let short = Increment { multipliers: vec![1.0, 0.0], ..increment() };
        assert_eq!(seconds(&short, 600, 1, &mut Random::new(7)), Ok(0.0));
        let short = Increment { max_time: Some(60.0), ..increment() };
        assert_eq!(seconds(&short, 600, 1, &mut Random::new(7)), Ok(60.0));
        let long = Increment { formula: formula("1"), ..increment() };
        assert_eq!(seconds(&long, 600, 1, &mut Random::new(7)), Ok(600.0));
    }

    #[test]
    fn chance_adds_less_than_rndtime_also_beyond_maxtime() {
        let by_chance = Increment { random_time: 100.0, max_time: Some(1000.0), ..increment() };
        let mut random = Random::new(42);
        let times: Vec<f64> =
            (0..1000).map(|_| seconds(&by_chance, 600, 1, &mut random).expect("a value")).collect();
        assert!(times.iter().all(|time| (1000.0..1100.0).contains(time)));
        assert!(times.iter().any(|time| *time < 1010.0) && times.iter().any(|time| *time > 1090.0));
    }

    #[test]
    fn an_end_is_a_whole_second_and_one_too_far_away_is_none() {
        let at = Timestamp::from_micros(1_500_000);
        assert_eq!(end(at, 10.6), Until::At(Timestamp::from_seconds(13)));
        assert_eq!(end(Timestamp::from_seconds(1), 10.0), Until::At(Timestamp::from_seconds(11)));
        assert_eq!(end(at, f64::INFINITY), Until::Forever);
        assert_eq!(end(at, -5.0), Until::At(Timestamp::from_seconds(2)));
    }
}
