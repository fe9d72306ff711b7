//! From the pieces of a date to a point in time.
use std::cell::Cell;

use jiff::{
    Span,
    civil::{Date, DateTime, ISOWeekDate, Weekday},
    tz::TimeZone,
};

use super::zones;
use crate::engine::Timestamp;

/// What a date template read. A piece that was not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    pub(super) year: Option<i16>,
    pub(super) month: Option<i8>,
    pub(super) day: Option<i8>,
    pub(super) hour: i8,
    pub(super) minute: i8,
    /// 0 to 61.
    pub(super) second: i8,
    pub(super) zone: Option<Zone>,
    pub(super) day_of_year: Option<i16>,
    pub(super) week: Option<Week>,
    pub(super) weekday: Option<Weekday>,
    /// Unix time, which needs no other piece.
    pub(super) unix: Option<Timestamp>,
}

/// Where a date says it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// Seconds east of Greenwich.
    Offset(i32),
    /// A word that is no zone we know.
    Unknown,
}

/// A week's number, by whose count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Week {
    /// `%U`: weeks begin on Sunday, those before the first one are week 0.
    FromSunday(i8),
    /// `%W`: the same with Monday.
    FromMonday(i8),
    /// `%V` of the ISO year.
    Iso(i8),
}

impl Zone {
    pub(super) fn named(text: &str) -> Zone {
        zones::offset(text).map_or(Zone::Unknown, Zone::Offset)
    }
}

/// Where lines without a zone were written: `logtimezone`, else this machine's zone.
#[derive(Debug)]
pub(super) struct Home {
    /// This machine's.
    zone: TimeZone,
    /// `logtimezone`: as if every line without a zone named this one.
    written: Option<Zone>,
    /// The date here, and of which quarter of an hour: no zone changes its date within one.
    today: Cell<(i64, Date)>,
}

const QUARTER: i64 = 900;
const DAY: i64 = 86_400;

impl Home {
    pub(super) fn new(zone: TimeZone) -> Home {
        Home { zone, written: None, today: Cell::new((i64::MIN, Date::ZERO)) }
    }

    /// Sets the zone that `logtimezone` names: an abbreviation, an offset, or both; `false` if it names none.
    pub(super) fn set_written(&mut self, text: &str) -> bool {
        self.written = zones::offset(text).map(Zone::Offset);
        self.written.is_some()
    }

    /// The civil date here at `now`.
    pub(super) fn today(&self, now: Timestamp) -> Date {
        let quarter = now.seconds().div_euclid(QUARTER);
        let (known, date) = self.today.get();
        if known == quarter {
            return date;
        }
        let instant = jiff::Timestamp::from_second(now.seconds()).unwrap_or_default();
        let date = self.zone.to_datetime(instant).date();
        self.today.set((quarter, date));
        date
    }

    /// Seconds east of Greenwich here at `now`.
    fn offset(&self, now: Timestamp) -> i32 {
        let instant = jiff::Timestamp::from_second(now.seconds()).unwrap_or_default();
        self.zone.to_offset(instant).seconds()
    }

    /// When that was; `None` for a date that does not exist or a zone that nobody knows.
    ///
    /// A missing year is this one, or the last if that lies more than a day ahead; without month and
    /// day it is today, or yesterday if that lies ahead.
    pub(super) fn resolve(&self, pieces: &Pieces, now: Timestamp) -> Option<Timestamp> {
        if pieces.unix.is_some() {
            return pieces.unix;
        }
        let today = self.today(now);
        // `0000-00-00` and its kin are what some programs write when they know no date.
        let year = pieces.year.map_or(Some(today.year()), |year| (year > 0).then_some(year))?;
        let (date, no_day) = match (pieces.month, pieces.day) {
            (None, None) => match self.by_week_or_day(pieces, year)? {
                Some(date) => (Ok(date), false),
                None => (Date::new(year, today.month(), today.day()), pieces.year.is_none()),
            },
            (month, day) => {
                (Date::new(year, month.unwrap_or(today.month()), day.unwrap_or(1)), false)
            }
        };
        let date = date.ok()?;
        let at = self.instant(date, pieces)?;
        let zone = pieces.zone.or(self.written);
        // With a zone fail2ban compares Greenwich's clock with the one here.
        let ahead = if zone.is_some() { i64::from(self.offset(now)) } else { 0 };
        if no_day && at > now.seconds() + ahead {
            return self.instant(today.yesterday().ok()?, pieces).map(Timestamp::from_seconds);
        }
        if pieces.year.is_some() || no_day {
            return Some(Timestamp::from_seconds(at));
        }
        let Some(Zone::Offset(_)) = zone else {
            if at <= now.seconds() + DAY {
                return Some(Timestamp::from_seconds(at));
            }
            let last = Date::new(year - 1, date.month(), date.day()).ok()?;
            return self.instant(last, pieces).map(Timestamp::from_seconds);
        };
        // Last year's day is then the written one at Greenwich's time. Within hours of a year's difference it is as
        // good as any guess.
        if at <= now.seconds() + DAY + ahead {
            return Some(Timestamp::from_seconds(at));
        }
        let there = TimeZone::UTC.to_datetime(jiff::Timestamp::from_second(at).ok()?);
        let last = Date::new(there.year() - 1, date.month(), date.day()).ok()?;
        let at = TimeZone::UTC.to_timestamp(last.to_datetime(there.time())).ok()?.as_second();
        Some(Timestamp::from_seconds(at))
    }

    /// The date that a day of the year or a week's day names; the outer `None` is an impossible one.
    fn by_week_or_day(&self, pieces: &Pieces, year: i16) -> Option<Option<Date>> {
        let first = Date::new(year, 1, 1).ok()?;
        if let Some(day) = pieces.day_of_year {
            let date = first.checked_add(Span::new().days(i64::from(day) - 1)).ok()?;
            return (date.year() == year).then_some(Some(date));
        }
        let (Some(week), Some(weekday)) = (pieces.week, pieces.weekday) else { return Some(None) };
        let days = match week {
            Week::Iso(week) => {
                return ISOWeekDate::new(year, week, weekday).ok().map(|date| Some(date.date()));
            }
            Week::FromSunday(week) => {
                let begins = i64::from((7 - first.weekday().to_sunday_zero_offset()) % 7);
                begins + i64::from(weekday.to_sunday_zero_offset()) + 7 * (i64::from(week) - 1)
            }
            Week::FromMonday(week) => {
                let begins = i64::from((7 - first.weekday().to_monday_zero_offset()) % 7);
                begins + i64::from(weekday.to_monday_zero_offset()) + 7 * (i64::from(week) - 1)
            }
        };
        first.checked_add(Span::new().days(days)).ok().map(Some)
    }

    /// Unix seconds of the time of day in `pieces` on `date`.
    fn instant(&self, date: Date, pieces: &Pieces) -> Option<i64> {
        // A leap second has no place in Unix time: it is the second before, and one more.
        let leap = i64::from((pieces.second - 59).max(0));
        let time = DateTime::new(
            date.year(),
            date.month(),
            date.day(),
            pieces.hour,
            pieces.minute,
            pieces.second.min(59),
            0,
        )
        .ok()?;
        let at = match pieces.zone.or(self.written) {
            Some(Zone::Unknown) => return None,
            Some(Zone::Offset(east)) => {
                TimeZone::UTC.to_timestamp(time).ok()?.as_second() - i64::from(east)
            }
            None => self.zone.to_timestamp(time).ok()?.as_second(),
        };
        Some(at + leap)
    }
}
