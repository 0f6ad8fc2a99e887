//! PostgreSQL's regular expressions: its functions, and the translation of its patterns to the crate `regex`.
//!
//! Of several matches at one place, `regex` prefers that of the first alternative, PostgreSQL the longest one.

mod arguments;
mod bracket;
mod functions;
mod like;
mod matcher;
mod options;
mod similar;
mod translate;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;

use self::options::Options;
use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::{Label, Scalar};

/// The function that translates a pattern that isn't a literal.
pub(crate) const PATTERN: &str = "regexp_pattern";

/// The function that translates a pattern of SIMILAR TO that isn't a literal, with its escape character.
pub(crate) const SIMILAR: &str = "similar_pattern";

/// The function for `substring(text SIMILAR pattern ESCAPE escape)`.
pub(crate) const SIMILAR_PART: &str = "similar_part";

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let text = |_: &[DataType]| Ok(DataType::Utf8View);
    let texts = |count| vec![DataType::Utf8View; count];
    registry.add(Scalar::labelled(PATTERN, Label::Argument, pattern_type, |columns| {
        let texts = cast(&columns[0], &DataType::Utf8View)?;
        let patterns = texts.as_string_view().iter().map(|text| text.map(pattern).transpose());
        Ok(Arc::new(patterns.collect::<Result<StringViewArray, Error>>()?))
    }));
    registry.add(Scalar::exact(SIMILAR, texts(2), text, |columns| {
        let pairs = columns[0].as_string_view().iter().zip(columns[1].as_string_view());
        let patterns = pairs.map(|(text, escape)| {
            let (Some(text), Some(escape)) = (text, escape) else { return Ok(None) };
            similar_pattern(text, escape).map(Some)
        });
        Ok(Arc::new(patterns.collect::<Result<StringViewArray, Error>>()?))
    }));
    registry.add(Scalar::exact(SIMILAR_PART, texts(3), text, similar_part));
    functions::register(registry);
    like::register(registry);
}

fn pattern_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [of] if of.is_string() || of.is_null() || matches!(of, DataType::Dictionary(..)) => {
            Ok(DataType::Utf8View)
        }
        _ => Err(Error::invalid("a regular expression is a text").into()),
    }
}

/// Returns the pattern of the crate `regex` for one of PostgreSQL's, or none if that needs back references or lookaround.
pub(crate) fn linear_pattern(pattern: &str) -> Result<Option<String>, Error> {
    let translated = translate::translate(pattern, Options::default())?;
    Ok(Some(translated.text).filter(|_| !translated.backtracks))
}

/// Returns the pattern of the crate `regex` for a value in a column.
fn pattern(written: &str) -> Result<String, Error> {
    linear_pattern(written)?.ok_or_else(|| {
        Error::unsupported(format!("the pattern '{written}' with back references or lookaround in a column"))
            .hint("Use regexp_like(text, pattern).")
    })
}

/// Returns the pattern of the crate `regex` for one of SIMILAR TO.
pub(crate) fn similar_pattern(pattern: &str, escape: &str) -> Result<String, Error> {
    similar::pattern(pattern, similar::escape(escape)?)
}

/// Returns the part of each text between two marks of its pattern.
fn similar_part(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let texts = cast(&columns[0], &DataType::Utf8View)?;
    let (texts, patterns, escapes) =
        (texts.as_string_view(), columns[1].as_string_view(), columns[2].as_string_view());
    let mut known: Option<(String, String, regex::Regex)> = None;
    let rows = (0..texts.len()).map(|row| {
        if texts.is_null(row) || patterns.is_null(row) || escapes.is_null(row) {
            return Ok(None);
        }
        let (pattern, escape) = (patterns.value(row), escapes.value(row));
        if known.as_ref().is_none_or(|(text, with, _)| text != pattern || with != escape) {
            let translated = similar::substring(pattern, similar::escape(escape)?)?;
            let regex = regex::Regex::new(&translated)
                .map_err(|error| translate::wrong(pattern, &error.to_string()))?;
            known = Some((pattern.to_string(), escape.to_string(), regex));
        }
        let found = known.as_ref().and_then(|(_, _, regex)| regex.captures(texts.value(row)));
        Ok(found.and_then(|found| found.get(1)).map(|part| part.as_str().to_string()))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, Error>>()?))
}
