//! The arguments of functions of regular expressions.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use millstream_delta::sql_type;

use super::matcher::Pattern;
use crate::error::Error;
use crate::sqlstate;

/// The kinds of a function's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
}

/// Checks the types of arguments. Those beyond `least` may be missing.
pub(super) fn check(name: &str, kinds: &[Kind], least: usize, found: &[DataType]) -> Result<()> {
    let fits = |(kind, found): (&Kind, &DataType)| {
        found.is_null()
            || match kind {
                Kind::Text => is_text(found),
                Kind::Number => found.is_integer(),
            }
    };
    if (least..=kinds.len()).contains(&found.len()) && kinds.iter().zip(found).all(fits) {
        return Ok(());
    }
    let types: Vec<String> = found.iter().map(sql_type).collect();
    let expected: Vec<&str> =
        kinds.iter().map(|kind| if *kind == Kind::Text { "TEXT" } else { "INT" }).collect();
    Err(Error::invalid(format!("function \"{name}\" doesn't take {}", types.join(", ")))
        .hint(format!("It takes {}; those from the {}. on are optional.", expected.join(", "), least + 1))
        .code(sqlstate::UNDEFINED_FUNCTION)
        .into())
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => values.is_string(),
        other => other.is_string(),
    }
}

/// The columns of a call.
pub(super) struct Columns {
    columns: Vec<ArrayRef>,
    rows: usize,
}

impl Columns {
    pub(super) fn new(columns: &[ArrayRef]) -> Result<Columns> {
        let rows = columns.first().map_or(0, |column| column.len());
        let convert = |column: &ArrayRef| {
            let target = if column.data_type().is_integer() { DataType::Int64 } else { DataType::Utf8View };
            cast(column, &target)
        };
        Ok(Columns { columns: columns.iter().map(convert).collect::<std::result::Result<_, _>>()?, rows })
    }

    /// Returns the rows that have no NULL.
    pub(super) fn rows(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        (0..self.rows).map(|row| self.columns.iter().all(|column| column.is_valid(row)).then_some(row))
    }

    pub(super) fn text(&self, at: usize, row: usize) -> &str {
        match self.columns.get(at).map(|column| (column, column.data_type())) {
            Some((column, DataType::Utf8View)) => column.as_string_view().value(row),
            _ => "",
        }
    }

    /// Returns a number that is at least `least`, or the default if the argument is missing.
    pub(super) fn number(
        &self,
        name: &str,
        at: usize,
        row: usize,
        default: i64,
        least: i64,
    ) -> Result<usize, Error> {
        let number = match self.columns.get(at).map(|column| (column, column.data_type())) {
            Some((column, DataType::Int64)) => column.as_primitive::<Int64Type>().value(row),
            _ => default,
        };
        match usize::try_from(number) {
            Ok(count) if number >= least => Ok(count),
            _ => Err(Error::invalid(format!(
                "invalid value for parameter \"{name}\": {number}, at least {least} was expected"
            ))
            .code(sqlstate::INVALID_PARAMETER_VALUE)),
        }
    }
}

/// The last pattern: most columns of patterns have one.
#[derive(Default)]
pub(super) struct LastPattern {
    known: Option<(String, String, Pattern)>,
}

impl LastPattern {
    pub(super) fn get(&mut self, pattern: &str, flags: &str) -> Result<&Pattern, Error> {
        if self.known.as_ref().is_none_or(|(text, with, _)| text != pattern || with != flags) {
            let compiled = Pattern::new(pattern, flags)?;
            self.known = Some((pattern.to_string(), flags.to_string(), compiled));
        }
        match &self.known {
            Some((_, _, pattern)) => Ok(pattern),
            None => Err(Error::bug("the pattern is known")),
        }
    }
}

/// Returns the byte of a character's place, which counts from 1. None behind the end.
pub(super) fn byte_of(text: &str, place: usize) -> Option<usize> {
    let before = place.saturating_sub(1);
    match text.char_indices().nth(before) {
        Some((byte, _)) => Some(byte),
        None => (text.chars().count() == before).then_some(text.len()),
    }
}
