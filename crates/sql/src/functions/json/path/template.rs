//! Reads dates and times for `.datetime()`: in ISO's forms, or by a template such as `HH24:MI`.

use chrono::{NaiveDate, NaiveTime};

use super::times::Time;
use crate::error::{Error, Result};
use crate::sqlstate;

/// The templates of `.datetime()` without one, tried in this order.
const FORMS: [&str; 13] = [
    "YYYY-MM-DD",
    "HH24:MI:SS.USTZH:TZM",
    "HH24:MI:SS.USTZH",
    "HH24:MI:SS.US",
    "HH24:MI:SSTZH:TZM",
    "HH24:MI:SSTZH",
    "HH24:MI:SS",
    "YYYY-MM-DD HH24:MI:SS.USTZH:TZM",
    "YYYY-MM-DD HH24:MI:SS.USTZH",
    "YYYY-MM-DD HH24:MI:SS.US",
    "YYYY-MM-DD HH24:MI:SSTZH:TZM",
    "YYYY-MM-DD HH24:MI:SSTZH",
    "YYYY-MM-DD HH24:MI:SS",
];

/// Reads a time in one of ISO's forms.
pub(super) fn read_any(text: &str) -> Option<Time> {
    FORMS.iter().find_map(|form| {
        let joined = form.replace(' ', "\"T\"");
        read(text, form).ok().or_else(|| read(text, &joined).ok())
    })
}

/// The fields that a template names.
const FIELDS: [&str; 13] =
    ["YYYY", "MM", "DD", "HH24", "HH12", "HH", "MI", "SS", "MS", "US", "TZH", "TZM", "AM"];

#[derive(Default)]
struct Fields {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    hour: Option<u32>,
    minute: Option<u32>,
    second: Option<u32>,
    micros: Option<u32>,
    zone_hours: Option<i32>,
    zone_minutes: Option<i32>,
    afternoon: Option<bool>,
}

fn wrong(message: impl Into<String>) -> Error {
    Error::invalid(message).code(sqlstate::INVALID_DATETIME_FORMAT)
}

/// Reads a time by a template.
pub(super) fn read(text: &str, form: &str) -> Result<Time> {
    let mut fields = Fields::default();
    let (mut rest, mut form) = (text.trim_start(), form);
    while !form.is_empty() {
        let known = FIELDS.iter().find(|name| {
            form.get(..name.len()).is_some_and(|start| {
                start.eq_ignore_ascii_case(name) || (**name == "AM" && start.eq_ignore_ascii_case("PM"))
            })
        });
        if let Some(name) = known {
            form = &form[name.len()..];
            rest = fields.read(name, rest)?;
            continue;
        }
        if let Some((literal, after)) = form.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            rest = rest
                .strip_prefix(literal)
                .ok_or_else(|| wrong(format!("unmatched format string \"{literal}\"")))?;
            form = after;
            continue;
        }
        let Some(separator) = form.chars().next() else { break };
        if separator.is_alphanumeric() {
            return Err(wrong(format!("invalid datetime format separator: \"{separator}\"")));
        }
        form = &form[separator.len_utf8()..];
        rest = rest
            .strip_prefix(separator)
            .ok_or_else(|| wrong(format!("unmatched format separator \"{separator}\"")))?;
    }
    match rest.trim_end().is_empty() {
        true => fields.time(),
        false => Err(wrong("trailing characters remain in input string after datetime format")),
    }
}

impl Fields {
    fn read<'a>(&mut self, name: &str, text: &'a str) -> Result<&'a str> {
        let invalid = || wrong(format!("invalid value \"{text}\" for \"{name}\""));
        if name == "AM" {
            let (half, rest) = text.split_at_checked(2).ok_or_else(invalid)?;
            self.afternoon = Some(match () {
                () if half.eq_ignore_ascii_case("am") => false,
                () if half.eq_ignore_ascii_case("pm") => true,
                () => return Err(invalid()),
            });
            return Ok(rest);
        }
        let (sign, digits) = match (name, text.as_bytes().first()) {
            ("TZH", Some(b'-')) => (-1, &text[1..]),
            ("TZH", Some(b'+')) => (1, &text[1..]),
            ("TZH", _) => return Err(invalid()),
            _ => (1, text),
        };
        let most = match name {
            "YYYY" => 4,
            "MS" => 3,
            "US" => 6,
            _ => 2,
        };
        let length = digits.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let value: u32 = digits[..length].parse().map_err(|_| invalid())?;
        match name {
            "YYYY" => self.year = i32::try_from(value).ok(),
            "MM" => self.month = Some(value),
            "DD" => self.day = Some(value),
            "HH24" | "HH12" | "HH" => self.hour = Some(value),
            "MI" => self.minute = Some(value),
            "SS" => self.second = Some(value),
            "MS" | "US" => {
                let missing = 6 - length as u32;
                self.micros = Some(value * 10_u32.pow(missing));
            }
            "TZH" => self.zone_hours = i32::try_from(value).ok().map(|hours| sign * hours),
            _ => self.zone_minutes = i32::try_from(value).ok(),
        }
        Ok(&digits[length..])
    }

    fn time(&self) -> Result<Time> {
        let out_of_range =
            || Error::invalid("date/time field value out of range").code(sqlstate::DATETIME_FIELD_OVERFLOW);
        let has_date = self.year.is_some() || self.month.is_some() || self.day.is_some();
        let has_time =
            self.hour.is_some() || self.minute.is_some() || self.second.is_some() || self.micros.is_some();
        let date =
            NaiveDate::from_ymd_opt(self.year.unwrap_or(1), self.month.unwrap_or(1), self.day.unwrap_or(1));
        let hour = match (self.hour.unwrap_or(0), self.afternoon) {
            (12, Some(false)) => 0,
            (hour @ 1..=11, Some(true)) => hour + 12,
            (hour, _) => hour,
        };
        let (minute, second, micros) =
            (self.minute.unwrap_or(0), self.second.unwrap_or(0), self.micros.unwrap_or(0));
        let time = NaiveTime::from_hms_micro_opt(hour, minute, second, micros);
        let zone = self.zone_hours.map(|hours| {
            let minutes = self.zone_minutes.unwrap_or(0);
            3_600 * hours + 60 * if hours < 0 { -minutes } else { minutes }
        });
        if zone.is_some_and(|zone| zone.abs() > 15 * 3_600 + 59 * 60) {
            return Err(out_of_range());
        }
        Ok(match (has_date, has_time, zone) {
            (true, false, None) => Time::Date(date.ok_or_else(out_of_range)?),
            (false, true, None) => Time::Clock(time.ok_or_else(out_of_range)?),
            (false, true, Some(zone)) => Time::ClockTz(time.ok_or_else(out_of_range)?, zone),
            (true, true, None) => {
                Time::Timestamp(date.ok_or_else(out_of_range)?.and_time(time.ok_or_else(out_of_range)?))
            }
            (true, true, Some(zone)) => {
                let both = date.ok_or_else(out_of_range)?.and_time(time.ok_or_else(out_of_range)?);
                Time::TimestampTz(both, zone)
            }
            _ => return Err(wrong("datetime format is not dated and not timed")),
        })
    }
}
