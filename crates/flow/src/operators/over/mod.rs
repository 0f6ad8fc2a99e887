//! Window functions, at the cost of the rows that a change may affect.
//!
//! All rows are kept in the order of a key: the values of PARTITION BY, those of ORDER BY, and columns that
//! break ties. The keys lie in a tree with counts, so a row's number follows from its position. The rows that
//! a function reads are found by position, by peers or by value in logarithmic time. As far as the functions
//! reach around changed rows, the answers are computed from the rows before and after the change, and the
//! difference is emitted: no answer is kept. Beyond that, only row numbers and functions whose frames begin
//! with the partition can change, and only if a row's number or the function's state has changed.
//!
//! States of such functions are kept at regular distances, so an answer reads only the rows since the last
//! state. (Finding frames in an order-statistic tree: Leis, Kundhikanjana, Kemper and Neumann, *Efficient
//! Processing of Window Functions in Analytical SQL Queries*, VLDB 2015; Wesley and Xu, *Incremental
//! Computation of Common Windowed Holistic Aggregates*, VLDB 2016. Their segment trees answer any frame;
//! states between rows take less memory, and suffice here.)
//!
//! A partition whose answer fails has one failure and no rows in the result, until it has an answer again.
//!
//! Deliberately absent: the classification of functions; see `lower`.

mod answer;
mod change;
mod emit;
mod extent;
mod persistence;
mod running;
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
use crate::operator::{
    Description, Forgotten, Growth, KeyedBy, KeyedState, Operator, Output, Properties, State,
};
use crate::parallelism::{Threads, lock};
use crate::sorted::{Ordering, Sorter};
use crate::{Error, Result};
use answer::Functions;
pub use answer::{Call, Function, Number};
use change::StateView;
pub use extent::{Extent, Reach};
use running::Checkpoints;
pub use running::{Running, RunningKind};

/// The parts of an Over operator.
#[derive(Debug)]
pub struct OverSpec {
    /// The properties of the output: the input's columns, and one for each function.
    pub properties: Properties,
    /// The input's columns.
    pub schema: SchemaRef,
    /// The order of rows.
    pub ordering: Ordering,
    /// The functions.
    pub calls: Vec<Call>,
    /// The detail for EXPLAIN.
    pub detail: String,
    /// The partition's expressions as text.
    pub partition: Vec<String>,
    /// The reason why it costs more than the delta, if so.
    pub why: String,
    /// The threads for large changes.
    pub threads: Threads,
}

/// Maintains window functions of one order.
#[derive(Debug)]
pub struct Over {
    properties: Properties,
    functions: Functions,
    sorter: Sorter,
    rows: Ordered,
    /// The groups of peers, if they are counted.
    groups: Sequence,
    checkpoints: Mutex<Checkpoints>,
    /// The partitions without an answer: the reason, and their values.
    failed: BTreeMap<Box<[u8]>, (String, String)>,
    detail: String,
    partition: Vec<String>,
    why: String,
    threads: Threads,
}

impl Over {
    /// Returns the operator; `None` if values of some type have no order in bytes.
    pub fn new(parts: OverSpec) -> Result<Option<Over>> {
        let OverSpec { properties, schema, mut ordering, calls, detail, partition, why, threads } = parts;
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

    fn kept(&self) -> StateView<'_> {
        StateView {
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
            true => "its input in order, frame state after every 64 rows",
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

    fn as_keyed(&mut self) -> Option<&mut dyn KeyedState> {
        (!self.partition.is_empty()).then_some(self as _)
    }
}

impl State for Over {
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

impl KeyedState for Over {
    fn keyed_by(&self) -> Result<KeyedBy> {
        let keys = self.sorter.partition().to_vec();
        let types = keys.iter().map(|key| key.data_type(self.rows.schema()));
        Ok(KeyedBy {
            types: types.collect::<std::result::Result<_, _>>()?,
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
}
