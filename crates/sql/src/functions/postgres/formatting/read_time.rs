//! Reads times by a pattern: `DCH_from_char` and `do_to_timestamp` of PostgreSQL's formatting.c.

use super::pattern::{Action, Convention, Field, Node, is_separator, is_space};
use super::write_time::{DAYS, MONTHS, ROMAN_MONTHS};
use crate::error::{Error, Result};
use crate::functions::postgres::calendar::{self, Date, EPOCH_JULIAN};
use crate::sqlstate;

/// A number that a pattern sets.
#[derive(Clone, Copy)]
enum Slot {
    Hour,
    Afternoon,
    Minute,
    Second,
    SecondOfDay,
    /// From 1, which is Sunday.
    DayOfWeek,
    Day,
    DayOfYear,
    Month,
    Millisecond,
    Year,
    BeforeChrist,
    Week,
    WeekOfMonth,
    Century,
    Julian,
    Microsecond,
    ZoneHours,
    ZoneMinutes,
    /// The number is read, but has no effect.
    Ignored,
}

const SLOTS: usize = Slot::Ignored as usize + 1;

/// The numbers that were read. As in PostgreSQL, 0 is one that wasn't.
#[derive(Default)]
struct Fields {
    numbers: [i64; SLOTS],
    convention: Option<Convention>,
    /// The digits of the year's pattern.
    year_digits: u32,
    /// True if hours are those of a clock with twelve.
    half_days: bool,
    zone_sign: i64,
}

/// A time that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The days since 1970.
    pub(super) days: i64,
    /// The microseconds of the day, in the zone of the text.
    pub(super) microseconds: i64,
    /// The seconds by which the zone of the text is ahead of UTC.
    pub(super) offset: i64,
    /// True if the text has an offset.
    pub(super) has_offset: bool,
}

/// Reads a text by a pattern.
pub(super) fn read(text: &str, nodes: &[Node]) -> Result<Parsed> {
    let mut reader = Reader { text, at: 0, skipped: 0, exact: false, fields: Fields::default() };
    reader.run(nodes)?;
    reader.fields.time(text)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The characters skipped in the text beyond those of the pattern.
    skipped: i64,
    exact: bool,
    fields: Fields,
}

impl Fields {
    fn get(&self, slot: Slot) -> i64 {
        self.numbers[slot as usize]
    }

    fn set(&mut self, slot: Slot, value: i64, action: &Action) -> Result<()> {
        if matches!(slot, Slot::Ignored) {
            return Ok(());
        }
        let number = &mut self.numbers[slot as usize];
        if *number != 0 && *number != value {
            return Err(wrong(format!(
                "conflicting values for \"{}\" field in formatting string: {number} and {value}",
                action.word.text
            )));
        }
        *number = value;
        Ok(())
    }
}

fn wrong(message: String) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_DATETIME_FORMAT)
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Skips one character, whatever it is.
    fn skip(&mut self) {
        self.at += self.next().map_or(0, char::len_utf8);
    }

    fn skip_spaces(&mut self) {
        while self.next().is_some_and(is_space) {
            self.at += 1;
            self.skipped += 1;
        }
    }

    fn run(&mut self, nodes: &[Node]) -> Result<()> {
        for (place, node) in nodes.iter().enumerate() {
            if self.rest().is_empty() {
                break;
            }
            let is_exact = matches!(node, Node::Action(Action { word, .. }) if word.field == Field::Exact);
            if !self.exact && !is_exact && (place == 0 || matches!(node, Node::Action(_))) {
                self.skip_spaces();
            }
            match node {
                Node::Separator(_) | Node::Space(_) if self.exact => self.skip(),
                Node::Separator(_) | Node::Space(_) => {
                    self.skipped -= 1;
                    if self.next().is_some_and(|c| is_space(c) || is_separator(c)) {
                        self.at += 1;
                        self.skipped += 1;
                    }
                }
                // Some characters of the text may have been skipped in place of this one.
                Node::Text(_) if !self.exact && self.skipped > 0 => self.skipped -= 1,
                Node::Text(_) => self.skip(),
                Node::Action(action) => {
                    self.field(action, nodes.get(place + 1))?;
                    if !self.exact {
                        self.skipped = 0;
                        self.skip_spaces();
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, action: &Action, next: Option<&Node>) -> Result<()> {
        if let Some(convention) = action.word.convention()
            && *self.fields.convention.get_or_insert(convention) != convention
        {
            return Err(wrong("invalid combination of date conventions".to_string())
                .hint("Do not mix Gregorian and ISO week date conventions in a formatting template."));
        }
        let number = |slot| Some((slot, action.word.length));
        let plain = match action.word.field {
            Field::Hour24 => number(Slot::Hour),
            Field::Minute => number(Slot::Minute),
            Field::Second => number(Slot::Second),
            Field::SecondOfDay => number(Slot::SecondOfDay),
            Field::MonthNumber => number(Slot::Month),
            Field::DayOfYear | Field::IsoDayOfYear => number(Slot::DayOfYear),
            Field::DayOfMonth => number(Slot::Day),
            Field::DayOfWeek => number(Slot::DayOfWeek),
            Field::WeekOfYear | Field::IsoWeek => number(Slot::Week),
            Field::WeekOfMonth => number(Slot::WeekOfMonth),
            Field::Quarter => number(Slot::Ignored),
            Field::Century => number(Slot::Century),
            Field::Julian => number(Slot::Julian),
            _ => None,
        };
        match plain {
            Some((slot, length)) => {
                let (value, _) = self.integer(action, length, next)?;
                self.fields.set(slot, value, action)?;
            }
            None => self.other_field(action, next)?,
        }
        // The suffix of an ordinal number has two characters.
        if action.ordinal.is_some() && action.word.is_digits() {
            self.skip();
            self.skip();
        }
        Ok(())
    }

    fn other_field(&mut self, action: &Action, next: Option<&Node>) -> Result<()> {
        let length = action.word.length;
        match action.word.field {
            Field::Exact => self.exact = true,
            Field::Hour12 => {
                let (hour, _) = self.integer(action, length, next)?;
                self.fields.half_days = true;
                self.fields.set(Slot::Hour, hour, action)?;
            }
            Field::Half { dots, .. } => {
                let half = self.one_of(action, if dots { &["a.m.", "p.m."] } else { &["am", "pm"] })?;
                self.fields.half_days = true;
                self.fields.set(Slot::Afternoon, half, action)?;
            }
            Field::Era { dots, .. } => {
                let era = self.one_of(action, if dots { &["a.d.", "b.c."] } else { &["ad", "bc"] })?;
                self.fields.set(Slot::BeforeChrist, era, action)?;
            }
            Field::Milliseconds => self.fraction(action, Slot::Millisecond, 3, 3, next)?,
            Field::Microseconds => self.fraction(action, Slot::Microsecond, 6, 6, next)?,
            Field::Fraction(digits) => {
                let length = usize::try_from(digits).unwrap_or(6);
                self.fraction(action, Slot::Microsecond, length, 6, next)?;
            }
            Field::ZoneName { .. } | Field::ZoneOffset => {
                let text = action.word.text;
                return Err(wrong(format!("formatting field \"{text}\" is only supported in to_char")));
            }
            Field::ZoneHours => {
                self.zone_sign();
                let (hours, _) = self.integer(action, length, next)?;
                self.fields.set(Slot::ZoneHours, hours, action)?;
            }
            Field::ZoneMinutes => {
                if self.fields.zone_sign == 0 {
                    self.fields.zone_sign = 1;
                }
                let (minutes, _) = self.integer(action, length, next)?;
                self.fields.set(Slot::ZoneMinutes, minutes, action)?;
            }
            Field::IsoDayOfWeek => {
                // The ISO week begins on Monday.
                let (day, _) = self.integer(action, length, next)?;
                self.fields.set(Slot::DayOfWeek, if day >= 7 { 1 } else { day + 1 }, action)?;
            }
            _ => self.date_field(action, next)?,
        }
        Ok(())
    }

    fn date_field(&mut self, action: &Action, next: Option<&Node>) -> Result<()> {
        let short = |name: &&'static str| name.get(..3).unwrap_or(name);
        match action.word.field {
            Field::Month(_) => {
                let month = self.one_of(action, &MONTHS)? + 1;
                self.fields.set(Slot::Month, month, action)?;
            }
            Field::ShortMonth(_) => {
                let month = self.one_of(action, &MONTHS.each_ref().map(short))? + 1;
                self.fields.set(Slot::Month, month, action)?;
            }
            Field::RomanMonth { .. } => {
                let month = 12 - self.one_of(action, &ROMAN_MONTHS)?;
                self.fields.set(Slot::Month, month, action)?;
            }
            Field::Day(_) => {
                let day = self.one_of(action, &DAYS)? + 1;
                self.fields.set(Slot::DayOfWeek, day, action)?;
            }
            Field::ShortDay(_) => {
                let day = self.one_of(action, &DAYS.each_ref().map(short))? + 1;
                self.fields.set(Slot::DayOfWeek, day, action)?;
            }
            Field::Year(digits) | Field::IsoYear(digits) => {
                let (year, used) = self.integer(action, action.word.length, next)?;
                let year = if digits < 4 && used < 4 { near_2020(year) } else { year };
                self.fields.set(Slot::Year, year, action)?;
                self.fields.year_digits = digits;
            }
            Field::YearWithComma => {
                let year = self.year_with_comma()?;
                self.fields.set(Slot::Year, year, action)?;
                self.fields.year_digits = 4;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a whole number. Returns it with the number of characters that it had.
    ///
    /// It has as many digits as there are if no digit can follow; otherwise it has exactly `length`.
    fn integer(&mut self, action: &Action, length: usize, next: Option<&Node>) -> Result<(i64, usize)> {
        let start = self.at;
        while self.next().is_some_and(is_space) {
            self.at += 1;
        }
        let rest = self.rest();
        let field = action.word.text;
        let shown: String = rest.chars().take(length).collect();
        let whole = if action.unfilled || ends_number(action, next) {
            digits(rest)
        } else {
            let hint = "If your source string is not fixed-width, try using the \"FM\" modifier.";
            if rest.len() < length {
                return Err(wrong(format!(
                    "source string too short for \"{field}\" formatting field: it requires {length} characters, but \
                     only {} remain",
                    rest.len()
                ))
                .hint(hint));
            }
            let found = digits(rest.get(..length).unwrap_or(&shown));
            if !found.is_empty() && found.len() < length {
                return Err(wrong(format!(
                    "invalid value \"{shown}\" for \"{field}\": it requires {length} characters, but only {} could be \
                     parsed",
                    found.len()
                ))
                .hint(hint));
            }
            found
        };
        if whole.is_empty() {
            return Err(wrong(format!(
                "invalid value \"{shown}\" for \"{field}\": a whole number was expected"
            )));
        }
        self.at += whole.len();
        match whole.trim_start_matches('+').parse::<i32>() {
            Ok(value) => Ok((i64::from(value), self.at - start)),
            Err(_) => Err(wrong(format!(
                "value for \"{field}\" in source string is out of range: '{}' is not between {} and {}",
                whole.chars().take(40).collect::<String>(),
                i32::MIN,
                i32::MAX
            ))
            .code(sqlstate::DATETIME_FIELD_OVERFLOW)),
        }
    }

    /// Reads a fraction of a second. `5` is 0.5 seconds, also where the pattern has more digits.
    fn fraction(
        &mut self,
        action: &Action,
        slot: Slot,
        length: usize,
        scale: u32,
        next: Option<&Node>,
    ) -> Result<()> {
        let (value, used) = self.integer(action, length, next)?;
        let missing = scale.saturating_sub(u32::try_from(used).unwrap_or(scale));
        self.fields.set(slot, value.saturating_mul(10_i64.pow(missing)), action)
    }

    /// Reads one of several names. Returns its place.
    fn one_of(&mut self, action: &Action, names: &[&str]) -> Result<i64> {
        let rest = self.rest();
        let starts =
            |name: &&str| rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        let Some(place) = names.iter().position(starts) else {
            let shown: String = rest.chars().take_while(|c| !is_space(*c)).take(40).collect();
            let expected = names.join(", ");
            let field = action.word.text;
            return Err(wrong(format!(
                "invalid value \"{shown}\" for \"{field}\": one of {expected} was expected"
            )));
        };
        self.at += names[place].len();
        Ok(i64::try_from(place).unwrap_or(0))
    }

    /// Reads the sign of a zone, which a separator of the pattern may have skipped.
    fn zone_sign(&mut self) {
        let before = self.text.get(..self.at).and_then(|read| read.chars().next_back());
        self.fields.zone_sign = match self.next() {
            Some(c @ ('+' | '-' | ' ')) => {
                self.at += 1;
                if c == '-' { -1 } else { 1 }
            }
            _ if self.skipped > 0 && before == Some('-') => -1,
            _ => 1,
        };
    }

    /// Reads `2,026`.
    fn year_with_comma(&mut self) -> Result<i64> {
        let rest = self.rest();
        let thousands = digits(rest);
        let years = rest.get(thousands.len()..).and_then(|rest| rest.strip_prefix(',')).map_or("", digits);
        let years = years.get(..3).unwrap_or(years);
        let number = |text: &str| text.parse::<i32>().ok().map(i64::from);
        match (number(thousands), number(years)) {
            (Some(high), Some(low)) => {
                self.at += thousands.len() + 1 + years.len();
                Ok(high * 1_000 + low)
            }
            _ => Err(wrong(format!("invalid input string for \"Y,YYY\": '{rest}'"))),
        }
    }
}

/// Returns the number at the start of a text, with its sign.
fn digits(text: &str) -> &str {
    let sign = usize::from(text.starts_with(['+', '-']));
    let count = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 { "" } else { &text[..sign + count] }
}

/// Returns true if no digit of another field can follow a number.
fn ends_number(action: &Action, next: Option<&Node>) -> bool {
    match next {
        _ if action.ordinal.is_some() => true,
        None => true,
        Some(Node::Action(next)) => !next.word.is_digits(),
        Some(Node::Separator(c) | Node::Space(c) | Node::Text(c)) => !c.is_ascii_digit(),
    }
}

/// Returns the year of fewer than four digits that is next to 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        ..70 => year + 2000,
        70..100 => year + 1900,
        100..520 => year + 2000,
        520..1000 => year + 1000,
        _ => year,
    }
}

/// The date while its parts are put together; none for parts that the text didn't set.
#[derive(Default)]
struct Parts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
}

impl Parts {
    fn set(&mut self, days: i64) {
        let Date { year, month, day } = Date::of_days(days);
        *self = Parts { year: Some(year), month: Some(month), day: Some(day) };
    }

    fn shown_year(&self) -> i64 {
        self.year.unwrap_or(0)
    }
}

impl Fields {
    fn time(self, text: &str) -> Result<Parsed> {
        let out_of_range = || {
            Error::invalid(format!("date/time field value out of range: \"{text}\""))
                .code(sqlstate::DATETIME_FIELD_OVERFLOW)
        };
        let date = self.date()?;
        let (year, month, day) = (date.shown_year(), date.month.unwrap_or(1), date.day.unwrap_or(1));
        let last = match (date.year, date.month) {
            (Some(year), Some(month)) => calendar::days_of_month(year, month),
            _ => 31,
        };
        if !(1..=12).contains(&month) || !(1..=last).contains(&day) || year.abs() > 300_000 {
            return Err(out_of_range());
        }
        let [hour, minute, second] = self.clock()?;
        let fraction = self.get(Slot::Millisecond) * 1_000 + self.get(Slot::Microsecond);
        let in_range = (0..24).contains(&hour)
            && (0..60).contains(&minute)
            && (0..60).contains(&second)
            && (0..1_000_000).contains(&fraction);
        let (zone_hours, zone_minutes) = (self.get(Slot::ZoneHours), self.get(Slot::ZoneMinutes));
        if !in_range || !(0..=15).contains(&zone_hours) || !(0..60).contains(&zone_minutes) {
            return Err(out_of_range());
        }
        Ok(Parsed {
            days: Date { year, month, day }.days(),
            microseconds: (hour * 3600 + minute * 60 + second) * 1_000_000 + fraction,
            offset: self.zone_sign * (zone_hours * 3600 + zone_minutes * 60),
            has_offset: self.zone_sign != 0,
        })
    }

    /// Returns the hour, the minute and the second.
    fn clock(&self) -> Result<[i64; 3]> {
        let of_day = self.get(Slot::SecondOfDay);
        let set = |slot: Slot, other: i64| if self.get(slot) != 0 { self.get(slot) } else { other };
        let mut hour = set(Slot::Hour, of_day / 3600);
        let minute = set(Slot::Minute, of_day / 60 % 60);
        let second = set(Slot::Second, of_day % 60);
        if self.half_days {
            if !(1..=12).contains(&hour) {
                return Err(Error::invalid(format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                    .hint("Use the 24-hour clock, or give an hour between 1 and 12.")
                    .code(sqlstate::DATETIME_FIELD_OVERFLOW));
            }
            hour = hour % 12 + 12 * self.get(Slot::Afternoon);
        }
        Ok([hour, minute, second])
    }

    fn date(&self) -> Result<Parts> {
        let mut date = Parts { year: self.year(), ..Parts::default() };
        if self.get(Slot::Julian) != 0 {
            date.set(self.get(Slot::Julian) - EPOCH_JULIAN);
        }
        let mut day_of_year = self.get(Slot::DayOfYear);
        let is_iso = self.convention == Some(Convention::Iso);
        let week = self.get(Slot::Week);
        if week != 0 && is_iso {
            // Without a day, it is the Monday of the week.
            let day = match self.get(Slot::DayOfWeek) {
                0 => 0,
                1 => 6,
                day => day - 2,
            };
            date.set(calendar::iso_week_start(date.shown_year(), week) + day);
        } else if week != 0 {
            day_of_year = (week - 1) * 7 + 1;
        }
        if self.get(Slot::WeekOfMonth) != 0 {
            date.day = Some((self.get(Slot::WeekOfMonth) - 1) * 7 + 1);
        } else if self.get(Slot::Day) != 0 {
            date.day = Some(self.get(Slot::Day));
        }
        if self.get(Slot::Month) != 0 {
            date.month = Some(self.get(Slot::Month));
        }
        if day_of_year != 0 && (date.month.unwrap_or(1) <= 1 || date.day.unwrap_or(1) <= 1) {
            if date.shown_year() == 0 && self.get(Slot::BeforeChrist) == 0 {
                return Err(wrong("cannot calculate day of year without year information".to_string()));
            }
            self.set_day_of_year(&mut date, day_of_year, is_iso);
        }
        Ok(date)
    }

    fn set_day_of_year(&self, date: &mut Parts, day_of_year: i64, is_iso: bool) {
        let year = date.shown_year();
        if is_iso {
            return date.set(calendar::iso_week_start(year, 1) - 1 + day_of_year);
        }
        let (mut month, mut day) = (1, day_of_year);
        while month <= 12 && day > calendar::days_of_month(year, month) {
            day -= calendar::days_of_month(year, month);
            month += 1;
        }
        if date.month.unwrap_or(1) <= 1 {
            date.month = Some(month);
        }
        if date.day.unwrap_or(1) <= 1 {
            date.day = Some(day);
        }
    }

    /// Returns the year, which a century may complete.
    fn year(&self) -> Option<i64> {
        let before_christ = self.get(Slot::BeforeChrist) != 0;
        let century = self.get(Slot::Century) * if before_christ { -1 } else { 1 };
        let year = self.get(Slot::Year);
        match (year, century) {
            (0, 0) => None,
            (0, century) => Some(if century >= 0 { (century - 1) * 100 + 1 } else { century * 100 + 1 }),
            (year, century) if century != 0 && self.year_digits <= 2 => Some(match (year % 100, century) {
                (0, century) => century * 100 + i64::from(century < 0),
                (year, century) if century > 0 => (century - 1) * 100 + year,
                (year, century) => (century + 1) * 100 - year + 1,
            }),
            (year, _) => {
                let year = if before_christ { -year } else { year };
                // There is no year 0: the year before 1 is 1 BC.
                Some(if year < 0 { year + 1 } else { year })
            }
        }
    }
}
