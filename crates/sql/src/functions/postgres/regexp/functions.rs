//! The functions of regular expressions.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListBuilder, StringViewArray, StringViewBuilder};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::arguments::{Columns, Kind, LastPattern, byte_of, check};
use super::matcher::{Found, Pattern};
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::{Kernel, Label, Scalar, Typed};
use crate::functions::value_size_limit::check_value;
use crate::sqlstate;

use Kind::{Number, Text};

/// The functions: the name, the one that statements call them by, the type and the kernel.
const FUNCTIONS: [(&str, &str, Typed, Kernel); 8] = [
    ("postgres_regexp_like", "regexp_like", like_type, like),
    ("postgres_regexp_count", "regexp_count", count_type, count),
    ("postgres_regexp_instr", "regexp_instr", instr_type, instr),
    ("postgres_regexp_substr", "regexp_substr", substr_type, substr),
    ("postgres_regexp_replace", "regexp_replace", replace_type, replace),
    ("postgres_regexp_match", "regexp_match", match_type, first_match),
    ("postgres_regexp_matches", "regexp_matches", matches_type, all_matches),
    ("postgres_regexp_split_to_array", "regexp_split_to_array", split_type, split),
];

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    for (name, written, typed, kernel) in FUNCTIONS {
        registry.add(Scalar::labelled(name, Label::Written(written), typed, kernel));
    }
}

fn like_type(found: &[DataType]) -> Result<DataType> {
    check("regexp_like", &[Text, Text, Text], 2, found).map(|()| DataType::Boolean)
}

fn count_type(found: &[DataType]) -> Result<DataType> {
    check("regexp_count", &[Text, Text, Number, Text], 2, found).map(|()| DataType::Int64)
}

fn instr_type(found: &[DataType]) -> Result<DataType> {
    let kinds = [Text, Text, Number, Number, Number, Text, Number];
    check("regexp_instr", &kinds, 2, found).map(|()| DataType::Int64)
}

fn substr_type(found: &[DataType]) -> Result<DataType> {
    check("regexp_substr", &[Text, Text, Number, Number, Text, Number], 2, found).map(|()| DataType::Utf8View)
}

/// The fourth argument is the flags or the start.
fn replace_type(found: &[DataType]) -> Result<DataType> {
    match found.get(3) {
        Some(fourth) if fourth.is_string() => check("regexp_replace", &[Text, Text, Text, Text], 3, found)?,
        Some(_) if found.len() == 5 && found[4].is_string() => {
            check("regexp_replace", &[Text, Text, Text, Number, Text], 3, found)?;
        }
        _ => check("regexp_replace", &[Text, Text, Text, Number, Number, Text], 3, found)?,
    }
    Ok(DataType::Utf8View)
}

fn texts_type() -> DataType {
    DataType::new_list(DataType::Utf8View, true)
}

fn match_type(found: &[DataType]) -> Result<DataType> {
    check("regexp_match", &[Text, Text, Text], 2, found).map(|()| texts_type())
}

fn matches_type(found: &[DataType]) -> Result<DataType> {
    check("regexp_matches", &[Text, Text, Text], 2, found)?;
    Ok(DataType::new_list(texts_type(), true))
}

fn split_type(found: &[DataType]) -> Result<DataType> {
    check("regexp_split_to_array", &[Text, Text, Text], 2, found).map(|()| texts_type())
}

/// Fails if the flags ask for all matches of a function that has its own argument for that.
fn refuse_global(name: &str, pattern: &Pattern) -> Result<(), Error> {
    match pattern.options.global {
        true => Err(Error::invalid(format!("{name}() does not support the \"global\" option"))
            .hint("Use the flag g with regexp_matches or regexp_replace.")
            .code(sqlstate::INVALID_PARAMETER_VALUE)),
        false => Ok(()),
    }
}

fn like(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let rows = columns.rows().map(|row| {
        let Some(row) = row else { return Ok(None) };
        let pattern = last.get(columns.text(1, row), columns.text(2, row))?;
        refuse_global("regexp_like", pattern)?;
        pattern.is_match(columns.text(0, row)).map(Some)
    });
    Ok(Arc::new(rows.collect::<Result<BooleanArray, Error>>()?))
}

/// Returns the matches from a character on.
fn matches_from<'a>(
    pattern: &'a Pattern,
    text: &'a str,
    start: usize,
) -> impl Iterator<Item = Result<Found<'a>, Error>> {
    let from = byte_of(text, start).unwrap_or(text.len() + 1);
    pattern.matches(text, from)
}

/// Returns the n-th match from a character on.
fn nth_match<'a>(
    pattern: &'a Pattern,
    text: &'a str,
    start: usize,
    nth: usize,
) -> Result<Option<Found<'a>>, Error> {
    let mut found = matches_from(pattern, text, start);
    for _ in 1..nth {
        if found.next().transpose()?.is_none() {
            return Ok(None);
        }
    }
    found.next().transpose()
}

fn small(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let rows = columns.rows().map(|row| {
        let Some(row) = row else { return Ok(None) };
        let pattern = last.get(columns.text(1, row), columns.text(3, row))?;
        refuse_global("regexp_count", pattern)?;
        let start = columns.number("start", 2, row, 1, 1)?;
        let mut found = 0;
        for each in matches_from(pattern, columns.text(0, row), start) {
            each?;
            found += 1;
        }
        Ok(Some(found))
    });
    Ok(Arc::new(rows.collect::<Result<Int64Array, Error>>()?))
}

fn instr(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let rows = columns.rows().map(|row| {
        let Some(row) = row else { return Ok(None) };
        let text = columns.text(0, row);
        let pattern = last.get(columns.text(1, row), columns.text(5, row))?;
        refuse_global("regexp_instr", pattern)?;
        let start = columns.number("start", 2, row, 1, 1)?;
        let nth = columns.number("n", 3, row, 1, 1)?;
        let is_end = columns.number("endoption", 4, row, 0, 0)?;
        if is_end > 1 {
            return Err(Error::invalid(format!(
                "invalid value for parameter \"endoption\": {is_end}, 0 or 1 was expected"
            ))
            .code(sqlstate::INVALID_PARAMETER_VALUE));
        }
        let group = columns.number("subexpr", 6, row, 0, 0)?;
        let found = nth_match(pattern, text, start, nth)?;
        let Some(part) = found.and_then(|found| found.get(group)) else { return Ok(Some(0)) };
        let byte = if is_end == 1 { part.end } else { part.start };
        Ok(Some(small(text[..byte].chars().count() + 1)))
    });
    Ok(Arc::new(rows.collect::<Result<Int64Array, Error>>()?))
}

fn substr(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let rows = columns.rows().map(|row| {
        let Some(row) = row else { return Ok(None) };
        let pattern = last.get(columns.text(1, row), columns.text(4, row))?;
        refuse_global("regexp_substr", pattern)?;
        let start = columns.number("start", 2, row, 1, 1)?;
        let nth = columns.number("n", 3, row, 1, 1)?;
        let group = columns.number("subexpr", 5, row, 0, 0)?;
        let text = columns.text(0, row);
        let found = nth_match(pattern, text, start, nth)?;
        Ok(found.and_then(|found| found.get(group)).map(|part| text[part].to_string()))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
}

fn replace(found: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(found)?;
    // The flags are the last argument, if that is a text.
    let flags = match found.last() {
        Some(last) if found.len() > 3 && !last.data_type().is_integer() => found.len() - 1,
        _ => found.len(),
    };
    let has_count = found.get(4).is_some_and(|count| count.data_type().is_integer());
    let mut last = LastPattern::default();
    let rows = columns.rows().map(|row| {
        let Some(row) = row else { return Ok(None) };
        let pattern = last.get(columns.text(1, row), columns.text(flags, row))?;
        let start = columns.number("start", 3, row, 1, 1)?;
        // 0 is all of them.
        let nth = match has_count {
            true => columns.number("n", 4, row, 1, 0)?,
            false => usize::from(!pattern.options.global),
        };
        replaced(pattern, columns.text(0, row), columns.text(2, row), start, nth).map(Some)
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
}

/// Replaces the n-th match, or all.
fn replaced(pattern: &Pattern, text: &str, by: &str, start: usize, nth: usize) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (place, found) in matches_from(pattern, text, start).enumerate() {
        let found = found?;
        let Some(whole) = found.get(0) else { continue };
        if nth != 0 && place + 1 != nth {
            continue;
        }
        append(&mut out, &text[copied..whole.start])?;
        replacement(&mut out, by, text, &found)?;
        copied = whole.end;
        if nth != 0 {
            break;
        }
    }
    append(&mut out, &text[copied..])?;
    Ok(out)
}

/// Appends to a value, unless it grows too long.
fn append(out: &mut String, part: &str) -> Result<(), Error> {
    check_value("regexp_replace", out.len() + part.len())?;
    out.push_str(part);
    Ok(())
}

/// Writes a replacement: `\1` is a group, `\&` the whole match, `\\` a backslash.
fn replacement(out: &mut String, by: &str, text: &str, found: &Found<'_>) -> Result<(), Error> {
    let mut rest = by;
    while let Some(at) = rest.find('\\') {
        append(out, &rest[..at])?;
        let mut chars = rest[at + 1..].chars();
        match chars.next() {
            Some('&') => append(out, found.get(0).map_or("", |part| &text[part]))?,
            Some(digit @ '1'..='9') => {
                let group = digit.to_digit(10).and_then(|group| usize::try_from(group).ok()).unwrap_or(0);
                append(out, found.get(group).map_or("", |part| &text[part]))?;
            }
            Some('\\') | None => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
        }
        rest = chars.as_str();
    }
    append(out, rest)
}

/// Adds the groups of a match, or the whole match if the pattern has no groups.
fn add_groups(values: &mut ListBuilder<StringViewBuilder>, pattern: &Pattern, text: &str, found: &Found<'_>) {
    let groups = if pattern.groups() == 0 { 0..=0 } else { 1..=pattern.groups() };
    for group in groups {
        values.values().append_option(found.get(group).map(|part| &text[part]));
    }
    values.append(true);
}

fn first_match(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for row in columns.rows() {
        let Some(row) = row else {
            out.append(false);
            continue;
        };
        let pattern = last.get(columns.text(1, row), columns.text(2, row))?;
        refuse_global("regexp_match", pattern)?;
        let text = columns.text(0, row);
        match pattern.matches(text, 0).next().transpose()? {
            Some(found) => add_groups(&mut out, pattern, text, &found),
            None => out.append(false),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn all_matches(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let mut out = ListBuilder::new(ListBuilder::new(StringViewBuilder::new()));
    for row in columns.rows() {
        if let Some(row) = row {
            let pattern = last.get(columns.text(1, row), columns.text(2, row))?;
            let most = if pattern.options.global { usize::MAX } else { 1 };
            let text = columns.text(0, row);
            for found in pattern.matches(text, 0).take(most) {
                add_groups(out.values(), pattern, text, &found?);
            }
        }
        out.append(row.is_some());
    }
    Ok(Arc::new(out.finish()))
}

fn split(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let columns = Columns::new(columns)?;
    let mut last = LastPattern::default();
    let mut out = ListBuilder::new(StringViewBuilder::new());
    for row in columns.rows() {
        let Some(row) = row else {
            out.append(false);
            continue;
        };
        let text = columns.text(0, row);
        let pattern = last.get(columns.text(1, row), columns.text(2, row))?;
        refuse_global("regexp_split_to_array", pattern)?;
        let mut copied = 0;
        for found in pattern.matches(text, 0) {
            let Some(whole) = found?.get(0) else { continue };
            // An empty match at the end, or right behind another match, doesn't split.
            if whole.start < text.len() && whole.end > copied {
                out.values().append_value(&text[copied..whole.start]);
                copied = whole.end;
            }
        }
        out.values().append_value(&text[copied..]);
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}
