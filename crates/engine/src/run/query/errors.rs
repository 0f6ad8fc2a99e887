//! The errors of a query: rows, and keys, without an answer.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewBuilder};
use millstream_delta::{Chunk, Delta, consolidate};
use millstream_flow::{Change, ERRORS, FailingRows, FailingStage, Flow};
use millstream_sql::{Error, Kind, Result};
use millstream_state::{Rows, RowsSnapshot, Tables};

use super::saving::{put_rows, take_rows};
use crate::error;
use crate::panics::panicked;

/// The mark of a saved state whose failing rows are kept as rows.
const KEEPS_ROWS: &str = "keeps_failing_rows";

/// The number of errors of a stage that a search for the first error looks at, at least.
const FIRST_ROWS: usize = 1000;

/// The time after which a search for the first error ends.
const FIRST_TIME: Duration = Duration::from_millis(200);

/// The first of a query's errors, in text order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstError {
    message: String,
    row: String,
    /// The number of all errors.
    count: usize,
}

impl FirstError {
    /// `division by zero for (3, 0), and 2 more`
    pub(crate) fn text(&self) -> String {
        let for_row = if self.row.is_empty() { String::new() } else { format!(" for {}", self.row) };
        let more = if self.count > 1 { format!(", and {} more", self.count - 1) } else { String::new() };
        format!("{}{for_row}{more}", self.message)
    }
}

/// One of the errors of a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowError {
    pub(crate) operator: String,
    pub(crate) message: String,
    pub(crate) row: String,
    pub(crate) count: i64,
}

/// The errors of a query: those with their texts, and rows that fail, whose texts are computed for a reader.
#[derive(Debug)]
pub(in crate::run) struct QueryErrors {
    /// The errors with their texts, with the columns of [`ERRORS`].
    texts: Rows,
    /// The failing rows of each stage, by the stage's place.
    rows: BTreeMap<(usize, usize), (FailingStage, Rows)>,
    /// True if some texts may be those of failing rows, from a checkpoint of a version that kept no rows: until
    /// they are gone, all errors are texts, so that they cancel out.
    is_old: bool,
}

/// The errors of a query at one point in time.
#[derive(Debug)]
pub(crate) struct ErrorsSnapshot {
    texts: RowsSnapshot,
    rows: Vec<(FailingStage, RowsSnapshot)>,
}

impl Default for QueryErrors {
    fn default() -> QueryErrors {
        QueryErrors { texts: Rows::new(ERRORS.clone()), rows: BTreeMap::new(), is_old: false }
    }
}

impl QueryErrors {
    /// Applies the errors of a change.
    pub(super) fn apply(&mut self, errors: &Delta, failing: &[FailingRows]) -> Result<()> {
        self.texts.apply(errors).map_err(error::state)?;
        for FailingRows { stage, rows } in failing {
            if self.is_old {
                self.texts.apply(&texts_of(stage, rows)?).map_err(error::state)?;
                continue;
            }
            let of_stage = || (stage.clone(), Rows::new(stage.schema().clone()));
            let (_, kept) = self.rows.entry(stage.place()).or_insert_with(of_stage);
            kept.apply(rows).map_err(error::state)?;
            if kept.num_rows() == 0 {
                self.rows.remove(&stage.place());
            }
        }
        self.is_old &= self.texts.num_rows() > 0;
        Ok(())
    }

    /// Returns the number of errors.
    pub(in crate::run) fn count(&self) -> usize {
        self.texts.num_rows() + self.rows.values().map(|(_, rows)| rows.num_rows()).sum::<usize>()
    }

    /// Returns the first error in text order, if there is one; of many errors, the first of the oldest ones.
    pub(in crate::run) fn first(&self) -> Option<FirstError> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let first = self.first_texts().map(|texts| {
            let errors = row_errors(&texts).into_iter();
            errors.min_by(|a, b| (&a.message, &a.row).cmp(&(&b.message, &b.row)))
        });
        let (message, row) = match first {
            Ok(Some(error)) => (error.message, error.row),
            Ok(None) => ("it fails for some rows".into(), String::new()),
            Err(error) => (error.message, String::new()),
        };
        Some(FirstError { message, row, count })
    }

    /// Returns the texts of the oldest errors, of as many as can be computed quickly.
    fn first_texts(&self) -> Result<Delta> {
        let begun = Instant::now();
        let first_rows = |rows: &Rows| rows.snapshot().first_rows(FIRST_ROWS).map_err(error::arrow);
        let mut all = first_rows(&self.texts)?;
        for (stage, rows) in self.rows.values() {
            let mut part_rows = 1;
            for chunk in first_rows(rows)?.chunks {
                let (mut from, count) = (0, chunk.rows.num_rows());
                while from < count && (all.is_empty() || begun.elapsed() < FIRST_TIME) {
                    let part = chunk.slice(from, part_rows.min(count - from));
                    all.append(texts_of(stage, &Delta::of(part))?);
                    from += part_rows;
                    part_rows *= 4;
                }
            }
        }
        Ok(all)
    }

    /// Returns the present errors; later changes don't touch them.
    pub(in crate::run) fn snapshot(&self) -> ErrorsSnapshot {
        let rows = self.rows.values().map(|(stage, rows)| (stage.clone(), rows.snapshot()));
        ErrorsSnapshot { texts: self.texts.snapshot(), rows: rows.collect() }
    }

    /// Returns the approximate memory in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.texts.memory_bytes() + self.rows.values().map(|(_, rows)| rows.memory_bytes()).sum::<usize>()
    }

    /// Adds the changes since the newest checkpoint.
    pub(super) fn save(&self, all: &mut Tables) -> Result<()> {
        put_rows(all, "errors", &self.texts)?;
        let mut failing = Tables::default();
        for ((node, number), (_, rows)) in &self.rows {
            put_rows(&mut failing, &format!("{node}.{number}"), rows)?;
        }
        all.put_part("failing", failing);
        all.put_number_if(KEEPS_ROWS, (!self.is_old).then_some(1));
        Ok(())
    }

    /// Loads saved errors of a flow.
    pub(super) fn load(&mut self, all: &mut Tables, flow: &Flow) -> Result<()> {
        take_rows(all, "errors", &mut self.texts)?;
        self.is_old = all.take_number_if(KEEPS_ROWS).is_none() && self.texts.num_rows() > 0;
        let mut failing = all.take_part("failing");
        let names: Vec<String> = failing.tables().map(|(name, _)| name.to_string()).collect();
        for name in names {
            let place = name
                .split_once('.')
                .and_then(|(node, number)| Some((node.parse().ok()?, number.parse().ok()?)));
            let stage = place.and_then(|(node, number)| FailingStage::find(flow, node, number));
            let Some(stage) = stage else {
                let found = format!("it has failing rows of stage {name}, which its query doesn't have");
                return Err(Error::new(Kind::Corrupt, found));
            };
            let mut rows = Rows::new(stage.schema().clone());
            take_rows(&mut failing, &name, &mut rows)?;
            self.rows.insert(stage.place(), (stage, rows));
        }
        Ok(())
    }
}

impl ErrorsSnapshot {
    /// Returns the number of errors.
    pub(crate) fn count(&self) -> usize {
        self.texts.num_rows() + self.rows.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>()
    }

    /// Returns all errors with their texts, with the columns of [`ERRORS`].
    pub(super) fn texts(self) -> Result<Delta> {
        let mut all = self.texts.delta().map_err(error::arrow)?;
        for (stage, rows) in self.rows {
            all.append(texts_of(&stage, &rows.delta().map_err(error::arrow)?)?);
        }
        Ok(all)
    }

    /// Returns all errors, in text order.
    pub(crate) fn all(self) -> Result<Vec<RowError>> {
        let mut errors = row_errors(&consolidate(self.texts()?, &ERRORS).map_err(error::arrow)?);
        errors.sort();
        Ok(errors)
    }
}

/// Returns a change with all of its errors as texts.
pub(in crate::run) fn with_texts(mut change: Change) -> Result<Change> {
    for FailingRows { stage, rows } in std::mem::take(&mut change.failing) {
        change.errors.append(texts_of(&stage, &rows)?);
    }
    Ok(change)
}

/// Computes the texts of failing rows. A function of users may panic although it didn't before.
fn texts_of(stage: &FailingStage, rows: &Delta) -> Result<Delta> {
    let texts = std::panic::catch_unwind(AssertUnwindSafe(|| stage.errors(rows)));
    let texts = texts.map_err(|said| panicked("computing the reason of an error", said.as_ref()))?;
    in_words(texts.map_err(error::flow)?)
}

fn row_errors(errors: &Delta) -> Vec<RowError> {
    let mut all = Vec::with_capacity(errors.num_rows());
    for chunk in &errors.chunks {
        let text = |column: usize, row| chunk.rows.column(column).as_string_view().value(row).to_string();
        all.extend((0..chunk.rows.num_rows()).map(|row| RowError {
            operator: text(0, row),
            message: text(1, row),
            row: text(2, row),
            count: chunk.weight(row),
        }));
    }
    all
}

/// Words errors as a SELECT does. Equal messages stay equal, so their weights still cancel out.
pub(in crate::run) fn in_words(errors: Delta) -> Result<Delta> {
    let mut worded = Delta::default();
    for Chunk { rows, weights } in errors.chunks {
        let mut messages = StringViewBuilder::with_capacity(rows.num_rows()).with_deduplicate_strings();
        // Rows often fail for the same reason as the row before.
        let (mut last, mut words) = ("", String::new());
        for message in rows.column(1).as_string_view().iter().flatten() {
            if message != last {
                (last, words) = (message, millstream_sql::of_data(message));
            }
            messages.append_value(&words);
        }
        let messages: ArrayRef = Arc::new(messages.finish());
        let columns = vec![rows.column(0).clone(), messages, rows.column(2).clone()];
        let rows = RecordBatch::try_new(ERRORS.clone(), columns).map_err(error::arrow)?;
        worded.push(Chunk { rows, weights });
    }
    Ok(worded)
}
