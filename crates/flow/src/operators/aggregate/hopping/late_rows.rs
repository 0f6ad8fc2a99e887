//! Separates the rows that are in time for some window from those that are late for others.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::{cast, filter, take, take_record_batch};
use arrow::datatypes::Int64Type;
use datafusion::common::exec_datafusion_err;
use millstream_delta::Chunk;

use super::{HoppingAggregate, Hops};
use crate::Result;
use crate::event_time::{Edge, count};
use crate::failure::keep;
use crate::late_rows::Late;
use crate::operator::Output;

/// The times and panes of rows.
pub(super) struct Placed {
    times: Int64Array,
    /// The starts of the rows' panes.
    panes: Int64Array,
}

/// Returns the panes of rows with these times; fails if their windows are outside of the representable range.
pub(super) fn placed(hops: Hops, times: &ArrayRef) -> Result<Placed> {
    let times = count(times)?;
    let mut panes = Vec::with_capacity(times.len());
    for (row, time) in times.values().iter().enumerate() {
        panes.push(match hops.pane(*time) {
            Some(pane) => pane,
            None if times.is_null(row) => 0,
            None => {
                let message = "a window around this time would begin or end outside the range of its type";
                return Err(exec_datafusion_err!("{message}").into());
            }
        });
    }
    let panes = Int64Array::new(panes.into(), times.nulls().cloned());
    Ok(Placed { times, panes })
}

impl HoppingAggregate {
    /// Returns the rows that are in time for some window, with their panes. A row is emitted as late once for
    /// each closed window that contains it; so is a row without a time, whose window never closes.
    pub(super) fn in_time(&mut self, chunk: Chunk, placed: &Placed, output: &mut Output) -> Result<Chunk> {
        let Placed { times, panes } = placed;
        let hops = self.hopping.hops;
        // A row at or after the last closed window's end is late for no window.
        let late_below = self.first_open.map(|open| open.saturating_sub(hops.step()));
        let all = times.null_count() == 0
            && late_below.is_none_or(|below| times.values().iter().all(|time| *time >= below));
        if all {
            return self.beside(chunk, panes.clone());
        }
        let (mut rows, mut ends) = (Vec::new(), Vec::new());
        for (row, pane) in panes.iter().enumerate() {
            let Some(pane) = pane else {
                rows.push(row as u32);
                ends.push(None);
                continue;
            };
            let mut end = hops.first_end(pane);
            while self.first_open.is_some_and(|open| end < open) && hops.start(end) <= pane {
                rows.push(row as u32);
                ends.push(Some(end));
                end += hops.step();
            }
        }
        self.put_aside(&chunk, rows, ends, output)?;
        let open_from = self.first_open.map(|open| hops.start(open));
        let is_open = |pane: i64| open_from.is_none_or(|from| pane >= from);
        let in_time: BooleanArray = panes.iter().map(|pane| Some(pane.is_some_and(is_open))).collect();
        let panes = filter(panes, &in_time)?.as_primitive::<Int64Type>().clone();
        self.beside(keep(&chunk, &in_time)?, panes)
    }

    /// Returns rows with their panes.
    fn beside(&self, chunk: Chunk, panes: Int64Array) -> Result<Chunk> {
        let options = RecordBatchOptions::new().with_row_count(Some(chunk.rows.num_rows()));
        let mut columns = chunk.rows.columns().to_vec();
        columns.push(std::sync::Arc::new(panes));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Chunk { rows, weights: chunk.weights })
    }

    /// Emits rows as late for the windows with these ends.
    fn put_aside(
        &mut self,
        chunk: &Chunk,
        rows: Vec<u32>,
        ends: Vec<Option<i64>>,
        output: &mut Output,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(rows);
        let weights = match &chunk.weights {
            Some(weights) => Some(take(weights, &rows, None)?.as_primitive::<Int64Type>().clone()),
            None => None,
        };
        let (ends, hops) = (Int64Array::from(ends), self.hopping.hops);
        let starts: Int64Array = ends.iter().map(|end| end.map(|end| hops.start(end))).collect();
        let (starts, ends) = (cast(&starts, &self.time_type)?, cast(&ends, &self.time_type)?);
        let of = |edge: Edge| match edge {
            Edge::Start => starts.clone(),
            Edge::End => ends.clone(),
        };
        let taken = take_record_batch(&chunk.rows, &rows)?;
        let mut columns = taken.columns().to_vec();
        for (column, edge) in &self.hopping.columns {
            columns[*column] = of(*edge);
        }
        let rows = Chunk { rows: RecordBatch::try_new(taken.schema(), columns)?, weights };
        let late = Late { input: 0, rows, windows: of(self.edge), watermark: self.gate.watermark()? };
        self.gate.put_aside(late, output);
        Ok(())
    }
}
