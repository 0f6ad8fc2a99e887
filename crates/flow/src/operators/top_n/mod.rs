//! The first rows of an order, of all rows or of each partition: ORDER BY … LIMIT, and OVER with a bound on
//! the rank.
//!
//! All rows are kept in the order of a key: the values of the partition, those of the order, and columns that
//! break ties. The keys lie in a tree with counts, so a row's position in its partition and the row at a
//! position are found in logarithmic time. A step's output follows from the positions of rows and their
//! shifts; the previous output isn't kept. (Counted B+ trees are order-statistic trees as in Cormen,
//! Leiserson, Rivest and Stein, *Introduction to Algorithms*, chapter 14.)
//!
//! Over append-only rows, those behind the last one that counts are dropped at once: they never return.
//!
//! Deliberately absent: recognising such parts of a plan; see `lower`.

mod ranks;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{cast, take_record_batch};
use millstream_delta::{Chunk, Cut, Delta, consolidate};
use millstream_state::{Moved, Ordered, Size, Spillable, Tables};

use crate::operator::{
    Abilities, Content, Description, Forgotten, Growth, KeepsResult, KeyedBy, KeyedState, Operator, Output,
    Properties, State,
};
use crate::parallelism::Threads;
use crate::sorted::{Change, Ordering, Sorted, Sorter};
use crate::{Error, Result};
use ranks::{Difference, Emission, Lines, RankRange};

/// The maximum number of rows of one output batch.
const OUTPUT_ROWS: Size = Size::of(16_384);

/// The way in which rows are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Each row has its own number: `row_number`, LIMIT.
    Row,
    /// Rows that are equal in the order have the number of the first: `rank`.
    Peers,
}

/// The parts of a TopN operator.
#[derive(Debug)]
pub struct TopNSpec {
    /// The properties of the output: the input's columns, and the number if it is shown.
    pub properties: Properties,
    /// The input's columns.
    pub schema: arrow::datatypes::SchemaRef,
    /// The order of rows.
    pub ordering: Ordering,
    /// The way in which rows are numbered.
    pub rank: Rank,
    /// The range of numbers in the result, counted from 0 in each partition.
    pub range: Range<u64>,
    /// True if the result has the number, from 1, as its last column.
    pub numbered: bool,
    /// True if rows are never deleted.
    pub only_inserts: bool,
    /// The range, the order and the partition's expressions, for EXPLAIN.
    pub detail: String,
    /// The partition's expressions as text.
    pub partition: Vec<String>,
    /// The threads for large changes.
    pub threads: Threads,
}

/// Keeps the first rows of each partition.
#[derive(Debug)]
pub struct TopN {
    properties: Properties,
    sorter: Sorter,
    rank: Rank,
    taken: RankRange,
    rows: Ordered,
    only_inserts: bool,
    detail: String,
    partition: Vec<String>,
    threads: Threads,
}

impl TopN {
    /// Returns the operator; `None` if values of some type have no order in bytes.
    pub fn new(parts: TopNSpec) -> Result<Option<TopN>> {
        let sorter = Sorter::new(parts.ordering, &parts.schema, parts.threads.clone())?;
        let Some(sorter) = sorter else { return Ok(None) };
        Ok(Some(TopN {
            properties: parts.properties,
            sorter,
            rank: parts.rank,
            taken: RankRange { range: parts.range, numbered: parts.numbered },
            rows: Ordered::new(parts.schema),
            only_inserts: parts.only_inserts,
            detail: parts.detail,
            partition: parts.partition,
            threads: parts.threads,
        }))
    }

    fn take(&mut self, sorted: &Sorted) -> Result<Delta> {
        let mut changes = sorted.changes();
        if self.only_inserts {
            changes = self.that_may_count(changes);
        }
        let output = self.change(sorted, &changes)?;
        if self.only_inserts {
            for changes in changes.chunk_by(|left, right| left.partition == right.partition) {
                self.let_go(changes[0].partition);
            }
        }
        Ok(output)
    }

    /// Applies changes to the kept rows; returns the changes of the result.
    fn change(&mut self, sorted: &Sorted, changes: &[Change<'_>]) -> Result<Delta> {
        let moved: Vec<Moved<'_>> = changes
            .iter()
            .map(|change| Moved { key: change.key, row: change.row, weight: change.weight })
            .collect();
        self.rows.apply(&sorted.rows, &moved)?;
        if !self.threads.cuts(changes.len()) {
            return self.difference(sorted, changes);
        }
        let mut output = Delta::default();
        let groups = self.threads.groups(changes, |left, right| left.partition == right.partition);
        for made in self.threads.spread(groups, |changes| self.difference(sorted, changes)) {
            output.append(made?);
        }
        Ok(output)
    }

    /// Returns the changes of the result in some partitions.
    fn difference(&self, sorted: &Sorted, changes: &[Change<'_>]) -> Result<Delta> {
        let (rows, sorter, taken) = (&self.rows, &self.sorter, &self.taken);
        let mut difference = Difference { rows, sorter, taken, emission: Emission::default() };
        for changes in changes.chunk_by(|left, right| left.partition == right.partition) {
            match self.rank {
                Rank::Row => difference.positions(changes),
                Rank::Peers => difference.ranks(changes),
            }
        }
        let Emission { delta, kept } = difference.emission;
        let mut output = Delta::default();
        self.put_out(delta, &mut output, |places| {
            let places = UInt32Array::from_iter_values(places.iter().map(|place| *place as u32));
            Ok(take_record_batch(&sorted.rows, &places)?)
        })?;
        self.put_out(kept, &mut output, |ids| Ok(self.rows.gather(ids)?))?;
        Ok(output)
    }

    /// Returns the new rows that may ever be in the result: neither the new rows before them nor the kept
    /// ones exclude them.
    fn that_may_count<'a>(&self, mut changes: Vec<Change<'a>>) -> Vec<Change<'a>> {
        let (mut ahead, mut before, mut last): (u64, u64, Option<Change<'a>>) = (0, 0, None);
        changes.retain(|change| {
            match last.replace(*change) {
                Some(last) if last.partition != change.partition => (ahead, before) = (0, 0),
                Some(last) if self.rank == Rank::Peers && last.peers == change.peers => {}
                _ => ahead = before,
            }
            before = before.saturating_add_signed(change.weight);
            ahead < self.taken.range.end
        });
        if !self.threads.share(changes.len()) {
            changes.retain(|change| self.may_count(change));
            return changes;
        }
        let pieces = changes.chunks(self.threads.piece_rows()).collect();
        let kept = self.threads.spread(pieces, |changes: &[Change<'a>]| {
            changes.iter().filter(|change| self.may_count(change)).copied().collect::<Vec<_>>()
        });
        kept.concat()
    }

    /// Returns true if a new row may ever be in the result.
    fn may_count(&self, change: &Change<'_>) -> bool {
        let ahead = match self.rank {
            Rank::Row => self.rows.position(change.key),
            Rank::Peers => self.rows.position(change.peers),
        };
        ahead < self.taken.range.end || ahead - self.rows.position(change.partition) < self.taken.range.end
    }

    /// Drops the rows of a partition behind the last one that counts.
    fn let_go(&mut self, partition: &[u8]) {
        let Range { mut start, end } = self.rows.positions(partition);
        start = start.saturating_add(self.taken.range.end);
        if start >= end {
            return;
        }
        if self.rank == Rank::Peers {
            let mut peers = start..end;
            self.rows.scan(start, &mut |_, entry| {
                peers = self.rows.positions(self.sorter.peers(entry.key));
                false
            });
            start = if peers.start < start { peers.end } else { start };
        }
        self.rows.remove(start..end);
    }

    /// Returns deletes of all rows of a partition.
    fn partition_gone(&self, prefix: &[u8]) -> Result<Delta> {
        let Range { start, end } = self.rows.positions(prefix);
        let (mut ids, mut weights) = (Vec::new(), Vec::new());
        if start < end {
            self.rows.scan(start, &mut |position, entry| {
                ids.push(entry.id);
                weights.push(-(entry.copies as i64));
                position + entry.copies < end
            });
        }
        Ok(Delta::of(Chunk { rows: self.rows.gather(&ids)?, weights: Some(Int64Array::from(weights)) }))
    }

    fn put_out(
        &self,
        lines: Lines,
        output: &mut Delta,
        rows: impl Fn(&[u64]) -> Result<RecordBatch>,
    ) -> Result<()> {
        for start in (0..lines.places.len()).step_by(OUTPUT_ROWS.get()) {
            let some = start..lines.places.len().min(start + OUTPUT_ROWS.get());
            let batch = rows(&lines.places[some.clone()])?;
            let batch = self.shown(batch, &lines.numbers[some.clone()])?;
            let weights = &lines.weights[some];
            let weights =
                weights.iter().any(|weight| *weight != 1).then(|| Int64Array::from(weights.to_vec()));
            output.push(Chunk { rows: batch, weights });
        }
        Ok(())
    }

    /// Returns rows with the columns of the result.
    fn shown(&self, rows: RecordBatch, numbers: &[u64]) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if let (true, Some(field)) = (self.taken.numbered, self.properties.schema.fields().last()) {
            let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(numbers.iter().map(|at| at + 1)));
            columns.push(cast(&numbers, field.data_type())?);
        }
        Ok(RecordBatch::try_new(self.properties.schema.clone(), columns)?)
    }

    /// Returns the rows of the only partition.
    fn first_rows(&self) -> Result<Vec<RecordBatch>> {
        let Range { start, end } = self.taken.range;
        let mut emission = Vec::new();
        self.rows.scan(start, &mut |position, entry| {
            let copies = (position + entry.copies).min(end).saturating_sub(position.max(start));
            emission.extend(std::iter::repeat_n(entry.id, copies as usize));
            position + entry.copies < end
        });
        let batch = |ids: &[u64]| self.shown(self.rows.gather(ids)?, &[]);
        emission.chunks(OUTPUT_ROWS.get()).map(batch).collect()
    }
}

impl Operator for TopN {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let by = self.partition.join(", ");
        let bounded = self.only_inserts && self.taken.range.end < u64::MAX;
        let growth = match self.rank {
            _ if !bounded => Growth::With("its input".into()),
            Rank::Peers => Growth::With("the rows of the selected ranks".into()),
            Rank::Row if self.partition.is_empty() => Growth::Bounded,
            Rank::Row => Growth::With(format!("the distinct values of ({by})")),
        };
        let state = match self.only_inserts {
            true => "the rows that may still count, in order",
            false => "its input in order",
        };
        Description {
            name: "TopN",
            detail: self.detail.clone(),
            state: state.into(),
            state_key: (!self.partition.is_empty()).then(|| format!("({by})")),
            growth,
            why: String::new(),
        }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let [input] = inputs else { return Err(Error::Bug("TopN has one input".into())) };
        let mut output = Output::default();
        let sorted = self.sorter.sort(input, &mut output.failures)?;
        for piece in &sorted {
            let delta = self.take(piece)?;
            output.rows.append(delta);
        }
        if sorted.len() > 1 {
            output.rows = consolidate(output.rows, &self.properties.schema)?;
        }
        Ok(output)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities { result: Some(self), ..Abilities::default() }
    }

    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        (!self.partition.is_empty()).then_some(self as _)
    }
}

impl State for TopN {
    fn reset(&mut self) -> Result<()> {
        self.rows = Ordered::new(self.rows.schema().clone());
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        kept.put_delta("rows", &self.rows.delta()?)?;
        Ok(kept)
    }

    fn save_changed(&self) -> Result<Tables> {
        let mut kept = Tables::default();
        self.rows.save_changed("rows", &mut kept)?;
        Ok(kept)
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.sorter.load(kept, &mut self.rows, |_| {})
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

impl KeyedState for TopN {
    fn keyed_by(&self) -> Result<KeyedBy> {
        let keys = self.sorter.partition().to_vec();
        let types = keys.iter().map(|key| key.data_type(self.rows.schema()));
        Ok(KeyedBy {
            types: types.collect::<std::result::Result<_, _>>()?,
            keys: vec![keys],
            nulls_apart: false,
            remembers: true,
            // Over append-only rows, only those in the result are kept.
            is_result: self.only_inserts,
        })
    }

    fn forget(&mut self, keys: &[ArrayRef]) -> Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        for (place, prefix) in self.sorter.prefixes(keys)?.iter().enumerate() {
            let mut output = Output::default();
            for sorted in &self.sorter.sort(&self.partition_gone(prefix)?, &mut output.failures)? {
                // The rows that this would delete from the result stay there.
                output.rows.append(self.change(sorted, &sorted.changes())?);
            }
            for mut chunk in output.rows.chunks {
                chunk.weights = chunk.weights.map(|weights| weights.unary(|weight| -weight));
                let rows = chunk.expand()?;
                let of = vec![place as u32; rows.num_rows()];
                forgotten.rows.push((rows, of));
            }
        }
        Ok(forgotten)
    }
}

impl KeepsResult for TopN {
    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        self.keeps_all().then(|| self.first_rows())
    }

    fn keeps_all(&self) -> bool {
        self.partition.is_empty() && !self.taken.numbered && self.rank == Rank::Row
    }
}
