//! Rows of a source whose event time is too far ahead of the clock. They become bad rows, so one wrong clock doesn't
//! move the watermark past all other rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt64Array,
};
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

/// Ranges of rows by split.
type Ranges = BTreeMap<Arc<str>, Vec<Range<u64>>>;

/// The rows of a source's splits that became bad rows, so a second reading of the splits leaves them out as well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead {
    /// The column with the positions of rows in their splits. Without one, rows are counted.
    column: Option<usize>,
    /// The number of rows that each split has had.
    rows: BTreeMap<Arc<str>, u64>,
    /// The numbers of the rows that became bad rows.
    aside: Ranges,
    /// The positions of the rows that became bad rows. A second reading may lack rows before them.
    aside_at: Ranges,
}

impl Ahead {
    /// Creates an empty value, for a source with this column of positions.
    pub(crate) fn new(column: Option<usize>) -> Ahead {
        Ahead { column, ..Ahead::default() }
    }

    /// Returns the positions of rows in their split, if the source tells them.
    fn positions<'r>(&self, rows: &'r RecordBatch) -> Option<&'r Int64Array> {
        rows.columns().get(self.column?)?.as_primitive_opt()
    }

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
                let at = self.positions(&rows).map(|positions| positions.value(row).max(0) as u64);
                match at {
                    Some(at) => note(&mut self.aside_at, &split, at),
                    None => note(&mut self.aside, &split, first + row as u64),
                }
                let reason = reason(column, &rows, row, latest);
                let bad = bad_row(arrival, &split, at, reason, text(&rows, row, changes));
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
        put_ranges(&mut all, "aside", &self.aside)?;
        put_ranges(&mut all, "aside_at", &self.aside_at)?;
        Ok(all)
    }

    /// Loads the saved numbers.
    pub(crate) fn load(&mut self, all: &mut Tables) -> Result<()> {
        let rows = all.take_columns("rows", &[DataType::Utf8, DataType::UInt64]).map_err(error::state)?;
        let (splits, counts) = (rows[0].as_string::<i32>(), rows[1].as_primitive::<UInt64Type>());
        self.rows = (0..splits.len()).map(|row| (splits.value(row).into(), counts.value(row))).collect();
        self.aside = take_ranges(all, "aside")?;
        self.aside_at = take_ranges(all, "aside_at")?;
        Ok(())
    }

    /// Returns true if no row became a bad row.
    pub(crate) fn is_empty(&self) -> bool {
        self.aside.is_empty() && self.aside_at.is_empty()
    }

    /// Returns rows of a split without those that became bad rows; `first` is the number of the first row.
    pub(crate) fn without(&self, split: &str, first: u64, rows: RecordBatch) -> Result<RecordBatch> {
        let mut rows = rows;
        if let (Some(aside), Some(positions)) = (self.aside_at.get(split), self.positions(&rows)) {
            let stays = positions.values().iter().map(|at| !is_in(aside, (*at).max(0) as u64));
            let stays: BooleanArray = stays.map(Some).collect();
            // Those of an earlier version have numbers, which count these rows.
            let Some(counted) = self.aside.get(split) else {
                return filter_record_batch(&rows, &stays).map_err(error::arrow);
            };
            let numbers = (first..).take(rows.num_rows()).map(|row| Some(!is_in(counted, row)));
            let stays = and(&stays, &numbers.collect()).map_err(error::arrow)?;
            return filter_record_batch(&rows, &stays).map_err(error::arrow);
        }
        let Some(aside) = self.aside.get(split) else { return Ok(rows) };
        let end = first + rows.num_rows() as u64;
        if aside.iter().any(|range| range.start < end && range.end > first) {
            let stays: BooleanArray = (first..end).map(|row| Some(!is_in(aside, row))).collect();
            rows = filter_record_batch(&rows, &stays).map_err(error::arrow)?;
        }
        Ok(rows)
    }
}

/// Adds a row to ranges.
fn note(ranges: &mut Ranges, split: &Arc<str>, row: u64) {
    let ranges = ranges.entry(split.clone()).or_default();
    match ranges.last_mut() {
        Some(last) if last.end == row => last.end += 1,
        _ => ranges.push(row..row + 1),
    }
}

/// Returns true if a row is in one of these ranges, which are in order.
fn is_in(ranges: &[Range<u64>], row: u64) -> bool {
    let after = ranges.partition_point(|range| range.end <= row);
    ranges.get(after).is_some_and(|range| range.contains(&row))
}

/// Saves ranges as a table.
fn put_ranges(all: &mut Tables, name: &str, ranges: &Ranges) -> Result<()> {
    let each = || ranges.iter().flat_map(|(split, ranges)| ranges.iter().map(move |range| (split, range)));
    // The length of a text array must be known beforehand, which a flattened iterator can't tell.
    let splits: Vec<&str> = each().map(|(split, _)| split.as_ref()).collect();
    let splits: ArrayRef = Arc::new(StringArray::from(splits));
    let from: ArrayRef = Arc::new(UInt64Array::from_iter_values(each().map(|(_, range)| range.start)));
    let to: ArrayRef = Arc::new(UInt64Array::from_iter_values(each().map(|(_, range)| range.end)));
    all.put_columns(name, vec![("split", splits), ("from", from), ("to", to)]).map_err(error::state)
}

/// Loads ranges of a table; none if it is missing.
fn take_ranges(all: &mut Tables, name: &str) -> Result<Ranges> {
    let types = [DataType::Utf8, DataType::UInt64, DataType::UInt64];
    let columns = all.take_columns(name, &types).map_err(error::state)?;
    let (splits, from) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<UInt64Type>());
    let (to, mut ranges) = (columns[2].as_primitive::<UInt64Type>(), Ranges::new());
    for row in 0..splits.len() {
        ranges.entry(splits.value(row).into()).or_default().push(from.value(row)..to.value(row));
    }
    Ok(ranges)
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

/// Returns a bad row, with its position, or else the beginning of the span in which it arrived, and its content.
fn bad_row(arrival: &Arrival, split: &Arc<str>, at: Option<u64>, reason: String, bytes: Vec<u8>) -> BadRow {
    let begins = || arrival.spans.iter().find(|span| span.split == *split).map_or(0, |span| span.from);
    let offset = at.unwrap_or_else(begins);
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn rows(positions: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("at", DataType::Int64, false)]);
        let column: ArrayRef = Arc::new(Int64Array::from(positions.to_vec()));
        RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
    }

    fn left(ahead: &Ahead, first: u64, positions: &[i64]) -> Vec<i64> {
        let left = ahead.without("t", first, rows(positions)).unwrap();
        left.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_are_found_again_by_position_if_earlier_ones_are_gone() {
        let split: Arc<str> = "t".into();
        let mut ahead = Ahead::new(Some(0));
        [12, 13, 20].into_iter().for_each(|at| note(&mut ahead.aside_at, &split, at));
        let mut saved = ahead.save().unwrap();
        let mut loaded = Ahead::new(Some(0));
        loaded.load(&mut saved).unwrap();
        assert!(saved.left().is_none() && !loaded.is_empty());
        for (first, positions, expected) in [
            (0, &[10, 11, 12, 13, 14, 20][..], &[10, 11, 14][..]),
            // The first records are gone.
            (0, &[13, 14, 20, 21], &[14, 21]),
            (7, &[21, 22], &[21, 22]),
        ] {
            assert_eq!(left(&loaded, first, positions), expected);
        }
        // A checkpoint of an earlier version has the number of a row.
        note(&mut loaded.aside, &split, 1);
        assert_eq!(left(&loaded, 0, &[10, 11, 12, 14]), [10, 14]);
        // Without positions rows are counted.
        let mut counted = Ahead::default();
        note(&mut counted.aside, &split, 1);
        assert_eq!(left(&counted, 0, &[10, 11, 12]), [10, 12]);
        assert_eq!(left(&counted, 2, &[12, 13]), [12, 13]);
    }
}
