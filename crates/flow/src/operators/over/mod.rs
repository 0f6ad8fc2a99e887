//! Functions over windows, at the cost of what a change may alter.
//!
//! All rows are kept in the order of a key: the values of PARTITION BY, those of ORDER BY, and what tells rows apart that
//! are equal in these. The keys lie in a tree that counts, so that a row's number follows from its position, and the
//! rows that a function looks at are found by position, by peers or by value in logarithmic time. Around the rows that
//! change, as far as the functions reach, the answers are computed from the rows as they were and again from the rows
//! as they are, and what differs is put out: no answer is kept. Behind them only numbers and functions whose frames
//! begin with the partition can change, and only where a row's number, or what the function has taken in, is another
//! than before.
//!
//! What such functions have taken in is kept behind every so many rows, so that an answer needs the rows since then.
//! (Finding frames in an order-statistic tree: Leis, Kundhikanjana, Kemper and Neumann, *Efficient Processing of Window
//! Functions in Analytical SQL Queries*, VLDB 2015; Wesley and Xu, *Incremental Computation of Common Windowed Holistic
//! Aggregates*, VLDB 2016. Their segment trees answer any frame; states between rows take less, and suffice here.)
//!
//! A partition whose answer fails has no rows in the result and one failure instead, until it has an answer again.
//!
//! Deliberately absent: which functions are of which kind; see `lower`.

mod answer;
mod change;
mod emit;
mod extent;
mod running;
mod saving;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Mutex;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use millstream_delta::{Cut, Delta};
use millstream_state::{Ordered, Sequence, Spillable, Tables};

use crate::failure::Failure;
use crate::operator::{Content, Description, Forgotten, Growth, KeyedBy, Operator, Output, Properties};
use crate::sorted::{Ordering, Sorter};
use crate::spread::{Threads, lock};
use crate::{Error, Result};
use answer::Functions;
pub use answer::{Call, Function, Number};
use change::Kept;
pub use extent::{Extent, Reach};
use running::Checkpoints;
pub use running::{Running, Taken};

/// What an Over operator is made of.
#[derive(Debug)]
pub struct Parts {
    /// Of its output: the input's columns, and one for each function.
    pub properties: Properties,
    /// The input's columns.
    pub schema: SchemaRef,
    /// How rows are ordered.
    pub ordering: Ordering,
    /// The functions.
    pub calls: Vec<Call>,
    /// For EXPLAIN.
    pub detail: String,
    /// The partition's expressions, as people read them.
    pub partition: Vec<String>,
    /// Why it costs more than the delta, where it does.
    pub why: String,
    /// What large changes are worked on.
    pub threads: Threads,
}

/// Maintains functions over windows of one order.
#[derive(Debug)]
pub struct Over {
    properties: Properties,
    functions: Functions,
    sorter: Sorter,
    rows: Ordered,
    /// The groups of peers, where they are counted.
    groups: Sequence,
    checkpoints: Mutex<Checkpoints>,
    /// The partitions that have no answer: why, and their values.
    failed: BTreeMap<Box<[u8]>, (String, String)>,
    detail: String,
    partition: Vec<String>,
    why: String,
    threads: Threads,
}

impl Over {
    /// The operator; `None` where values of some type have no order in bytes.
    pub fn new(parts: Parts) -> Result<Option<Over>> {
        let Parts { properties, schema, mut ordering, calls, detail, partition, why, threads } = parts;
        let functions = Functions::new(calls, properties.schema.clone());
        ordering.peers = functions.reach.asks_for_peers() || functions.counts_groups();
        let Some(sorter) = Sorter::new(ordering, &schema, threads.clone())? else { return Ok(None) };
        Ok(Some(Over {
            properties,
            functions,
            sorter,
            rows: Ordered::new(schema),
            groups: Sequence::default(),
            checkpoints: Mutex::default(),
            failed: BTreeMap::new(),
            detail,
            partition,
            why,
            threads,
        }))
    }

    fn kept(&self) -> Kept<'_> {
        Kept {
            functions: &self.functions,
            rows: &self.rows,
            groups: &self.groups,
            sorter: &self.sorter,
            checkpoints: &self.checkpoints,
        }
    }
}

impl Operator for Over {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn describe(&self) -> Description {
        let by = self.partition.join(", ");
        let state = match self.functions.is_running() {
            true => "its input in order, what frames have taken in behind every 64 rows",
            false => "its input in order",
        };
        Description {
            name: "Over",
            detail: self.detail.clone(),
            state: state.into(),
            state_key: (!self.partition.is_empty()).then(|| format!("({by})")),
            growth: Growth::With("its input".into()),
            why: self.why.clone(),
        }
    }

    fn step(&mut self, _cut: &Cut, inputs: &[&Delta]) -> Result<Output> {
        let [input] = inputs else { return Err(Error::Bug("Over has one input".into())) };
        let mut output = Output::default();
        if let Some(sorted) = self.sorter.sort_together(input, &mut output.failures)? {
            self.take(&sorted, &mut output)?;
        }
        Ok(output)
    }

    fn keyed_by(&self) -> Option<KeyedBy> {
        if self.partition.is_empty() {
            return None;
        }
        let keys = self.sorter.partition().to_vec();
        let types = keys.iter().map(|key| key.data_type(self.rows.schema()));
        Some(KeyedBy {
            types: types.collect::<std::result::Result<_, _>>().ok()?,
            keys: vec![keys],
            nulls_apart: false,
            remembers: false,
            is_result: false,
        })
    }

    fn forget(&mut self, keys: &[ArrayRef]) -> Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        for prefix in self.sorter.prefixes(keys)? {
            self.rows.remove(self.rows.positions(&prefix));
            while let Some(peers) = self.groups.key_at(self.groups.positions(&prefix).start)
                && peers.starts_with(&prefix)
            {
                let peers = peers.to_vec();
                self.groups.set(&peers, false);
            }
            lock(&self.checkpoints).replace(&prefix, None, None, Vec::new());
            let failed = self.failed.remove(&prefix[..]);
            let failed = failed.map(|(message, row)| Failure { message, row, weight: -1 });
            forgotten.failures.extend(failed);
        }
        Ok(forgotten)
    }

    fn reset(&mut self) -> Result<()> {
        self.rows = Ordered::new(self.rows.schema().clone());
        self.groups = Sequence::default();
        self.checkpoints = Mutex::default();
        self.failed.clear();
        Ok(())
    }

    fn save(&self) -> Result<Tables> {
        self.told()
    }

    fn save_changed(&self) -> Result<Tables> {
        self.changed()
    }

    fn load(&mut self, kept: &mut Tables) -> Result<()> {
        self.resume(kept)
    }

    fn content(&self, _input: &dyn Fn(usize) -> Content) -> Content {
        None
    }

    fn state_rows(&self) -> usize {
        self.rows.num_rows()
    }

    fn state_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.groups.memory_bytes() + lock(&self.checkpoints).memory_bytes()
    }

    fn each_store(&mut self, show: &mut dyn FnMut(&mut dyn Spillable)) {
        show(&mut self.rows);
        show(&mut self.groups);
    }
}
