//! Writes times and intervals by a pattern: `DCH_to_char` of PostgreSQL's formatting.c.

use std::fmt::Write;

use arrow::datatypes::IntervalMonthDayNano;

use super::pattern::{Action, Case, Field, Node};
use super::write_number::ordinal_suffix;
use crate::error::{Error, Result};
use crate::functions::postgres::calendar::{self, Date, EPOCH_JULIAN};
use crate::functions::postgres::time_parts::{SECOND, ShownZone};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The months' Roman numerals, from December to January.
pub(super) const ROMAN_MONTHS: [&str; 12] =
    ["XII", "XI", "X", "IX", "VIII", "VII", "VI", "V", "IV", "III", "II", "I"];

/// A time or an interval in the parts that fields show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    date: Date,
    hour: i64,
    minute: i64,
    second: i64,
    microsecond: i64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Zoned(ShownZone),
    Interval,
}

impl Moment {
    /// Returns the parts of a time: the days since 1970 and the nanoseconds of the day, both of the zone.
    pub(super) fn of_day(days: i64, nanoseconds: i64, zone: Option<ShownZone>) -> Moment {
        let clock = nanoseconds / SECOND;
        Moment {
            date: Date::of_days(days),
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
            microsecond: nanoseconds % SECOND / 1_000,
            kind: zone.map_or(Kind::Local, Kind::Zoned),
        }
    }

    /// Returns the seconds by which the zone is ahead of UTC.
    fn offset(&self) -> i64 {
        match self.kind {
            Kind::Zoned(zone) => zone.offset,
            Kind::Local | Kind::Interval => 0,
        }
    }

    /// Returns the parts of an interval. Each has the interval's own sign.
    pub(super) fn of_interval(interval: IntervalMonthDayNano) -> Moment {
        let microseconds = interval.nanoseconds / 1_000;
        let seconds = microseconds / 1_000_000;
        let months = i64::from(interval.months);
        Moment {
            date: Date { year: months / 12, month: months % 12, day: i64::from(interval.days) },
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            microsecond: microseconds % 1_000_000,
            kind: Kind::Interval,
        }
    }

    fn is_interval(&self) -> bool {
        self.kind == Kind::Interval
    }

    fn day_of_week(&self) -> i64 {
        calendar::day_of_week(self.date.days())
    }

    /// Returns the day of the year, or about how many days an interval has.
    fn day_of_year(&self) -> i64 {
        match self.is_interval() {
            true => (self.date.year * 12 + self.date.month) * 30 + self.date.day,
            false => self.date.day_of_year(),
        }
    }

    /// Returns a year as it is shown: the one before 1 is 1 BC.
    fn shown_year(&self, year: i64) -> i64 {
        if self.is_interval() || year > 0 { year } else { 1 - year }
    }

    fn iso_year(&self) -> i64 {
        // Parts of an interval are no date; PostgreSQL shows the year of the day with these numbers.
        self.date.iso_week().0
    }
}

/// Writes a moment by a pattern.
pub(super) fn write(out: &mut String, moment: &Moment, nodes: &[Node]) -> Result<()> {
    for node in nodes {
        match node {
            Node::Action(action) => write_field(out, moment, action)?,
            Node::Separator(c) | Node::Space(c) | Node::Text(c) => out.push(*c),
        }
    }
    Ok(())
}

fn write_field(out: &mut String, moment: &Moment, action: &Action) -> Result<()> {
    if moment.is_interval() && is_of_date(action.word.field) {
        return Err(Error::invalid(format!(
            "invalid format specification for an interval value: \"{}\" is a part of a date",
            action.word.text
        ))
        .hint("Intervals are not tied to specific calendar dates."));
    }
    let start = out.len();
    let is_number = match number(moment, action) {
        Some((value, width)) => {
            let width = if action.unfilled && !is_fixed(action.word.field) { 0 } else { width };
            put(out, value, width);
            true
        }
        None => name(out, moment, action),
    };
    if let Some(upper) = action.ordinal
        && is_number
        && out.len() > start
    {
        let suffix = ordinal_suffix(&out[start..], upper);
        out.push_str(suffix);
    }
    Ok(())
}

/// Returns true for fields that an interval doesn't have.
fn is_of_date(field: Field) -> bool {
    matches!(
        field,
        Field::Era { .. }
            | Field::Month(_)
            | Field::ShortMonth(_)
            | Field::Day(_)
            | Field::ShortDay(_)
            | Field::DayOfWeek
            | Field::IsoDayOfWeek
            | Field::ZoneHours
            | Field::ZoneMinutes
            | Field::ZoneName { .. }
            | Field::ZoneOffset
    )
}

/// Returns true for numbers that `FM` doesn't shorten.
fn is_fixed(field: Field) -> bool {
    matches!(field, Field::Fraction(_) | Field::Milliseconds | Field::Microseconds)
}

/// Writes a number with zeros up to a width, in which a sign counts.
fn put(out: &mut String, value: i64, width: usize) {
    // Writing to a text doesn't fail.
    let _ = write!(out, "{value:0width$}");
}

/// Returns the number of a field and its width.
fn number(moment: &Moment, action: &Action) -> Option<(i64, usize)> {
    let date = moment.date;
    // A negative number is one wider.
    let wide = |value: i64, width: usize| Some((value, if value >= 0 { width } else { width + 1 }));
    let last_digits = |year: i64, digits: u32| {
        let shown = moment.shown_year(year);
        let value = if digits >= 4 { shown } else { shown % 10_i64.pow(digits) };
        let width = usize::try_from(digits).unwrap_or(4);
        Some((value, if shown >= 0 || digits == 1 { width } else { width + 1 }))
    };
    match action.word.field {
        Field::Hour24 => wide(moment.hour, 2),
        Field::Hour12 => {
            let hour = if moment.hour % 12 == 0 { 12 } else { moment.hour % 12 };
            Some((hour, if moment.hour >= 0 { 2 } else { 3 }))
        }
        Field::Minute => wide(moment.minute, 2),
        Field::Second => wide(moment.second, 2),
        Field::Fraction(digits) => {
            let value = moment.microsecond / 10_i64.pow(6_u32.saturating_sub(digits));
            Some((value, usize::try_from(digits).unwrap_or(6)))
        }
        Field::Milliseconds => Some((moment.microsecond / 1_000, 3)),
        Field::Microseconds => Some((moment.microsecond, 6)),
        Field::SecondOfDay => Some((moment.hour * 3600 + moment.minute * 60 + moment.second, 0)),
        Field::MonthNumber => wide(date.month, 2),
        Field::DayOfYear => Some((moment.day_of_year(), 3)),
        Field::IsoDayOfYear => Some((date.iso_day_of_year(), 3)),
        Field::DayOfMonth => Some((date.day, 2)),
        Field::DayOfWeek => Some((moment.day_of_week() + 1, 0)),
        Field::IsoDayOfWeek => Some(((moment.day_of_week() + 6) % 7 + 1, 0)),
        Field::WeekOfYear => Some(((moment.day_of_year() - 1) / 7 + 1, 2)),
        Field::WeekOfMonth => Some(((date.day - 1) / 7 + 1, 0)),
        Field::IsoWeek => Some((date.iso_week().1, 2)),
        Field::Quarter if date.month != 0 => Some(((date.month - 1) / 3 + 1, 0)),
        Field::Century => {
            let century = match date.year {
                year if moment.is_interval() => year / 100,
                year if year > 0 => (year - 1) / 100 + 1,
                year => year / 100 - 1,
            };
            if century.abs() <= 99 { wide(century, 2) } else { Some((century, 0)) }
        }
        Field::Year(digits) => last_digits(date.year, digits),
        Field::IsoYear(digits) => last_digits(moment.iso_year(), digits),
        Field::Julian => Some((date.days() + EPOCH_JULIAN, 0)),
        _ => None,
    }
}

/// Writes a field that is no plain number. Returns true if an ordinal suffix may follow.
fn name(out: &mut String, moment: &Moment, action: &Action) -> bool {
    let unfilled = action.unfilled || action.translated;
    let month = usize::try_from(moment.date.month - 1).ok().and_then(|at| MONTHS.get(at));
    let day = usize::try_from(moment.day_of_week()).ok().and_then(|at| DAYS.get(at));
    let short = |name: &&'static str| name.get(..3).unwrap_or(name);
    match action.word.field {
        Field::Month(case) => padded(out, month.copied(), case, if unfilled { 0 } else { 9 }),
        Field::ShortMonth(case) => padded(out, month.map(short), case, 0),
        Field::Day(case) => padded(out, day.copied(), case, if unfilled { 0 } else { 9 }),
        Field::ShortDay(case) => padded(out, day.map(short), case, 0),
        Field::RomanMonth { upper } => {
            let case = if upper { Case::Upper } else { Case::Lower };
            padded(out, roman_month(moment), case, if action.unfilled { 0 } else { 4 });
        }
        Field::Era { dots, upper } => out.push_str(match (moment.date.year <= 0, dots, upper) {
            (true, true, true) => "B.C.",
            (true, true, false) => "b.c.",
            (true, false, true) => "BC",
            (true, false, false) => "bc",
            (false, true, true) => "A.D.",
            (false, true, false) => "a.d.",
            (false, false, true) => "AD",
            (false, false, false) => "ad",
        }),
        Field::Half { dots, upper } => out.push_str(match (moment.hour % 24 >= 12, dots, upper) {
            (true, true, true) => "P.M.",
            (true, true, false) => "p.m.",
            (true, false, true) => "PM",
            (true, false, false) => "pm",
            (false, true, true) => "A.M.",
            (false, true, false) => "a.m.",
            (false, false, true) => "AM",
            (false, false, false) => "am",
        }),
        Field::YearWithComma => {
            let year = moment.shown_year(moment.date.year);
            put(out, year / 1_000, 0);
            out.push(',');
            put(out, year % 1_000, 3);
            return true;
        }
        Field::ZoneName { upper } => {
            if let Kind::Zoned(zone) = moment.kind {
                let name = zone.abbreviation();
                out.push_str(&if upper { name.to_uppercase() } else { name.to_lowercase() });
            }
        }
        Field::ZoneHours => zone_hours(out, moment, 2),
        Field::ZoneMinutes => put(out, moment.offset().abs() / 60 % 60, 2),
        Field::ZoneOffset => {
            zone_hours(out, moment, if action.unfilled { 1 } else { 2 });
            if moment.offset() % 3_600 != 0 {
                out.push(':');
                put(out, moment.offset().abs() / 60 % 60, 2);
            }
        }
        _ => {}
    }
    false
}

/// Writes the hours by which the zone is ahead of UTC, with their sign.
fn zone_hours(out: &mut String, moment: &Moment, width: usize) {
    out.push(if moment.offset() < 0 { '-' } else { '+' });
    put(out, moment.offset().abs() / 3_600, width);
}

fn roman_month(moment: &Moment) -> Option<&'static str> {
    let place = match (moment.date.month, moment.date.year) {
        (0, 0) => return None,
        // Whole years of an interval.
        (0, year) => {
            if year > 0 {
                0
            } else {
                11
            }
        }
        (month, _) if month < 0 => -(month + 1),
        (month, _) => 12 - month,
    };
    usize::try_from(place).ok().and_then(|place| ROMAN_MONTHS.get(place).copied())
}

/// Writes a name, with blanks behind it up to a width.
fn padded(out: &mut String, name: Option<&str>, case: Case, width: usize) {
    let Some(name) = name else { return };
    let cased = match case {
        Case::Upper => name.to_uppercase(),
        Case::Capital => name.to_string(),
        Case::Lower => name.to_lowercase(),
    };
    // Writing to a text doesn't fail.
    let _ = write!(out, "{cased:width$}");
}
