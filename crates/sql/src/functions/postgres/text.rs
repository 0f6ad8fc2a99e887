//! Text functions: format and quoting; and `regexp_split_to_array` of plans that were stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use millstream_delta::sql_type;
use regex::Regex;

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;
use crate::functions::time_text::with_texts;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    let one = vec![DataType::Utf8View];
    let two = vec![DataType::Utf8View; 2];
    registry.add(Scalar::any("format", format_type, format_rows));
    registry.add(Scalar::exact("quote_ident", one, text, |columns| {
        let names = columns[0].as_string_view().iter().map(|name| name.map(quote_ident));
        Ok(Arc::new(names.collect::<StringViewArray>()))
    }));
    let two_texts = vec![DataType::Utf8View; 2];
    registry.add(Scalar::exact("like_pattern", two_texts, text, |columns| {
        let pairs = columns[0].as_string_view().iter().zip(columns[1].as_string_view());
        let pattern = |(pattern, escape): (Option<&str>, Option<&str>)| {
            Some(like_pattern(pattern?, escape?.chars().next()))
        };
        Ok(Arc::new(pairs.map(pattern).collect::<StringViewArray>()))
    }));
    registry.add(Scalar::any("pg_collation_for", collation_type, |columns| {
        let rows = columns[0].len();
        let Some(names) = columns.get(1) else {
            return Ok(Arc::new(StringViewArray::from(vec!["\"default\""; rows])));
        };
        cast(names, &DataType::Utf8View).map_err(Into::into)
    }));
    let list = |_: &[DataType]| Ok(DataType::new_list(DataType::Utf8View, true));
    registry.add(Scalar::exact("regexp_split_to_array", two, list, split));
}

/// Returns the type of the name of a value's collation, if a value of its type has one.
fn collation_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [of, name @ ..] if (of.is_string() || of.is_null()) && name.iter().all(DataType::is_string) => {
            Ok(DataType::Utf8View)
        }
        [of, ..] => {
            Err(Error::invalid(format!("collations are not supported by type {}", sql_type(of))).into())
        }
        [] => Err(Error::invalid("pg_collation_for takes a value").into()),
    }
}

/// Writes a pattern of LIKE with `\` as the character that makes the next one stand for itself.
pub(crate) fn like_pattern(written: &str, escaping: Option<char>) -> String {
    let mut out = String::with_capacity(written.len());
    let mut rest = written.chars();
    while let Some(character) = rest.next() {
        match character {
            _ if Some(character) == escaping => {
                out.push('\\');
                out.extend(rest.next());
            }
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
    out
}

/// Quotes a name if SQL requires it.
pub fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_string() } else { quoted_ident(name) }
}

/// Quotes a name, also one that may be a word of the grammar.
pub fn quoted_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Splits texts by patterns in the syntax of the crate `regex`. Only plans stored by earlier versions call it.
fn split(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    let mut last: Option<(String, Regex)> = None;
    for (text, pattern) in columns[0].as_string_view().iter().zip(columns[1].as_string_view()) {
        let (Some(text), Some(pattern)) = (text, pattern) else {
            lists.append(false);
            continue;
        };
        if last.as_ref().is_none_or(|(known, _)| known != pattern) {
            let regex = Regex::new(pattern)
                .map_err(|error| Error::invalid(format!("'{pattern}' is no regular expression: {error}")))?;
            last = Some((pattern.to_string(), regex));
        }
        let parts = last.iter().flat_map(|(_, regex)| regex.split(text));
        parts.for_each(|part| lists.values().append_value(part));
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

fn format_type(arguments: &[DataType]) -> Result<DataType> {
    if arguments.is_empty() {
        return Err(Error::invalid("format takes a text with %s, %I and %L, and values for them").into());
    }
    Ok(DataType::Utf8View)
}

fn format_rows(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts: Vec<ArrayRef> = columns
        .iter()
        .map(|column| Ok(cast(&with_texts(column)?, &DataType::Utf8View)?))
        .collect::<Result<_>>()?;
    let value = |at: usize, row: usize| {
        let column = texts[at].as_string_view();
        column.is_valid(row).then(|| column.value(row))
    };
    let rows = (0..texts[0].len()).map(|row| {
        let Some(format) = value(0, row) else { return Ok(None) };
        fill(format, texts.len() - 1, |at| value(at + 1, row)).map(Some)
    });
    Ok(Arc::new(rows.collect::<std::result::Result<StringViewArray, Error>>()?))
}

/// Fills in `%s`, `%I`, `%L` and `%%`. An `n$` before the letter selects the n-th value.
fn fill<'a>(
    format: &str,
    count: usize,
    value: impl Fn(usize) -> Option<&'a str>,
) -> std::result::Result<String, Error> {
    let wrong = |what: &str| Error::invalid(format!("format('{format}', …): {what}"));
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 && rest[digits..].starts_with('$') {
            next = rest[..digits].parse::<usize>().unwrap_or(0).wrapping_sub(1);
            rest = &rest[digits + 1..];
        }
        let Some(letter) = rest.chars().next() else { return Err(wrong("it ends with %; write %% for one")) };
        rest = &rest[letter.len_utf8()..];
        if letter == '%' {
            out.push('%');
            continue;
        }
        if next >= count {
            return Err(wrong("there are fewer values than format specifiers"));
        }
        let found = value(next);
        next += 1;
        match (letter, found) {
            ('s', found) => out.push_str(found.unwrap_or("")),
            ('I', Some(name)) => out.push_str(&quote_ident(name)),
            ('I', None) => return Err(wrong("NULL can't be formatted as an SQL identifier")),
            ('L', None) => out.push_str("NULL"),
            ('L', Some(text)) => {
                out.push('\'');
                out.push_str(&text.replace('\'', "''"));
                out.push('\'');
            }
            _ => return Err(wrong("after % comes s, I, L or %; widths are not supported yet")),
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled() {
        let values = [Some("a b"), None, Some("it's")];
        let check = |format: &str, expected: &str| {
            assert_eq!(fill(format, 3, |at| values[at]).unwrap(), expected, "{format}");
        };
        check("%s|%s|%s%%", "a b||it's%");
        check("%3$L %1$I %s", "'it''s' \"a b\" ");
        for wrong in ["%", "%x", "%s%s%s%s", "%4$s", "%2$I"] {
            assert!(fill(wrong, 3, |at| values[at]).is_err(), "{wrong}");
        }
    }
}
