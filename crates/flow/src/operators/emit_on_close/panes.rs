//! The rows of open windows, kept by window until it closes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use millstream_delta::{Chunk, Delta, consolidate, under_schema};
use millstream_state::{Tables, compact};

use crate::Result;
use crate::persistence::incomplete;

/// The number of an open window's chunks that are kept unmerged.
const CHUNKS: usize = 64;
/// The column with the window of saved rows.
const WINDOW: &str = "_window";

/// The rows of open windows, of several inputs. Rows of windows without a time aren't here: these never
/// close.
#[derive(Debug)]
pub(super) struct Panes {
    schemas: Vec<SchemaRef>,
    /// The rows by the window's time and input.
    open: BTreeMap<i64, Vec<Pane>>,
}

/// The rows of one input for one window.
#[derive(Clone, Debug, Default)]
struct Pane {
    delta: Delta,
    /// The number of rows at the last merge.
    settled: usize,
}

impl Pane {
    /// Adds rows. As they grow, inserts cancel with deletes, and small chunks are merged.
    fn push(&mut self, chunk: Chunk, schema: &SchemaRef) -> Result<()> {
        self.delta.push(chunk);
        if self.delta.chunks.len() > CHUNKS && self.delta.num_rows() > 2 * self.settled {
            let delta = std::mem::take(&mut self.delta);
            self.delta = match delta.is_append_only() {
                true => delta.into_one(schema)?.map(Delta::of).unwrap_or_default(),
                false => consolidate(delta, schema)?,
            };
            self.settled = self.delta.num_rows();
        }
        Ok(())
    }
}

impl Panes {
    /// Returns no rows, for inputs with these columns.
    pub(super) fn new(schemas: Vec<SchemaRef>) -> Panes {
        Panes { schemas, open: BTreeMap::new() }
    }

    /// Adds rows of an input to their windows.
    pub(super) fn hold(&mut self, input: usize, chunk: &Chunk, times: &Int64Array) -> Result<()> {
        let schema = self.schemas[input].clone();
        for (time, chunk) in by_window(chunk, times)? {
            self.pane(time, input).push(chunk, &schema)?;
        }
        Ok(())
    }

    fn pane(&mut self, time: i64, input: usize) -> &mut Pane {
        let inputs = self.schemas.len();
        &mut self.open.entry(time).or_insert_with(|| vec![Pane::default(); inputs])[input]
    }

    /// Removes and returns the rows of windows whose time is below a bound, summed for each input.
    pub(super) fn close(&mut self, bound: i64) -> Result<Vec<Delta>> {
        let still_open = self.open.split_off(&bound);
        let closing = std::mem::replace(&mut self.open, still_open);
        let mut inputs = vec![Delta::default(); self.schemas.len()];
        for panes in closing.into_values() {
            for (input, pane) in inputs.iter_mut().zip(panes) {
                input.append(pane.delta);
            }
        }
        for (input, schema) in inputs.iter_mut().zip(&self.schemas) {
            if !input.is_append_only() {
                *input = consolidate(std::mem::take(input), schema)?;
            }
        }
        Ok(inputs)
    }

    /// Returns the time of the first open window.
    pub(super) fn first(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// Saves the rows of each input with their windows, and the open windows: one may have lost its rows.
    pub(super) fn save(&self, kept: &mut Tables) -> Result<()> {
        let windows: ArrayRef = Arc::new(Int64Array::from_iter_values(self.open.keys().copied()));
        kept.put_columns("open_windows", vec![("window", windows)])?;
        for input in 0..self.schemas.len() {
            let mut rows: Vec<(Chunk, ArrayRef)> = Vec::new();
            for (time, panes) in &self.open {
                for Chunk { rows: batch, weights } in &panes[input].delta.chunks {
                    let windows = Int64Array::from_value(*time, batch.num_rows());
                    // Inputs may have other column names; a table has one schema.
                    let batch = under_schema(batch, &self.schemas[input])?;
                    rows.push((Chunk { rows: batch, weights: weights.clone() }, Arc::new(windows)));
                }
            }
            kept.put_beside(&held(input), WINDOW, rows)?;
        }
        Ok(())
    }

    /// Loads saved rows.
    pub(super) fn load(&mut self, kept: &mut Tables) -> Result<()> {
        let windows = kept.take_table("open_windows")?.numbers::<Int64Type>("window")?;
        let none = || vec![Pane::default(); self.schemas.len()];
        self.open.extend(windows.values().iter().map(|time| (*time, none())));
        for input in 0..self.schemas.len() {
            let schema = self.schemas[input].clone();
            for (chunk, windows) in kept.take_beside(&held(input), WINDOW)? {
                let windows = windows.as_primitive_opt::<Int64Type>();
                let windows = windows.ok_or_else(|| incomplete(format!("no times in '{WINDOW}'")))?;
                let chunk = Chunk { rows: under_schema(&chunk.rows, &schema)?, ..chunk };
                for (time, chunk) in by_window(&chunk, windows)? {
                    // Loaded unmerged: a later merge cancels inserts with deletes.
                    let pane = self.pane(time, input);
                    pane.settled += chunk.rows.num_rows();
                    pane.delta.push(chunk);
                }
            }
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.open = BTreeMap::new();
    }

    pub(super) fn num_rows(&self) -> usize {
        self.open.values().flatten().map(|pane| pane.delta.num_rows()).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.open.values().flatten().map(|pane| pane.delta.memory_bytes()).sum()
    }
}

/// Returns the rows of each window, without those of no window.
fn by_window(chunk: &Chunk, times: &Int64Array) -> Result<Vec<(i64, Chunk)>> {
    let mut rows: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, time) in times.iter().enumerate().filter_map(|(row, time)| Some((row, time?))) {
        rows.entry(time).or_default().push(row as u32);
    }
    let of = |(time, rows): (i64, Vec<u32>)| {
        let all = rows.len() == times.len();
        Ok((time, if all { chunk.clone() } else { these(chunk, rows)? }))
    };
    rows.into_iter().map(of).collect()
}

/// Returns the name of the table of an input's rows.
fn held(input: usize) -> String {
    format!("held{input}")
}

/// Returns copies of some of the rows, which keep no reference to the others.
fn these(chunk: &Chunk, rows: Vec<u32>) -> Result<Chunk> {
    let rows = UInt32Array::from(rows);
    let weights: Option<Int64Array> = match &chunk.weights {
        Some(weights) => Some(take(weights, &rows, None)?.as_primitive::<Int64Type>().clone()),
        None => None,
    };
    Ok(Chunk { rows: compact(&take_record_batch(&chunk.rows, &rows)?)?, weights })
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::fixture::sorted;

    fn rows(values: &[i64], weight: i64) -> Chunk {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        let values = Arc::new(Int64Array::from(values.to_vec()));
        let weights = Some(Int64Array::from(vec![weight; values.len()]));
        Chunk { rows: RecordBatch::try_new(schema, vec![values]).unwrap(), weights }
    }

    fn again(panes: &Panes) -> Panes {
        let (mut kept, mut new) = (Tables::default(), Panes::new(panes.schemas.clone()));
        panes.save(&mut kept).unwrap();
        new.load(&mut kept).unwrap();
        assert_eq!(kept.left(), None);
        assert_eq!((new.first(), new.num_rows()), (panes.first(), panes.num_rows()));
        new
    }

    #[test]
    fn windows_stay_open_whose_rows_have_gone() {
        let schemas = vec![rows(&[], 1).rows.schema(); 2];
        let mut panes = Panes::new(schemas);
        for n in 0..50 {
            for weight in [1, -1] {
                panes.hold(1, &rows(&[n], weight), &Int64Array::from(vec![4])).unwrap();
            }
        }
        assert_eq!((panes.first(), panes.num_rows() < 50), (Some(4), true));
        panes.hold(0, &rows(&[7, 8, 9], 2), &Int64Array::from(vec![Some(6), None, Some(9)])).unwrap();
        panes.hold(1, &rows(&[5], 1), &Int64Array::from(vec![6])).unwrap();
        // Deletes that arrive after the last merge.
        for n in 0..40 {
            panes.hold(0, &rows(&[n, n], -1), &Int64Array::from(vec![9, 6])).unwrap();
        }
        let mut new = again(&again(&panes));
        for bound in [5, 7, 7, 10] {
            let closed = [panes.close(bound).unwrap(), new.close(bound).unwrap()];
            let [closed, of_new] = closed.map(|inputs| inputs.iter().map(sorted).collect::<Vec<_>>());
            assert_eq!(closed, of_new);
        }
        assert_eq!(again(&new).first(), None);
    }

    #[test]
    fn rows_of_other_columns_do_not_fit() {
        let mut panes = Panes::new(vec![rows(&[], 1).rows.schema()]);
        panes.hold(0, &rows(&[7], 1), &Int64Array::from(vec![6])).unwrap();
        let mut kept = Tables::default();
        panes.save(&mut kept).unwrap();
        let other = Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8, true)]));
        assert!(Panes::new(vec![other]).load(&mut kept.clone()).is_err());
        let held = kept.take("held0").unwrap();
        kept.put("held0", held.iter().map(|batch| batch.project(&[0, 2]).unwrap()).collect());
        assert!(Panes::new(panes.schemas.clone()).load(&mut kept).is_err());
    }
}
