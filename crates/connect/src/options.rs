//! The `WITH (…)` options of a source or a sink.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result};

/// An option, as in the reference page and in messages.
#[derive(Clone, Copy, Debug)]
pub struct OptionDoc {
    /// Its name. `<column>` in it stands for the name of any column.
    pub name: &'static str,
    /// Its default, in words or as a value; `None` if the option is required.
    pub default: Option<&'static str>,
    /// Its documentation, one sentence.
    pub doc: &'static str,
}

impl OptionDoc {
    /// Returns true if `name` is this option.
    fn is_named(&self, name: &str) -> bool {
        match self.name.split_once("<column>") {
            None => self.name == name,
            Some((before, after)) => {
                let column = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                column.is_some_and(|column| !column.is_empty())
            }
        }
    }
}

/// Options by lower-case name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(pub BTreeMap<String, String>);

impl Options {
    /// Returns the value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the value of `name`. Fails if it is absent.
    pub fn require(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| Error::Invalid(format!("option '{name}' is missing: add {name} = '…'")))
    }

    /// Returns the value of `name` parsed as a `T`; `what` describes the expected value in words.
    pub fn parse<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let value = text
            .parse()
            .map_err(|_| Error::Invalid(format!("option '{name}' is '{text}', but {what} was expected")))?;
        Ok(Some(value))
    }

    /// Returns the value of `name` as a duration: a number with a unit, as in '100 ms' or '1.5 seconds'.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            Error::Invalid(format!(
                "option '{name}' is '{text}', but a length of time was expected, such as '100 ms', '5 seconds', '1 minute'"
            ))
        };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let number: f64 = trimmed[..split].parse().map_err(|_| wrong())?;
        let unit_seconds = match trimmed[split..].trim().to_ascii_lowercase().as_str() {
            "us" | "microsecond" | "microseconds" => 1e-6,
            "ms" | "millisecond" | "milliseconds" => 1e-3,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "min" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            "" if number == 0.0 => 0.0,
            _ => return Err(wrong()),
        };
        Duration::try_from_secs_f64(number * unit_seconds).map(Some).map_err(|_| wrong())
    }

    /// Returns the value of `name` as a number of bytes, with or without a unit: `65536`, '64 KiB', '16
    /// MB'.
    pub fn bytes(&self, name: &str) -> Result<Option<usize>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let unit = match trimmed[split..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kib" | "kb" | "k" => Some(1 << 10),
            "mib" | "mb" | "m" => Some(1 << 20),
            "gib" | "gb" | "g" => Some(1 << 30),
            _ => None,
        };
        let number = trimmed[..split].parse::<usize>().ok();
        let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        match bytes.filter(|bytes| *bytes > 0) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Error::Invalid(format!(
                "option '{name}' is '{text}', but bytes were expected, such as 65536, '64 KiB' or '16 MiB'"
            ))),
        }
    }

    /// Returns the value of `name`, which must be one of `valid`; the first of those if it is absent.
    pub fn choice(&self, name: &str, valid: &[&'static str]) -> Result<&'static str> {
        let first = valid.first().copied().unwrap_or_default();
        let Some(text) = self.get(name) else { return Ok(first) };
        valid.iter().find(|word| word.eq_ignore_ascii_case(text)).copied().ok_or_else(|| {
            Error::Invalid(format!(
                "option '{name}' is '{text}', but one of {} was expected",
                valid.join(", ")
            ))
        })
    }

    /// Fails if an option is not in `known`. The error suggests the nearest name and lists all valid ones.
    pub fn check(&self, known: &[OptionDoc]) -> Result<()> {
        for name in self.0.keys() {
            if known.iter().any(|option| option.is_named(name)) {
                continue;
            }
            let nearest = known
                .iter()
                .map(|option| (strsim::damerau_levenshtein(option.name, name), option.name))
                .min()
                .filter(|(distance, _)| *distance <= 3)
                .map_or_else(String::new, |(_, near)| format!(" Did you mean '{near}'?"));
            let valid: Vec<&str> = known.iter().map(|option| option.name).collect();
            return Err(Error::Invalid(format!(
                "there is no option '{name}'.{nearest} The options are: {}.",
                valid.join(", ")
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    const KNOWN: &[OptionDoc] = &[
        OptionDoc { name: "path", default: None, doc: "" },
        OptionDoc { name: "fields.<column>.kind", default: Some("random"), doc: "" },
    ];

    #[test]
    fn an_unknown_name_is_answered_with_a_near_one_and_all_valid_ones() {
        let error = options(&[("pth", "x")]).check(KNOWN).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no option 'pth'. Did you mean 'path'? The options are: path, fields.<column>.kind."
        );
    }

    #[test]
    fn a_name_may_hold_a_column() {
        options(&[("fields.a.b.kind", "x"), ("path", "y")]).check(KNOWN).unwrap();
        assert!(options(&[("fields..kind", "x")]).check(KNOWN).is_err());
        assert!(options(&[("fields.a.kin", "x")]).check(KNOWN).is_err());
    }

    #[test]
    fn bytes_may_have_units() {
        let check = |text, expect: Option<usize>| {
            assert_eq!(options(&[("b", text)]).bytes("b").ok().flatten(), expect, "{text}");
        };
        check("10", Some(10));
        check("64 KiB", Some(65_536));
        check("2mb", Some(2 << 20));
        check("0", None);
        check("1 parsec", None);
        check("99999999999 GiB", None);
    }

    #[test]
    fn lengths_of_time_have_units() {
        let check = |text, expect: Option<u64>| {
            let found = options(&[("t", text)]).duration("t").ok().flatten();
            assert_eq!(found, expect.map(Duration::from_millis), "{text}");
        };
        check("100 ms", Some(100));
        check("1.5s", Some(1500));
        check("2 Minutes", Some(120_000));
        check("0", Some(0));
        check("5", None);
        check("-5 s", None);
        check("soon", None);
    }
}
