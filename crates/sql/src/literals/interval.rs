//! Intervals as text: `1 year 2 mons`, `1-2`, `3 04:05:06`, `P1Y2M3DT4H5M6S`, `2 hours ago`.

use arrow::datatypes::IntervalMonthDayNano;

const EXPECTED: &str =
    "numbers with units (1 day 2 hours), years-months (1-2), hours:minutes:seconds or ISO 8601 (P1DT2H)";

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// Parses an interval.
pub(crate) fn read(text: &str) -> Result<IntervalMonthDayNano, &'static str> {
    let text = text.trim().to_ascii_lowercase();
    let mut sum = Sum::default();
    match text.strip_prefix('p') {
        Some(rest) => sum.iso(rest)?,
        None => sum.words(text.strip_prefix('@').unwrap_or(&text))?,
    }
    sum.finish()
}

/// Writes an interval as text that every interval parser reads.
pub(crate) fn spell(interval: IntervalMonthDayNano) -> String {
    let sign = if interval.nanoseconds < 0 { "-" } else { "" };
    let nanoseconds = interval.nanoseconds.unsigned_abs();
    format!(
        "{} mons {} days {sign}{}.{:09} secs",
        interval.months,
        interval.days,
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000
    )
}

#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    nanoseconds: i128,
}

/// Parses a number in billionths.
fn number(text: &str) -> Result<i128, &'static str> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let valid = |text: &str| text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !valid(whole) || !valid(fraction) || digits.len() == digits.matches('.').count() {
        return Err(EXPECTED);
    }
    let fraction = format!("{fraction:0<9.9}").parse::<i128>().map_err(|_| EXPECTED)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().map_err(|_| EXPECTED)? };
    let value = whole * SECOND + fraction;
    Ok(if negative { -value } else { value })
}

impl Sum {
    /// Adds billionths of months. A fraction of a month becomes days.
    fn months(&mut self, amount: i128) {
        self.months += amount / SECOND;
        self.days(amount % SECOND * 30);
    }

    fn days(&mut self, amount: i128) {
        self.days += amount / SECOND;
        self.nanoseconds += amount % SECOND * (DAY / SECOND);
    }

    fn add(&mut self, amount: i128, unit: &str) -> Result<(), &'static str> {
        let of_seconds = |seconds: i128| amount * seconds;
        match unit {
            "millennium" | "millennia" | "millenniums" | "mil" | "mils" => self.months(amount * 12_000),
            "century" | "centuries" | "cent" | "c" => self.months(amount * 1_200),
            "decade" | "decades" | "dec" | "decs" => self.months(amount * 120),
            "year" | "years" | "yr" | "yrs" | "y" => {
                // A fraction of a year becomes whole months, as in PostgreSQL.
                self.months += (amount * 12 + (SECOND / 2) * amount.signum()) / SECOND;
            }
            "quarter" | "quarters" | "qtr" => self.months(amount * 3),
            "month" | "months" | "mon" | "mons" => self.months(amount),
            "week" | "weeks" | "w" => self.days(amount * 7),
            "day" | "days" | "d" => self.days(amount),
            "hour" | "hours" | "hr" | "hrs" | "h" => self.nanoseconds += of_seconds(3600),
            "minute" | "minutes" | "min" | "mins" | "m" => self.nanoseconds += of_seconds(60),
            "second" | "seconds" | "sec" | "secs" | "s" => self.nanoseconds += amount,
            "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => self.nanoseconds += amount / 1_000,
            "microsecond" | "microseconds" | "usec" | "usecs" | "us" => {
                self.nanoseconds += amount / 1_000_000
            }
            "nanosecond" | "nanoseconds" | "nsec" | "nsecs" | "ns" => self.nanoseconds += amount / SECOND,
            _ => return Err(EXPECTED),
        }
        Ok(())
    }

    fn words(&mut self, text: &str) -> Result<(), &'static str> {
        let mut words = split(text);
        let ago = words.last() == Some(&"ago");
        if ago {
            words.pop();
        }
        if words.is_empty() {
            return Err(EXPECTED);
        }
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            if word.contains(':') {
                self.time(word)?;
            } else if let Some((years, months)) = word.trim_start_matches(['-', '+']).split_once('-') {
                let total = number(years)? * 12 + number(months)?;
                self.months(if word.starts_with('-') { -total } else { total });
            } else {
                let amount = number(word)?;
                match words.peek() {
                    Some(unit) if unit.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                        let unit = words.next().unwrap_or_default();
                        self.add(amount, unit)?;
                    }
                    // `1 02:03:04` is a number of days and a time.
                    Some(time) if time.contains(':') => self.days(amount),
                    Some(_) => return Err(EXPECTED),
                    None => self.nanoseconds += amount,
                }
            }
        }
        if ago {
            (self.months, self.days, self.nanoseconds) = (-self.months, -self.days, -self.nanoseconds);
        }
        Ok(())
    }

    fn time(&mut self, word: &str) -> Result<(), &'static str> {
        let parts: Vec<&str> = word.trim_start_matches(['-', '+']).split(':').collect();
        let seconds = match parts[..] {
            [hours, minutes] => number(hours)? * 3600 + number(minutes)? * 60,
            [hours, minutes, seconds] => number(hours)? * 3600 + number(minutes)? * 60 + number(seconds)?,
            _ => return Err(EXPECTED),
        };
        self.nanoseconds += if word.starts_with('-') { -seconds } else { seconds };
        Ok(())
    }

    fn iso(&mut self, text: &str) -> Result<(), &'static str> {
        let (date, time) = match text.split_once('t') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        if date.is_empty() && time.is_none_or(str::is_empty) {
            return Err(EXPECTED);
        }
        for (part, units) in [(date, ["y", "mon", "w", "d"]), (time.unwrap_or(""), ["h", "min", "s", "s"])] {
            let mut words = split(part).into_iter();
            while let Some(amount) = words.next() {
                let unit = match words.next() {
                    Some("m") => units[1],
                    Some(unit) if units.contains(&unit) => unit,
                    _ => return Err(EXPECTED),
                };
                self.add(number(amount)?, unit)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<IntervalMonthDayNano, &'static str> {
        const TOO_LARGE: &str = "an interval of at most 178,000,000 years";
        let narrow = |value: i128| i32::try_from(value).map_err(|_| TOO_LARGE);
        let nanoseconds =
            i64::try_from(self.nanoseconds).map_err(|_| "at most 292 years of hours and less")?;
        Ok(IntervalMonthDayNano::new(narrow(self.months)?, narrow(self.days)?, nanoseconds))
    }
}

/// Splits a text into words, at spaces and where letters begin or end: `1day` is two words.
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for part in text.split_ascii_whitespace() {
        let mut rest = part;
        while let Some(first) = rest.chars().next() {
            let letters = first.is_ascii_alphabetic();
            let end = rest.find(|c: char| c.is_ascii_alphabetic() != letters).unwrap_or(rest.len());
            words.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, months: i32, days: i32, nanoseconds: i64) {
        let expected = IntervalMonthDayNano::new(months, days, nanoseconds);
        assert_eq!(read(text), Ok(expected), "{text}");
        assert_eq!(read(&spell(expected)), Ok(expected), "{text}");
    }

    #[test]
    fn intervals_are_read() {
        let second = 1_000_000_000;
        check("1 day", 0, 1, 0);
        check("1 year 2 mons 3 days 04:05:06.5", 14, 3, 14_706_500_000_000);
        check("1-2", 14, 0, 0);
        check("-1-2", -14, 0, 0);
        check("1 02:03:04", 0, 1, 7384 * second);
        check("-00:00:01", 0, 0, -second);
        check("P1Y2M3DT4H5M6.5S", 14, 3, 14_706_500_000_000);
        check("PT-1.5S", 0, 0, -1_500_000_000);
        check("P2W", 0, 14, 0);
        check("@ 1 day 2 hours ago", 0, -1, -7200 * second);
        check("1.5 days", 0, 1, 43_200 * second);
        check("1.5 months", 1, 15, 0);
        check("1.5 years", 18, 0, 0);
        check("2h30m", 0, 0, 9000 * second);
        check("90", 0, 0, 90 * second);
        check("1 century", 1200, 0, 0);
        check("1 us", 0, 0, 1000);
    }

    #[test]
    fn what_is_no_interval_fails() {
        for text in
            ["", "day", "1 foo", "1 2 days", "1:2:3:4", "P", "PT", "P1H", "1..5 days", "1 day x", "ago"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("9999999999 years").is_err());
    }
}
