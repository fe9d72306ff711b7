//! When a failure happened, for lines that are late, early or undated.
use std::time::Duration;

use crate::engine::Timestamp;

/// How far a line's date may be off before it is no longer believed: seconds.
const BELIEVED: Duration = Duration::from_secs(60);

/// What is known about the time of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// A failure in it counts as of then.
    At(Timestamp),
    /// No date, and no line before it that had one: a failure in it counts as of now.
    Guessed(Timestamp),
    /// Written before `findtime`: not looked at.
    TooOld,
    /// No date, no line before it that had one, and the present is no guess: a failure in it cannot
    /// count.
    Unknown,
}

impl When {
    fn as_logged(date: Timestamp, find_time: Duration, now: Timestamp) -> When {
        if date < now.minus(find_time) { When::TooOld } else { When::At(date.min(now)) }
    }
}

/// What a line says about its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This.
    At(Timestamp),
    /// Nothing, though it should.
    Nothing,
    /// Nothing, as all lines of this log (`{NONE}`).
    Never,
}

/// The rules, with the date of the last line that had one.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    last: Option<Timestamp>,
}

impl Rules {
    /// Whether lines without a date take that of the last line that had one.
    ///
    /// A date that does not exist (30 February) then stays in the line: fail2ban sees no date there.
    pub(super) fn last_serves(&self, now: Timestamp) -> bool {
        self.last.is_some_and(|last| last.plus(BELIEVED) > now)
    }

    /// The time of a line that counts however old it is; `None` where it says none, and the last date is too
    /// old for it.
    pub(super) fn written(&mut self, said: Said, now: Timestamp) -> Option<Timestamp> {
        match said {
            Said::At(date) => self.last = Some(date),
            Said::Never if !self.last_serves(now) => return Some(now),
            Said::Nothing if !self.last_serves(now) => return None,
            Said::Never | Said::Nothing => {}
        }
        self.last
    }

    /// The time of a line with this date. `caught_up`: lines are read as they are written, so the
    /// present is a better guess than a date far from it; before that, the date is all there is.
    pub(super) fn time(
        &mut self,
        said: Said,
        find_time: Duration,
        now: Timestamp,
        caught_up: bool,
    ) -> When {
        let near = |at: Timestamp| at.plus(BELIEVED) >= now && at <= now.plus(BELIEVED);
        match said {
            Said::At(date) if caught_up => {
                let at = if near(date) { date } else { now };
                self.last = Some(at);
                When::At(at)
            }
            Said::At(date) => {
                self.last = Some(date);
                When::as_logged(date, find_time, now)
            }
            Said::Never if self.last_serves(now) => When::At(self.last.unwrap_or(now).min(now)),
            Said::Never => When::At(now),
            Said::Nothing => match self.last {
                Some(last) if self.last_serves(now) => When::At(last.min(now)),
                _ if caught_up => When::Guessed(now),
                // fail2ban believes the last date only near the present and drops a failure told in
                // two lines, the second undated, when it reads it late; we would miss an attack.
                Some(last) => When::as_logged(last, find_time, now),
                None => When::Unknown,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    /// `dates` relative to now, one line each; the last line's time is checked.
    #[track_caller]
    fn check(caught_up: bool, dates: &[Option<i64>], expect: &str) {
        let mut rules = Rules::default();
        let mut when = When::Unknown;
        for date in dates {
            let said = match date {
                Some(date) => Said::At(Timestamp::from_seconds(NOW + date)),
                None => Said::Nothing,
            };
            when =
                rules.time(said, Duration::from_secs(600), Timestamp::from_seconds(NOW), caught_up);
        }
        let when = match when {
            When::At(at) => format!("{}", at.seconds() - NOW),
            When::Guessed(at) => format!("guessed {}", at.seconds() - NOW),
            When::TooOld => "too old".to_owned(),
            When::Unknown => "unknown".to_owned(),
        };
        assert_eq!(when, expect, "caught_up {caught_up}, {dates:?}");
    }

    #[test]
    fn in_operation_a_date_far_off_is_now() {
        check(true, &[Some(0)], "0");
        check(true, &[Some(-60)], "-60");
        check(true, &[Some(60)], "60");
        check(true, &[Some(-61)], "0");
        check(true, &[Some(61)], "0");
        check(true, &[Some(-100_000)], "0");
    }

    #[test]
    fn while_catching_up_a_date_is_believed_but_not_beyond_now() {
        check(false, &[Some(-600)], "-600");
        check(false, &[Some(-601)], "too old");
        check(false, &[Some(61)], "0");
    }

    #[test]
    fn a_log_without_dates_is_of_now() {
        let now = Timestamp::from_seconds(NOW);
        let mut rules = Rules::default();
        for caught_up in [false, true] {
            let when = rules.time(Said::Never, Duration::from_secs(600), now, caught_up);
            assert_eq!(when, When::At(now));
        }
    }

    #[test]
    fn an_undated_line_takes_the_last_date_if_that_is_near() {
        check(true, &[None], "guessed 0");
        check(true, &[Some(-70), None], "0"); // the dated line itself counted as of now
        check(false, &[None], "unknown");
        check(true, &[Some(-50), None], "-50");
        check(false, &[Some(-50), None], "-50");
        check(false, &[Some(-70), None], "-70");
        check(false, &[Some(-700), None], "too old");
    }
}
