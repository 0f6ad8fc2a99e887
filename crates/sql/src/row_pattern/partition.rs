//! Finds the matches among the rows of one partition, and computes their output.
//!
//! Expressions over a row and its neighbours are computed for all rows at once before the search. Measures
//! are computed for all output rows at once after it.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray, StructArray,
    UInt64Array, new_empty_array,
};
use arrow::compute::kernels::cmp::lt;
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatchOptions;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::PhysicalExpr;

use super::clause::{Clause, Condition, Shows, Skip};
use super::compile::Compiled;
use super::pattern::MatchedRow;
use super::search::{Conditions, Depends, Search};
use super::terms::{RowPosition, Rows, Term};
use crate::error::Error;

/// A match: the variables of the rows from `start` on.
struct Match {
    start: usize,
    taken: Vec<MatchedRow>,
    number: i64,
}

/// An output row.
#[derive(Clone, Copy)]
struct Shown {
    /// The match of the row; none for an unmatched row.
    of: Option<usize>,
    /// The row within the match; none for an empty match.
    at: Option<usize>,
    /// The partition's row whose columns are shown.
    row: Option<usize>,
}

/// A match up to some row.
#[derive(Clone, Copy)]
struct Moment<'a> {
    start: usize,
    taken: &'a [MatchedRow],
    /// The number of its rows so far.
    count: usize,
    number: i64,
}

/// The sorted rows of a partition, and the values computed for each.
pub(super) struct Partition<'a> {
    clause: &'a Clause,
    rows: RecordBatch,
    values: Vec<ArrayRef>,
    /// The arguments of aggregates.
    arguments: Vec<Vec<ArrayRef>>,
    /// The rows that may be mapped to each variable, if its condition depends on the row alone.
    allowed: Vec<Option<BooleanArray>>,
    number: i64,
    running: RefCell<Vec<Option<Running>>>,
}

/// An aggregate over the rows so far.
struct Running {
    start: usize,
    rows: Vec<usize>,
    accumulator: Box<dyn Accumulator>,
}

impl<'a> Partition<'a> {
    /// Creates a partition from rows in the order of the clause.
    pub(super) fn new(clause: &'a Clause, rows: RecordBatch) -> Result<Partition<'a>> {
        let count = rows.num_rows();
        let evaluate = |expressions: &[_]| evaluate(expressions, &rows);
        let values = evaluate(&clause.values)?;
        let arguments = clause.calls.iter().map(|call| evaluate(&call.arguments)).collect::<Result<_>>()?;
        let running = RefCell::new(clause.calls.iter().map(|_| None).collect());
        let mut partition =
            Partition { clause, rows, values, arguments, allowed: Vec::new(), number: 1, running };
        for condition in &clause.conditions {
            let allowed = match condition {
                Condition::OfRow(condition) => Some(partition.of_rows(condition, count)?),
                Condition::Always | Condition::OfMatch(_) => None,
            };
            partition.allowed.push(allowed);
        }
        Ok(partition)
    }

    /// Returns the output rows.
    pub(super) fn result(mut self) -> Result<StructArray> {
        let matches = self.matches()?;
        let shown = self.shown(&matches);
        let mut columns = Vec::with_capacity(self.clause.fields.len());
        for measure in &self.clause.measures {
            let column = self.measure(measure, &matches, &shown)?;
            columns.push(known(column, &shown)?);
        }
        let rows: UInt64Array = shown.iter().map(|shown| shown.row.map(|row| row as u64)).collect();
        for column in &self.clause.planned.shown {
            columns.push(take(self.rows.column(*column), &rows, None)?);
        }
        let fields = self.clause.fields.clone();
        Ok(StructArray::try_new_with_length(fields, columns, None, shown.len())?)
    }

    fn matches(&mut self) -> Result<Vec<Match>> {
        let (clause, rows) = (self.clause, self.rows.num_rows());
        let of_match = clause.conditions.iter().any(|condition| matches!(condition, Condition::OfMatch(_)));
        let depends = match clause.planned.within {
            _ if of_match => Depends::Match,
            Some(_) => Depends::Start,
            None => Depends::Row,
        };
        let mut search = Search::new(&clause.planned.program, depends, rows);
        let (mut matches, mut start): (Vec<Match>, usize) = (Vec::new(), 0);
        while start < rows {
            match search.from(start, self)? {
                Some(taken) => {
                    let next = self.next_start(start, &taken)?;
                    matches.push(Match { start, taken, number: self.number });
                    self.number += 1;
                    start = next;
                }
                None => start += 1,
            }
        }
        Ok(matches)
    }

    /// Returns the row at which the search continues after a match.
    fn next_start(&self, start: usize, taken: &[MatchedRow]) -> Result<usize> {
        if taken.is_empty() {
            return Ok(start + 1);
        }
        let (name, among, last) = match &self.clause.planned.skip {
            Skip::PastLastRow => return Ok(start + taken.len()),
            Skip::ToNextRow => return Ok(start + 1),
            Skip::ToFirst(name, among) => (name, among, false),
            Skip::ToLast(name, among) => (name, among, true),
        };
        let is_one = |taken: &MatchedRow| among.contains(&taken.variable);
        let found = if last { taken.iter().rposition(is_one) } else { taken.iter().position(is_one) };
        let side = if last { "LAST" } else { "FIRST" };
        match found {
            Some(0) => Err(Error::invalid(format!(
                "MATCH_RECOGNIZE: AFTER MATCH SKIP TO {side} {name} leads to the row where the match began, \
                 which would repeat the match forever"
            ))
            .hint("Skip to a later variable, TO NEXT ROW or PAST LAST ROW.")
            .into()),
            Some(at) => Ok(start + at),
            None => Err(Error::invalid(format!(
                "MATCH_RECOGNIZE: AFTER MATCH SKIP TO {side} {name}, but a match has no row of \"{name}\""
            ))
            .hint("Skip to a variable that every match has, TO NEXT ROW or PAST LAST ROW.")
            .into()),
        }
    }

    fn shown(&self, matches: &[Match]) -> Vec<Shown> {
        let Shows::AllRows { empty, unmatched } = self.clause.planned.shows else {
            let last = |of: &Match| of.taken.len().checked_sub(1);
            let shown = |(at, of)| Shown { of: Some(at), at: last(of), row: None };
            return matches.iter().enumerate().map(shown).collect();
        };
        let mut shown = Vec::new();
        let mut matched = vec![false; self.rows.num_rows()];
        for (number, found) in matches.iter().enumerate() {
            if found.taken.is_empty() {
                matched[found.start] = true;
                if empty {
                    shown.push(Shown { of: Some(number), at: None, row: Some(found.start) });
                }
            }
            for (at, taken) in found.taken.iter().enumerate() {
                matched[found.start + at] = true;
                if !taken.excluded {
                    shown.push(Shown { of: Some(number), at: Some(at), row: Some(found.start + at) });
                }
            }
        }
        if unmatched {
            let rows = (0..matched.len()).filter(|row| !matched[*row]);
            shown.extend(rows.map(|row| Shown { of: None, at: None, row: Some(row) }));
        }
        shown
    }

    /// Computes a measure for every output row.
    fn measure(&self, measure: &Compiled, matches: &[Match], shown: &[Shown]) -> Result<ArrayRef> {
        let moments: Vec<Option<Moment>> = shown
            .iter()
            .map(|shown| {
                let Match { start, taken, number } = &matches[shown.of?];
                let count = shown.at.map_or(0, |at| at + 1);
                Some(Moment { start: *start, taken, count, number: *number })
            })
            .collect();
        let columns = measure
            .terms
            .iter()
            .zip(measure.schema.fields())
            .map(|(term, field)| self.term(term, field.data_type(), &moments))
            .collect::<Result<Vec<_>>>()?;
        over(measure, columns, shown.len())
    }

    /// Computes a term at each moment; NULL if there is no moment.
    fn term(&self, term: &Term, data_type: &DataType, moments: &[Option<Moment>]) -> Result<ArrayRef> {
        let moments = || moments.iter().map(Option::as_ref);
        Ok(match term {
            Term::Value(value, place) => {
                let rows = moments().map(|moment| Some(self.row(place, moment?)? as u64));
                take(&self.values[*value], &rows.collect::<UInt64Array>(), None)?
            }
            Term::Classifier(place) => {
                let name = |moment: Option<&Moment>| {
                    let moment = moment?;
                    let taken = moment.taken.get(self.row(place, moment)?.checked_sub(moment.start)?)?;
                    Some(self.clause.planned.program.variables[taken.variable].as_str())
                };
                Arc::new(moments().map(name).collect::<StringViewArray>())
            }
            Term::Number => {
                let numbers = moments().map(|moment| Some(moment?.number));
                Arc::new(numbers.collect::<Int64Array>())
            }
            Term::Aggregate(call, rows) => {
                let results = moments().map(|moment| match moment {
                    Some(moment) => self.aggregate(*call, rows, moment),
                    None => Ok(ScalarValue::try_from(data_type)?),
                });
                let results = results.collect::<Result<Vec<_>>>()?;
                match results.is_empty() {
                    true => new_empty_array(data_type),
                    false => ScalarValue::iter_to_array(results)?,
                }
            }
        })
    }

    /// Returns the partition's row at a place.
    fn row(&self, place: &RowPosition, moment: &Moment) -> Option<usize> {
        let taken = moment.upto(&place.rows);
        let is_one = |at: &usize| place.rows.has(taken[*at]);
        let at = match place.last {
            true => (0..taken.len()).rev().filter(is_one).nth(place.skip),
            false => (0..taken.len()).filter(is_one).nth(place.skip),
        }?;
        let row = i64::try_from(moment.start + at).ok()?.checked_add(place.shift)?;
        usize::try_from(row).ok().filter(|row| *row < self.rows.num_rows())
    }

    /// Evaluates an aggregate over rows of a match. It continues from the last evaluation if that covered the
    /// first of these rows.
    fn aggregate(&self, number: usize, rows: &Rows, moment: &Moment) -> Result<ScalarValue> {
        let call = &self.clause.calls[number];
        let taken = moment.upto(rows);
        let rows: Vec<usize> =
            (0..taken.len()).filter(|at| rows.has(taken[*at])).map(|at| moment.start + at).collect();
        let kept = self.running.borrow_mut()[number].take();
        let kept =
            kept.filter(|kept| call.lasts && kept.start == moment.start && rows.starts_with(&kept.rows));
        let mut running = match kept {
            Some(kept) => kept,
            None => Running {
                start: moment.start,
                rows: Vec::new(),
                accumulator: call.function.create_accumulator()?,
            },
        };
        let new: UInt64Array = rows[running.rows.len()..].iter().map(|row| *row as u64).collect();
        if !new.is_empty() {
            let arguments = self.arguments[number].iter().map(|argument| take(argument, &new, None));
            running.accumulator.update_batch(&arguments.collect::<std::result::Result<Vec<_>, _>>()?)?;
        }
        running.rows = rows;
        let result = running.accumulator.evaluate()?;
        self.running.borrow_mut()[number] = Some(running);
        Ok(result)
    }

    /// Returns the rows for which a condition over the row and its neighbours is true.
    fn of_rows(&self, condition: &Compiled, count: usize) -> Result<BooleanArray> {
        let columns = condition.terms.iter().map(|term| match term {
            Term::Value(value, RowPosition { shift: 0, .. }) => Ok(self.values[*value].clone()),
            Term::Value(value, place) => {
                let shifted = (0..count as i64).map(|row| {
                    let row = row.checked_add(place.shift).and_then(|row| u64::try_from(row).ok());
                    row.filter(|row| *row < count as u64)
                });
                Ok(take(&self.values[*value], &shifted.collect::<UInt64Array>(), None)?)
            }
            _ => Err(Error::bug("a condition of a row looks at a match").into()),
        });
        truth(&over(condition, columns.collect::<Result<Vec<_>>>()?, count)?)
    }

    /// True if a row is within the time limit of a match that began at `start`.
    fn in_time(&self, start: usize, row: usize) -> Result<bool> {
        let Some((time, end)) = self.clause.planned.within else { return Ok(true) };
        let (time, end) = (self.values[time].slice(row, 1), self.values[end].slice(start, 1));
        let before = lt(&time, &end)?;
        Ok(row == start || before.is_valid(0) && before.value(0))
    }
}

impl Conditions for Partition<'_> {
    fn holds(&mut self, start: usize, taken: &[MatchedRow]) -> Result<bool> {
        let Some(variable) = taken.last().map(|taken| taken.variable) else { return Ok(true) };
        let row = start + taken.len() - 1;
        if !self.in_time(start, row)? {
            return Ok(false);
        }
        if let Some(allowed) = &self.allowed[variable] {
            return Ok(allowed.value(row));
        }
        let Condition::OfMatch(condition) = &self.clause.conditions[variable] else { return Ok(true) };
        let moment = Moment { start, taken, count: taken.len(), number: self.number };
        let columns = condition
            .terms
            .iter()
            .zip(condition.schema.fields())
            .map(|(term, field)| self.term(term, field.data_type(), &[Some(moment)]))
            .collect::<Result<Vec<_>>>()?;
        Ok(truth(&over(condition, columns, 1)?)?.value(0))
    }
}

impl<'a> Moment<'a> {
    /// Returns the part of the match that `rows` selects from.
    fn upto(&self, rows: &Rows) -> &'a [MatchedRow] {
        if rows.whole { self.taken } else { &self.taken[..self.count] }
    }
}

impl Rows {
    fn has(&self, taken: MatchedRow) -> bool {
        self.among.as_ref().is_none_or(|among| among.contains(&taken.variable))
    }
}

/// Evaluates expressions for every row.
pub(super) fn evaluate(expressions: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    expressions.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows())).collect()
}

/// Evaluates an expression over the columns of its terms.
fn over(compiled: &Compiled, columns: Vec<ArrayRef>, count: usize) -> Result<ArrayRef> {
    let rows = batch(&compiled.schema, columns, count)?;
    compiled.physical.evaluate(&rows)?.into_array(count)
}

/// Builds a batch with this number of rows, which may have no columns.
pub(super) fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Marks rows for which a condition is true, neither false nor NULL.
fn truth(condition: &ArrayRef) -> Result<BooleanArray> {
    if condition.data_type() == &DataType::Null {
        return Ok(BooleanArray::from(vec![false; condition.len()]));
    }
    let condition = condition.as_boolean();
    Ok(match condition.nulls() {
        Some(valid) => BooleanArray::new(condition.values() & valid.inner(), None),
        None => condition.clone(),
    })
}

/// Sets the column to NULL for unmatched rows.
fn known(column: ArrayRef, shown: &[Shown]) -> Result<ArrayRef> {
    if shown.iter().all(|shown| shown.of.is_some()) {
        return Ok(column);
    }
    let rows: UInt64Array = shown.iter().enumerate().map(|(at, shown)| shown.of.map(|_| at as u64)).collect();
    Ok(take(&column, &rows, None)?)
}
