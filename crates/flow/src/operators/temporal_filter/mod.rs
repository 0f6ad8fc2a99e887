//! Temporal filters: rows that enter or leave the result as time passes. The filter compares a value of the
//! row with a monotonic function of the time.
//!
//! `ts <= now()` holds from some time on: a row waits until then, is emitted, and is dropped. `ts > now() -
//! INTERVAL '1 hour'` holds up to some time: a row is emitted at once, and kept until it is retracted and
//! dropped. Kept rows are sorted by their values. So a step touches only rows that arrive, enter, leave or
//! change, and the next time to act is that of the first row. (Temporal filters: McSherry et al.,
//! *Materialize*, its documentation's "Temporal filters".)
//!
//! Deliberately absent: recognising such conditions; see `lower`. A row with a NULL value never passes.

mod bound;
#[cfg(test)]
mod tests;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Chunk, Cut, Delta, Timestamp, consolidate};
use millstream_state::{Moved, Ordered, Size, Spillable, Tables, successor};

use crate::operator::{
    Abilities, Content, Description, Growth, KeepsResult, Operator, Output, Properties, State, Timers,
};
use crate::parallelism::Threads;
use crate::sorted::{Change, Ordering, Sorted, Sorter};
use crate::{Error, Result};
pub use bound::Bound;

/// The maximum number of rows of one output batch.
const OUTPUT_ROWS: Size = Size::of(16_384);

/// The effect on a row when the bound reaches its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// The row is in the result from then on.
    Enters,
    /// The row is in the result up to then.
    Leaves,
}

/// The parts of a TemporalFilter operator.
#[derive(Debug)]
pub struct TemporalFilterSpec {
    /// The properties of the output, which has the input's columns.
    pub properties: Properties,
    /// The order of rows: by the compared value alone.
    pub ordering: Ordering,
    /// The bound that the value is compared with.
    pub bound: Bound,
    /// The effect on a row that passes.
    pub passing: Passing,
    /// True if a row also passes when the bound equals its value, not only when the bound is greater.
    pub inclusive: bool,
    /// The condition, for EXPLAIN.
    pub detail: String,
    /// The threads for large changes.
    pub threads: Threads,
}

/// Keeps rows until they pass.
#[derive(Debug)]
pub struct TemporalFilter {
    properties: Properties,
    sorter: Sorter,
    /// The rows that have not passed.
    rows: Ordered,
    bound: Bound,
    passing: Passing,
    inclusive: bool,
    detail: String,
    /// The lower bound of keys whose values have not passed, and the time of that bound; `None` before the
    /// first step.
    passed: Option<(Box<[u8]>, Timestamp)>,
    /// The key's prefix for a row without a value.
    unknown: Box<[u8]>,
    /// The time when the first row passes.
    wake_at: Option<Timestamp>,
}

impl TemporalFilter {
    /// Returns the operator; `None` if the values have no order in bytes.
    pub fn new(parts: TemporalFilterSpec) -> Result<Option<TemporalFilter>> {
        let TemporalFilterSpec { properties, ordering, bound, passing, inclusive, detail, threads } = parts;
        let schema: SchemaRef = properties.schema.clone();
        let Some(sorter) = Sorter::new(ordering, &schema, threads)? else { return Ok(None) };
        let unknown = sorter.order_bytes(&[bound.unknown()])?.into();
        Ok(Some(TemporalFilter {
            properties,
            sorter,
            rows: Ordered::new(schema),
            bound,
            passing,
            inclusive,
            detail,
            passed: None,
            unknown,
            wake_at: None,
        }))
    }

    /// Returns the lower bound of keys whose values have not passed at a time.
    fn passed_at(&self, now: Timestamp) -> Result<Box<[u8]>> {
        let bytes = self.sorter.order_bytes(&[self.bound.at(&[now.0])?])?;
        Ok(match self.inclusive {
            true => successor(&bytes).unwrap_or(bytes).into(),
            false => bytes.into(),
        })
    }

    /// Handles the rows that have passed: they enter the result, or leave it.
    fn pass(&mut self, passed: &[u8], output: &mut Delta) -> Result<()> {
        let end = self.rows.position(passed);
        if end == 0 {
            return Ok(());
        }
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        let sign = if self.passing == Passing::Enters { 1 } else { -1 };
        self.rows.scan(0, &mut |position, entry| {
            if position >= end {
                return false;
            }
            ids.push(entry.id);
            weights.push(sign * entry.copies as i64);
            true
        });
        for (ids, weights) in ids.chunks(OUTPUT_ROWS.get()).zip(weights.chunks(OUTPUT_ROWS.get())) {
            output.push(chunk(self.rows.gather(ids)?, weights.to_vec()));
        }
        self.rows.remove(0..end);
        Ok(())
    }

    /// Processes changes of the input; rows that have not passed are kept.
    fn take(&mut self, sorted: &Sorted, passed: &[u8], output: &mut Delta) -> Result<()> {
        let changes = sorted.changes();
        let known: Vec<Change<'_>> =
            changes.into_iter().filter(|change| *change.peers != *self.unknown).collect();
        // The changes are in the order of their values.
        let (before, after) = known.split_at(known.partition_point(|change| change.peers < passed));
        let moved: Vec<Moved<'_>> = after
            .iter()
            .map(|change| Moved { key: change.key, row: change.row, weight: change.weight })
            .collect();
        self.rows.apply(&sorted.rows, &moved)?;
        let shown = if self.passing == Passing::Enters { before } else { after };
        for shown in shown.chunks(OUTPUT_ROWS.get()) {
            let places = UInt32Array::from_iter_values(shown.iter().map(|change| change.row));
            let rows = take_record_batch(&sorted.rows, &places)?;
            output.push(chunk(rows, shown.iter().map(|change| change.weight).collect()));
        }
        Ok(())
    }

    /// Returns the time when the first kept row passes.
    fn next_pass(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let mut first: Option<Vec<u8>> = None;
        self.rows.scan(0, &mut |_, entry| {
            first = Some(entry.key[..self.unknown.len()].to_vec());
            false
        });
        let Some(first) = first else { return Ok(None) };
        self.bound.reaches(now, |values| {
            let rows = self.sorter.order_rows(std::slice::from_ref(values))?;
            Ok(rows.iter().position(|bound| match self.inclusive {
                true => *bound.data() >= *first,
                false => *bound.data() > *first,
            }))
        })
    }
}

fn chunk(rows: RecordBatch, weights: Vec<i64>) -> Chunk {
    let weights = weights.iter().any(|weight| *weight != 1).then(|| Int64Array::from(weights));
    Chunk { rows, weights }
}

impl TemporalFilter {
    /// Returns the saved state beside the rows.
    fn beside(&self) -> Tables {
        let mut kept = Tables::default();
        kept.put_number_if("passed_at", self.passed.as_ref().map(|(_, since)| since.0));
        kept.put_number_if("wake_at", self.wake_at.map(|time| time.0));
        kept
    }
}

impl Operator for TemporalFilter {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let (state, growth) = match self.passing {
            Passing::Enters => {
                ("rows until they are due", Growth::With("the rows that are not due yet".into()))
            }
            Passing::Leaves => {
                ("rows until they expire", Growth::BoundedBy("rows expire as time passes".into()))
            }
        };
        Description {
            name: "TemporalFilter",
            detail: self.detail.clone(),
            state: state.into(),
            growth,
            ..Description::default()
        }
    }

    fn step(&mut self, cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let [input] = inputs else { return Err(Error::Bug("TemporalFilter has one input".into())) };
        let mut output = Output::default();
        let at = (self.passed_at(cut.now)?, cut.now);
        // If the time is set back, passed rows stay passed.
        let (passed, since) = self.passed.take().filter(|before| before.0 > at.0).unwrap_or(at);
        self.pass(&passed, &mut output.rows)?;
        let mut mixed = !output.rows.is_empty() && self.passing == Passing::Enters && !input.is_append_only();
        let sorted = self.sorter.sort(input, &mut output.failures)?;
        for piece in &sorted {
            self.take(piece, &passed, &mut output.rows)?;
        }
        mixed |= sorted.len() > 1 && !input.is_append_only();
        if mixed {
            output.rows = consolidate(output.rows, &self.properties.schema)?;
        }
        self.passed = Some((passed, since));
        self.wake_at = self.next_pass(cut.now)?;
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { timers: Some(self), result: Some(self), ..Abilities::default() }
    }
}

impl State for TemporalFilter {
    fn reset(&mut self) -> Result<()> {
        self.rows = Ordered::new(self.rows.schema().clone());
        (self.passed, self.wake_at) = (None, None);
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = self.beside();
        kept.put_delta("rows", &self.rows.delta()?)?;
        Ok(kept)
    }

    fn save_changed(&self) -> Result<Tables> {
        let mut kept = self.beside();
        self.rows.save_changed("rows", &mut kept)?;
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.sorter.load(kept, &mut self.rows, |_| {})?;
        self.passed = match kept.take_number_if("passed_at").map(Timestamp) {
            Some(since) => Some((self.passed_at(since)?, since)),
            None => None,
        };
        self.wake_at = kept.take_number_if("wake_at").map(Timestamp);
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.rows.num_rows()
    }

    fn state_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.rows);
    }
}

impl Timers for TemporalFilter {
    fn is_due(&self, cut: &Cut) -> bool {
        self.wake_at.is_some_and(|time| time <= cut.now)
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }
}

impl KeepsResult for TemporalFilter {
    /// Returns the kept rows for [`Passing::Leaves`]: they are those in the result.
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        let all = || {
            let mut ids = Vec::new();
            self.rows.scan(0, &mut |_, entry| {
                ids.extend(std::iter::repeat_n(entry.id, entry.copies as usize));
                true
            });
            ids.chunks(OUTPUT_ROWS.get()).map(|ids| Ok(self.rows.gather(ids)?)).collect()
        };
        (self.passing == Passing::Leaves).then(all)
    }
}
