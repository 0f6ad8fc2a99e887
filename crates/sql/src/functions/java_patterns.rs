//! Patterns of times as Spark and Flink write them, `yyyy-MM-dd HH:mm:ss`, as those of PostgreSQL's `to_char` and `to_timestamp`.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::Registry;
use super::scalar::Scalar;
use crate::error::Error;

/// Registers the function.
pub(super) fn register(registry: &mut Registry<'_>) {
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    registry.add(Scalar::exact("java_pattern", vec![DataType::Utf8View], text, |columns: &[ArrayRef]| {
        let patterns = columns[0].as_string_view().iter().map(|text| text.map(translated).transpose());
        Ok(Arc::new(patterns.collect::<Result<StringViewArray, Error>>()?))
    }));
}

/// Translates a pattern. One with a `%` is a pattern of strftime, and stays.
pub(super) fn translated(pattern: &str) -> std::result::Result<String, Error> {
    if pattern.contains('%') {
        return Ok(pattern.to_string());
    }
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut chars = pattern.chars().peekable();
    while let Some(letter) = chars.next() {
        if letter == '\'' {
            let mut literal = String::new();
            // Two quotes are one, inside of quotes and outside.
            if chars.next_if_eq(&'\'').is_some() {
                quoted(&mut out, "'");
                continue;
            }
            while let Some(inner) = chars.next() {
                if inner == '\'' && chars.next_if_eq(&'\'').is_none() {
                    break;
                }
                literal.push(inner);
            }
            quoted(&mut out, &literal);
            continue;
        }
        if !letter.is_ascii_alphabetic() {
            match letter {
                '[' | ']' => {}
                _ if letter.is_alphanumeric() || letter == '"' || letter == '\\' => {
                    quoted(&mut out, letter.encode_utf8(&mut [0; 4]));
                }
                _ => out.push(letter),
            }
            continue;
        }
        let mut count = 1;
        while chars.next_if_eq(&letter).is_some() {
            count += 1;
        }
        match field(letter, count) {
            Some(field) => out.push_str(field),
            None => {
                let found: String = std::iter::repeat_n(letter, count).collect();
                return Err(Error::invalid(format!("'{found}' in the pattern '{pattern}' is not supported"))
                    .hint("Supported are y, M, d, E, D, H, h, K, k, m, s, S, a, Q, w and z; 'text' in quotes stays."));
            }
        }
    }
    Ok(out)
}

fn quoted(out: &mut String, literal: &str) {
    if !literal.is_empty() {
        // Writing to a text doesn't fail.
        let _ = write!(out, "\"{}\"", literal.replace('\\', "\\\\").replace('"', "\\\""));
    }
}

/// Returns PostgreSQL's pattern of a letter that is repeated so many times.
fn field(letter: char, count: usize) -> Option<&'static str> {
    Some(match (letter, count) {
        ('y' | 'u', 2) => "YY",
        ('y' | 'u', 1) => "FMYYYY",
        ('y' | 'u', 3..=4) => "YYYY",
        ('M' | 'L', 1) => "FMMM",
        ('M' | 'L', 2) => "MM",
        ('M' | 'L', 3) => "Mon",
        ('M' | 'L', 4) => "FMMonth",
        ('d', 1) => "FMDD",
        ('d', 2) => "DD",
        ('D', 1 | 2) => "FMDDD",
        ('D', 3) => "DDD",
        ('E', 1..=3) => "Dy",
        ('E', 4) => "FMDay",
        ('H', 1) => "FMHH24",
        ('H', 2) => "HH24",
        ('h', 1) => "FMHH12",
        ('h', 2) => "HH12",
        ('m', 1) => "FMMI",
        ('m', 2) => "MI",
        ('s', 1) => "FMSS",
        ('s', 2) => "SS",
        ('S', 1) => "FF1",
        ('S', 2) => "FF2",
        ('S', 3) => "MS",
        ('S', 4) => "FF4",
        ('S', 5) => "FF5",
        ('S', 6) => "US",
        ('a', 1) => "AM",
        ('q' | 'Q', 1) => "Q",
        ('w', 1 | 2) => "IW",
        ('z', 1..=3) => "TZ",
        ('x' | 'X' | 'Z', 1..=3) => "OF",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_postgresql() {
        let check = |java: &str, expected: &str| assert_eq!(translated(java).unwrap(), expected);
        check("yyyy-MM-dd HH:mm:ss.SSS", "YYYY-MM-DD HH24:MI:SS.MS");
        check("yyyy-MM-dd'T'HH:mm''z", "YYYY-MM-DD\"T\"HH24:MI\"'\"TZ");
        check("EEEE, d MMM yy h a", "FMDay, FMDD Mon YY FMHH12 AM");
        check("%Y", "%Y");
        assert!(translated("GGGG").is_err());
    }
}
