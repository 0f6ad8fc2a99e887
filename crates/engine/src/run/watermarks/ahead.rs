//! Rows of a source whose event time is too far ahead of the clock. They become bad rows, so one wrong clock doesn't
//! move the watermark past all other rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{and, filter_record_batch, not};
use arrow::datatypes::{DataType, UInt64Type};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use millstream_connect::{Arrival, BadRow, Changes};
use millstream_delta::Timestamp;
use millstream_sql::Result;
use millstream_state::Tables;

use super::column::TimeColumn;
use super::marks::Seen;
use crate::error;

/// The rows of a source's splits that became bad rows, so a second reading of the splits leaves them out as well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead {
    /// The number of rows that each split has had.
    rows: BTreeMap<Arc<str>, u64>,
    /// The numbers of the rows that became bad rows.
    aside: BTreeMap<Arc<str>, Vec<Range<u64>>>,
}

impl Ahead {
    /// Takes rows later than a bound out of an arrival, and returns the newest time of the others by split.
    pub(crate) fn take_out(
        &mut self,
        arrival: &mut Arrival,
        column: Option<&TimeColumn>,
        changes: bool,
        latest: Option<Timestamp>,
    ) -> Result<Seen> {
        let mut seen = Seen::new();
        for place in 0..arrival.rows.len() {
            let Some(split) = arrival.split_of(place).cloned() else { continue };
            let rows = arrival.rows[place].clone();
            let count = self.rows.entry(split.clone()).or_default();
            let first = std::mem::replace(count, *count + rows.num_rows() as u64);
            let Some(column) = column else { continue };
            // A change that deletes a row has no time of its own.
            let comes = match changes {
                true => Some(not(&Changes::of(&rows).map_err(error::connect)?.goes).map_err(error::arrow)?),
                false => None,
            };
            let ahead = latest.map_or(Ok(None), |latest| column.ahead(&rows, latest))?;
            let Some((ahead, latest)) = ahead.zip(latest) else {
                merge(&mut seen, split, column.newest(&rows, comes.as_ref())?);
                continue;
            };
            let ahead = comes.as_ref().map_or(Ok(ahead.clone()), |comes| and(&ahead, comes));
            let ahead = ahead.map_err(error::arrow)?;
            let stays = not(&ahead).map_err(error::arrow)?;
            let counts =
                comes.map_or(Ok(stays.clone()), |comes| and(&stays, &comes)).map_err(error::arrow)?;
            merge(&mut seen, split.clone(), column.newest(&rows, Some(&counts))?);
            arrival.rows[place] = filter_record_batch(&rows, &stays).map_err(error::arrow)?;
            for row in (0..ahead.len()).filter(|row| ahead.value(*row)) {
                self.note(&split, first + row as u64);
                let reason = reason(column, &rows, row, latest);
                let bad = bad_row(arrival, &split, reason, text(&rows, row, changes));
                arrival.bad_rows.push(bad);
            }
        }
        Ok(seen)
    }

    /// Saves the numbers of the rows.
    pub(crate) fn save(&self) -> Result<Tables> {
        let mut all = Tables::default();
        let splits: ArrayRef = Arc::new(StringArray::from_iter_values(self.rows.keys().map(AsRef::as_ref)));
        let rows: ArrayRef = Arc::new(UInt64Array::from_iter_values(self.rows.values().copied()));
        all.put_columns("rows", vec![("split", splits), ("rows", rows)]).map_err(error::state)?;
        let aside =
            || self.aside.iter().flat_map(|(split, ranges)| ranges.iter().map(move |range| (split, range)));
        // The length of a text array must be known beforehand, which a flattened iterator can't tell.
        let splits: Vec<&str> = aside().map(|(split, _)| split.as_ref()).collect();
        let splits: ArrayRef = Arc::new(StringArray::from(splits));
        let from: ArrayRef = Arc::new(UInt64Array::from_iter_values(aside().map(|(_, range)| range.start)));
        let to: ArrayRef = Arc::new(UInt64Array::from_iter_values(aside().map(|(_, range)| range.end)));
        all.put_columns("aside", vec![("split", splits), ("from", from), ("to", to)])
            .map_err(error::state)?;
        Ok(all)
    }

    /// Loads the saved numbers.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let types = [DataType::Utf8, DataType::UInt64, DataType::UInt64];
        let rows = all.take_columns("rows", &types[..2]).map_err(error::state)?;
        let (splits, counts) = (rows[0].as_string::<i32>(), rows[1].as_primitive::<UInt64Type>());
        self.rows = (0..splits.len()).map(|row| (splits.value(row).into(), counts.value(row))).collect();
        let aside = all.take_columns("aside", &types).map_err(error::state)?;
        let (splits, from) = (aside[0].as_string::<i32>(), aside[1].as_primitive::<UInt64Type>());
        let to = aside[2].as_primitive::<UInt64Type>();
        for row in 0..splits.len() {
            self.aside.entry(splits.value(row).into()).or_default().push(from.value(row)..to.value(row));
        }
        Ok(())
    }

    fn note(&mut self, split: &Arc<str>, row: u64) {
        let ranges = self.aside.entry(split.clone()).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end += 1,
            _ => ranges.push(row..row + 1),
        }
    }

    /// Returns true if no row became a bad row.
    pub(crate) fn is_empty(&self) -> bool {
        self.aside.is_empty()
    }

    /// Returns rows of a split without those that became bad rows; `first` is the number of the first row.
    pub(crate) fn without(&self, split: &str, first: u64, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(aside) = self.aside.get(split) else { return Ok(rows) };
        let end = first + rows.num_rows() as u64;
        if !aside.iter().any(|range| range.start < end && range.end > first) {
            return Ok(rows);
        }
        let stays: BooleanArray = (first..end)
            .map(|row| {
                let after = aside.partition_point(|range| range.end <= row);
                Some(!aside.get(after).is_some_and(|range| range.contains(&row)))
            })
            .collect();
        filter_record_batch(&rows, &stays).map_err(error::arrow)
    }
}

/// Adds the newest time of a split.
pub(crate) fn merge(seen: &mut Seen, split: Arc<str>, newest: Option<i64>) {
    let known = seen.entry(split).or_default();
    *known = newest.max(*known);
}

/// Returns the reason why a row is bad.
fn reason(column: &TimeColumn, rows: &RecordBatch, row: usize, latest: Timestamp) -> String {
    let (name, text) = (column.name(), column.text(rows, row));
    format!(
        "its event time {name} = {text} is later than {latest}, the clock with event_time_ahead_max: fix it and insert it \
         again, or SET event_time_ahead_max"
    )
}

/// Returns a bad row, with the beginning of the span in which it arrived, and its content.
fn bad_row(arrival: &Arrival, split: &Arc<str>, reason: String, bytes: Vec<u8>) -> BadRow {
    let offset = arrival.spans.iter().find(|span| span.split == *split).map_or(0, |span| span.from);
    BadRow { split: split.clone(), offset, reason, bytes }
}

/// Returns a row as a line of JSON; empty if its types have none.
fn text(rows: &RecordBatch, row: usize, changes: bool) -> Vec<u8> {
    let columns: Vec<usize> = (0..rows.num_columns() - usize::from(changes)).collect();
    let write = || -> Result<Vec<u8>, ArrowError> {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&rows.slice(row, 1).project(&columns)?)?;
        writer.finish()?;
        Ok(writer.into_inner())
    };
    let mut text = write().unwrap_or_default();
    text.truncate(text.trim_ascii_end().len().min(BadRow::BYTES_MAX));
    text
}
