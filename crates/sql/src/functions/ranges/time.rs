//! Dates and timestamps as the bounds of ranges: nanoseconds since 1970, also those that Arrow's types can't hold.

use crate::functions::postgres::ZoneOffsets;
use crate::functions::postgres::calendar::{self, Date};
use crate::functions::time_text;

/// A day in nanoseconds.
pub(super) const DAY: i128 = 86_400_000_000_000;

const SECOND: i128 = 1_000_000_000;

/// The words `infinity` and `-infinity`.
pub(super) const FOREVER: i128 = i128::MAX;
pub(super) const ALWAYS: i128 = i128::MIN;

/// The reason why a text is no time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Syntax,
    /// A field such as the month is out of range.
    Field,
}

/// Reads a date or timestamp; the offset of a zone is subtracted only if `zoned`.
pub(super) fn read(text: &str, zoned: bool) -> Result<i128, Wrong> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" => return Ok(FOREVER),
        "-infinity" => return Ok(ALWAYS),
        "epoch" => return Ok(0),
        _ => {}
    }
    let (text, before_christ) = match text.len().checked_sub(3).and_then(|at| text.split_at_checked(at)) {
        Some((rest, era)) if era.eq_ignore_ascii_case(" bc") => (rest.trim_end(), true),
        Some((rest, era)) if era.eq_ignore_ascii_case(" ad") => (rest.trim_end(), false),
        _ => (text, false),
    };
    let mut fields = Fields(text);
    let days = date(&mut fields, before_christ)?;
    if fields.0.is_empty() {
        return Ok(days * DAY);
    }
    if !fields.skip('T') && !fields.skip('t') && !fields.blanks() {
        return Err(Wrong::Syntax);
    }
    let time = if fields.0.starts_with(|next: char| next.is_ascii_digit()) { clock(&mut fields)? } else { 0 };
    fields.blanks();
    let offset = zone(&mut fields)?;
    if !fields.0.is_empty() {
        return Err(Wrong::Syntax);
    }
    Ok(days * DAY + time - if zoned { offset } else { 0 })
}

fn date(fields: &mut Fields<'_>, before_christ: bool) -> Result<i128, Wrong> {
    let (year, digits) = fields.number()?;
    let (year, month, day) = if fields.skip('-') {
        let (month, _) = fields.number()?;
        if !fields.skip('-') {
            return Err(Wrong::Syntax);
        }
        (year, month, fields.number()?.0)
    } else if digits == 8 {
        (year / 10_000, year / 100 % 100, year % 100)
    } else {
        return Err(Wrong::Syntax);
    };
    if digits < 3 {
        return Err(Wrong::Syntax);
    }
    if year == 0 || !(1..=12).contains(&month) {
        return Err(Wrong::Field);
    }
    let year = if before_christ { 1 - i64::from(year) } else { year.into() };
    let (month, day) = (month.into(), day.into());
    if day == 0 || day > calendar::days_of_month(year, month) {
        return Err(Wrong::Field);
    }
    Ok(Date { year, month, day }.days().into())
}

fn clock(fields: &mut Fields<'_>) -> Result<i128, Wrong> {
    let (hour, _) = fields.number()?;
    if !fields.skip(':') {
        return Err(Wrong::Syntax);
    }
    let (minute, _) = fields.number()?;
    let second = if fields.skip(':') { fields.number()?.0 } else { 0 };
    let fraction = if fields.skip('.') { fields.fraction() } else { 0 };
    let whole = i128::from(hour) * 3600 + i128::from(minute) * 60 + i128::from(second);
    let time = whole * SECOND + fraction;
    let is_time = hour <= 24 && minute <= 59 && second <= 60 && time <= DAY;
    if is_time { Ok(time) } else { Err(Wrong::Field) }
}

/// Reads the offset of a zone: `Z`, `UTC`, `+02`, `-03:30`.
fn zone(fields: &mut Fields<'_>) -> Result<i128, Wrong> {
    let rest = fields.0.trim_end();
    if ["z", "utc", "gmt"].iter().any(|name| rest.eq_ignore_ascii_case(name)) {
        fields.0 = "";
        return Ok(0);
    }
    let sign = match () {
        () if fields.skip('+') => 1,
        () if fields.skip('-') => -1,
        () => return Ok(0),
    };
    let (hours, digits) = fields.number()?;
    let (hours, mut minutes) = if digits > 2 { (hours / 100, hours % 100) } else { (hours, 0) };
    if fields.skip(':') {
        minutes = fields.number()?.0;
    }
    let seconds = if fields.skip(':') { fields.number()?.0 } else { 0 };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(Wrong::Field);
    }
    Ok(sign * (i128::from(hours) * 3600 + i128::from(minutes) * 60 + i128::from(seconds)) * SECOND)
}

/// The rest of a text.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn skip(&mut self, expected: char) -> bool {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn blanks(&mut self) -> bool {
        let rest = self.0.trim_start();
        let found = rest.len() < self.0.len();
        self.0 = rest;
        found
    }

    /// Reads a number and the count of its digits.
    fn number(&mut self) -> Result<(u32, usize), Wrong> {
        let end = self.0.find(|next: char| !next.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        self.0 = rest;
        if digits.is_empty() {
            return Err(Wrong::Syntax);
        }
        // The years of PostgreSQL have at most seven digits.
        let number = digits.parse().ok().filter(|_| digits.len() <= 8).ok_or(Wrong::Field)?;
        Ok((number, digits.len()))
    }

    /// Reads the digits after a point as nanoseconds.
    fn fraction(&mut self) -> i128 {
        let end = self.0.find(|next: char| !next.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        self.0 = rest;
        let nine = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
        nine.fold(0, |sum, digit| sum * 10 + i128::from(digit.saturating_sub(b'0')))
    }
}

/// The parts of a time that a type shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Date,
    Timestamp,
    Timestamptz,
}

/// Appends a time as PostgreSQL writes it, with up to nine digits of a second.
pub(super) fn push(time: i128, form: Form, out: &mut String) {
    match time {
        FOREVER => return out.push_str("infinity"),
        ALWAYS => return out.push_str("-infinity"),
        _ => {}
    }
    // Other times are those of years with at most eight digits.
    let parts = (time.div_euclid(SECOND) as i64, time.rem_euclid(SECOND) as i64);
    match form {
        Form::Date => time_text::date(out, parts.0),
        Form::Timestamp => time_text::timestamp(out, parts, None),
        Form::Timestamptz => time_text::timestamp(out, parts, Some(&ZoneOffsets::default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, form: Form, expected: &str) {
        let mut out = String::new();
        push(read(given, form == Form::Timestamptz).unwrap(), form, &mut out);
        assert_eq!(out, expected, "{given}");
    }

    #[test]
    fn times_are_shown_as_read() {
        for text in ["2024-02-29", "0001-01-01", "0044-03-15 BC", "10000-12-31", "infinity", "-infinity"] {
            check(text, Form::Date, text);
        }
        check("20240229", Form::Date, "2024-02-29");
        check("2024-1-2 10:00", Form::Timestamp, "2024-01-02 10:00:00");
        check("2024-01-02T10:00:00.250Z", Form::Timestamp, "2024-01-02 10:00:00.25");
        check("2024-01-02 24:00", Form::Timestamp, "2024-01-03 00:00:00");
        check("2024-01-02 10:00:00+05", Form::Timestamp, "2024-01-02 10:00:00");
        check("2024-01-02 10:00:00+05:30", Form::Timestamptz, "2024-01-02 04:30:00+00");
        check("1969-12-31 23:59:59.999999999-0100", Form::Timestamptz, "1970-01-01 00:59:59.999999999+00");
        check("epoch", Form::Timestamptz, "1970-01-01 00:00:00+00");
    }

    #[test]
    fn other_texts_are_no_times() {
        for wrong in
            ["", "x", "2024", "2024-01", "1-2-3", "2024-01-01x", "2024-01-01 10", "2024-01-01 10:00 é"]
        {
            assert_eq!(read(wrong, true), Err(Wrong::Syntax), "{wrong}");
        }
        for wrong in ["2024-13-01", "2023-02-29", "0000-01-01", "999999999-01-01", "2024-01-01 25:00"] {
            assert_eq!(read(wrong, true), Err(Wrong::Field), "{wrong}");
        }
    }
}
