//! Rows for which an expression fails: they are data about the query and don't end it.

use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StringViewArray};
use arrow::compute::{filter, filter_record_batch, not};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_state::Tables;

use crate::failure_search::Failing;
use crate::{Error, Result};

/// The maximum number of characters shown of a failing row.
const SHOWN_MAX: usize = 200;

/// A row or key for which an operator has no answer, with the row's weight. It is a function of the rows
/// alone, so deleting the rows retracts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub message: String,
    /// The row, or the key, as text.
    pub row: String,
    /// The number of copies added, or removed if negative.
    pub weight: i64,
}

/// The columns of the errors of a flow: the operator, the reason, and the row or key that fails.
pub static ERRORS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8View, false);
    Arc::new(Schema::new(vec![text("operator"), text("message"), text("row")]))
});

/// Returns failures as a delta of [`ERRORS`].
pub(crate) fn delta<'a>(failures: impl Iterator<Item = (&'a str, &'a Failure)> + Clone) -> Result<Delta> {
    if failures.clone().next().is_none() {
        return Ok(Delta::default());
    }
    let column = |text: fn((&'a str, &'a Failure)) -> &'a str| -> Arc<dyn Array> {
        Arc::new(StringViewArray::from_iter_values(failures.clone().map(text)))
    };
    let columns = vec![
        column(|(operator, _)| operator),
        column(|(_, failure)| &failure.message),
        column(|(_, failure)| &failure.row),
    ];
    let rows = RecordBatch::try_new(ERRORS.clone(), columns)?;
    let weights = Int64Array::from_iter_values(failures.map(|(_, failure)| failure.weight));
    Ok(consolidate(Delta::of(Chunk { rows, weights: Some(weights) }), &ERRORS)?)
}

/// Adds failures to saved state, as a table.
pub(crate) fn put_failures(kept: &mut Tables, name: &str, failures: &[Failure]) -> Result<()> {
    let message = StringArray::from_iter_values(failures.iter().map(|failure| &failure.message));
    let row = StringArray::from_iter_values(failures.iter().map(|failure| &failure.row));
    let weight = Int64Array::from_iter_values(failures.iter().map(|failure| failure.weight));
    let columns: Vec<(&str, ArrayRef)> =
        vec![("message", Arc::new(message)), ("row", Arc::new(row)), ("weight", Arc::new(weight))];
    Ok(kept.put_columns(name, columns)?)
}

/// Takes failures out of saved state.
pub(crate) fn take_failures(kept: &mut Tables, name: &str) -> Result<Vec<Failure>> {
    let columns = kept.take_table(name)?;
    let (messages, rows) = (columns.texts("message")?, columns.texts("row")?);
    let weights = columns.numbers::<Int64Type>("weight")?;
    let text = |texts: &StringArray, at| texts.value(at).to_string();
    let failures = weights.values().iter().enumerate();
    Ok(failures
        .map(|(at, weight)| Failure { message: text(&messages, at), row: text(&rows, at), weight: *weight })
        .collect())
}

/// Returns the reason why rows fail; `None` if the error is not one of data, and the query can't continue. If
/// DataFusion can't run an expression over some rows, or over any, a batch query can't either: that counts as
/// an error of data.
pub(crate) fn reason(error: &Error) -> Option<String> {
    match error {
        Error::Query(error) => of_data(error.find_root()),
        Error::Limit(_) | Error::Interrupted | Error::Bug(_) => None,
    }
}

fn of_data(error: &DataFusionError) -> Option<String> {
    match error {
        DataFusionError::ArrowError(error, _) => Some(of_arrow(error)),
        DataFusionError::Execution(message) => Some(message.clone()),
        DataFusionError::External(error) => Some(error.to_string()),
        DataFusionError::NotImplemented(message) => Some(message.clone()),
        DataFusionError::ResourcesExhausted(_)
        | DataFusionError::IoError(_)
        | DataFusionError::ExecutionJoin(_) => None,
        other => Some(other.to_string()),
    }
}

fn of_arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::ArithmeticOverflow(message)
        | ArrowError::InvalidArgumentError(message) => message.clone(),
        ArrowError::DivideByZero => "division by zero".into(),
        other => other.to_string(),
    }
}

/// Evaluates something over the rows of a chunk: all at once if possible, else in pieces that don't fail.
/// Rows that fail alone become failures, found by halving.
///
/// Rows may fail together although none fails alone: `x <> 0 AND 1 / x > 2` evaluates its right side for all
/// rows as soon as enough of them need it. Only the row itself decides if it is a failure, not the rows
/// beside it.
pub(crate) fn surviving<T>(
    chunk: Chunk,
    failures: &mut Vec<Failure>,
    evaluate: impl FnMut(&Chunk) -> Result<T>,
) -> Result<Vec<(Chunk, T)>> {
    let pieces = surviving_at(chunk, failures, evaluate)?;
    Ok(pieces.into_iter().map(|piece| (piece.chunk, piece.value)).collect())
}

/// Does the same for expressions. [`Failing`] finds rows that fail in all rows at once; the others are found
/// by halving.
pub(crate) fn surviving_exprs<T>(
    exprs: &[Arc<dyn PhysicalExpr>],
    chunk: Chunk,
    failures: &mut Vec<Failure>,
    mut evaluate: impl FnMut(&Chunk) -> Result<T>,
) -> Result<Vec<(Chunk, T)>> {
    if let Some(value) = of_all(&chunk, &mut evaluate)? {
        return Ok(vec![(chunk, value)]);
    }
    let (failing, _) = Failing::of(exprs, &chunk.rows, true);
    let failed = failing.failed();
    if failed.true_count() > 0 {
        let texts = RowTexts::of(&chunk.rows)?;
        let messages = failing.messages().into_iter().enumerate();
        failures.extend(messages.filter_map(|(row, message)| {
            Some(Failure { message: message?, row: texts.text(row), weight: chunk.weight(row) })
        }));
    }
    match without(&chunk, &failed)? {
        Some(rest) => surviving(rest, failures, evaluate),
        None => Ok(Vec::new()),
    }
}

/// Does the same, and adds the failing rows themselves to `failing`, without their reasons. `combine` returns what
/// `evaluate` does, given the values of the expressions.
pub(crate) fn surviving_rows<T>(
    exprs: &[Arc<dyn PhysicalExpr>],
    chunk: Chunk,
    failing: &mut Vec<Chunk>,
    mut evaluate: impl FnMut(&Chunk) -> Result<T>,
    combine: impl FnOnce(Chunk, Vec<ArrayRef>) -> Result<T>,
) -> Result<Vec<(Chunk, T)>> {
    if let Some(value) = of_all(&chunk, &mut evaluate)? {
        return Ok(vec![(chunk, value)]);
    }
    let (found, values) = Failing::of(exprs, &chunk.rows, false);
    let failed = found.failed();
    if failed.true_count() > 0 {
        failing.push(keep(&chunk, &failed)?);
    }
    let Some(rest) = without(&chunk, &failed)? else { return Ok(Vec::new()) };
    if let Some(values) = values.filter(|values| !values.is_empty()) {
        let passed = not(&failed)?;
        let values = values.iter().map(|values| filter(values, &passed)).collect::<Result<_, _>>()?;
        if let Ok(value) = combine(rest.clone(), values) {
            return Ok(vec![(rest, value)]);
        }
    }
    let mut fail = |chunk, _| {
        failing.push(chunk);
        Ok(())
    };
    let pieces = halved(rest, &mut fail, &mut evaluate)?;
    Ok(pieces.into_iter().map(|piece| (piece.chunk, piece.value)).collect())
}

/// Evaluates something over a chunk; `None` if rows of it may fail.
fn of_all<T>(chunk: &Chunk, evaluate: &mut impl FnMut(&Chunk) -> Result<T>) -> Result<Option<T>> {
    match evaluate(chunk) {
        Ok(value) => Ok(Some(value)),
        Err(error) if reason(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the rows of a chunk that haven't failed, if there are any.
fn without(chunk: &Chunk, failed: &BooleanArray) -> Result<Option<Chunk>> {
    match failed.true_count() == failed.len() {
        true => Ok(None),
        false => keep(chunk, &not(failed)?).map(Some),
    }
}

/// Rows that don't fail, and their result.
pub(crate) struct Piece<T> {
    /// The place of the first row among all rows.
    pub(crate) from: usize,
    pub(crate) chunk: Chunk,
    pub(crate) value: T,
}

/// Does the same, and returns the place of each piece.
pub(crate) fn surviving_at<T>(
    chunk: Chunk,
    failures: &mut Vec<Failure>,
    mut evaluate: impl FnMut(&Chunk) -> Result<T>,
) -> Result<Vec<Piece<T>>> {
    let mut fail = |chunk: Chunk, message| {
        failures.push(Failure { message, row: row_text(&chunk.rows, 0)?, weight: chunk.weight(0) });
        Ok(())
    };
    halved(chunk, &mut fail, &mut evaluate)
}

/// Evaluates something over the rows of a chunk, and calls `fail` with each row that fails and the reason.
fn halved<T>(
    chunk: Chunk,
    fail: &mut impl FnMut(Chunk, String) -> Result<()>,
    evaluate: &mut impl FnMut(&Chunk) -> Result<T>,
) -> Result<Vec<Piece<T>>> {
    let error = match evaluate(&chunk) {
        Ok(value) => return Ok(vec![Piece { from: 0, chunk, value }]),
        Err(error) => error,
    };
    let mut search = Search { fail, evaluate, good: Vec::new() };
    search.halve(0, &chunk, error)?;
    Ok(search.good)
}

/// The search for failing rows.
struct Search<'a, T, F, E> {
    fail: &'a mut F,
    evaluate: &'a mut E,
    good: Vec<Piece<T>>,
}

impl<T, F, E> Search<'_, T, F, E>
where
    F: FnMut(Chunk, String) -> Result<()>,
    E: FnMut(&Chunk) -> Result<T>,
{
    /// Searches rows that fail together with `error`; `from` is the place of the first.
    fn halve(&mut self, from: usize, chunk: &Chunk, error: Error) -> Result<()> {
        let Some(message) = reason(&error) else { return Err(error) };
        let count = chunk.rows.num_rows();
        if count == 0 {
            return Err(error);
        }
        if count == 1 {
            return (self.fail)(chunk.clone(), message);
        }
        let middle = count / 2;
        for (start, count) in [(0, middle), (middle, count - middle)] {
            let (from, half) = (from + start, chunk.slice(start, count));
            match (self.evaluate)(&half) {
                Ok(value) => self.good.push(Piece { from, chunk: half, value }),
                Err(error) => self.halve(from, &half, error)?,
            }
        }
        Ok(())
    }
}

/// Returns the rows for which `mask` is true, with their weights.
pub(crate) fn keep(chunk: &Chunk, mask: &BooleanArray) -> Result<Chunk> {
    let weights = match &chunk.weights {
        Some(weights) => {
            let weights = filter(weights, mask)?;
            Some(arrow::array::AsArray::as_primitive::<Int64Type>(&weights).clone())
        }
        None => None,
    };
    Ok(Chunk { rows: filter_record_batch(&chunk.rows, mask)?, weights })
}

/// Formats a row for people: `(1, a, NULL)`.
pub(crate) fn row_text(rows: &RecordBatch, row: usize) -> Result<String> {
    Ok(RowTexts::of(rows)?.text(row))
}

/// Formatters of rows for people.
struct RowTexts<'a>(Vec<ArrayFormatter<'a>>);

/// The format of values.
static SHOWN: LazyLock<FormatOptions<'static>> = LazyLock::new(|| FormatOptions::default().with_null("NULL"));

impl RowTexts<'_> {
    fn of(rows: &RecordBatch) -> Result<RowTexts<'_>> {
        let columns = rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &SHOWN));
        Ok(RowTexts(columns.collect::<std::result::Result<_, _>>()?))
    }

    fn text(&self, row: usize) -> String {
        let mut text = String::from("(");
        for (place, column) in self.0.iter().enumerate() {
            if place > 0 {
                text.push_str(", ");
            }
            let before = text.len();
            if write!(text, "{}", column.value(row)).is_err() {
                text.truncate(before);
                text.push_str(&column.value(row).to_string());
            }
        }
        if text.len() > SHOWN_MAX
            && let Some((end, _)) = text.char_indices().nth(SHOWN_MAX)
        {
            text.truncate(end);
            text.push('…');
        }
        text.push(')');
        text
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use arrow::array::{Int64Array, RecordBatch};

    use super::*;

    fn chunk(values: &[i64], weights: Option<Vec<i64>>) -> Chunk {
        let column: Arc<dyn Array> = Arc::new(Int64Array::from(values.to_vec()));
        let rows = RecordBatch::try_from_iter([("x", column)]).unwrap();
        Chunk { rows, weights: weights.map(Int64Array::from) }
    }

    fn values(chunk: &Chunk) -> Vec<i64> {
        arrow::array::AsArray::as_primitive::<Int64Type>(chunk.rows.column(0)).values().to_vec()
    }

    /// Fails if a value is negative.
    fn positive(chunk: &Chunk) -> Result<usize> {
        match values(chunk).iter().all(|value| *value >= 0) {
            true => Ok(chunk.rows.num_rows()),
            false => Err(DataFusionError::Execution("below zero".into()).into()),
        }
    }

    #[test]
    fn failing_rows_are_left_aside_with_their_weights() {
        let mut failures = Vec::new();
        let given = chunk(&[1, -2, 3, -4, 5], Some(vec![1, 2, 1, -1, -1]));
        let rest = surviving(given, &mut failures, positive).unwrap();
        let rest: Vec<_> =
            rest.iter().map(|(chunk, count)| (values(chunk), chunk.weight(0), *count)).collect();
        assert_eq!(rest, [(vec![1], 1, 1), (vec![3], 1, 1), (vec![5], -1, 1)]);
        let failure = |row: &str, weight| Failure { message: "below zero".into(), row: row.into(), weight };
        assert_eq!(failures, [failure("(-2)", 2), failure("(-4)", -1)]);
    }

    #[test]
    fn one_bad_row_among_many_costs_few_evaluations() {
        let mut all: Vec<i64> = (0..1000).collect();
        all[777] = -1;
        let (mut failures, calls) = (Vec::new(), Cell::new(0));
        let counted = |chunk: &Chunk| {
            calls.set(calls.get() + 1);
            positive(chunk)
        };
        surviving(chunk(&all, None), &mut failures, counted).unwrap();
        assert_eq!(failures.len(), 1);
        assert!(calls.get() < 30, "{} evaluations", calls.get());
    }

    #[test]
    fn rows_that_only_fail_together_do_not_fail() {
        let together = |chunk: &Chunk| match chunk.rows.num_rows() {
            1 => Ok(()),
            _ => Err(DataFusionError::Execution("too many".into()).into()),
        };
        let mut failures = Vec::new();
        let rest = surviving(chunk(&[1, 2, 3], None), &mut failures, together).unwrap();
        assert_eq!((rest.len(), failures.len()), (3, 0));
    }

    #[test]
    fn a_bug_is_no_data() {
        let bug = |_: &Chunk| -> Result<()> { Err(Error::Bug("broken".into())) };
        assert!(surviving(chunk(&[1, 2], None), &mut Vec::new(), bug).is_err());
    }
}
