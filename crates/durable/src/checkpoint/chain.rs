//! Incremental checkpoints of tables: the chain of files that together hold a table.
//!
//! A chain begins with files of the complete state, followed by the changes of later checkpoints. If there
//! are many, the next checkpoint merges the newest of them with its own changes. It merges each file at most
//! twice as large as all newer ones together. So a change is rewritten a logarithmic number of times (O'Neil
//! et al., *The Log-Structured Merge-Tree*, 1996). If the changes exceed half the size of the complete state,
//! the next checkpoint begins a new chain.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use millstream_state::Run;

use super::Part;
use crate::frame::Sequence;
use crate::{Error, Result};

/// The number of runs of changes from which the newest ones are merged.
const RUNS_MAX: usize = 8;

/// The chains of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Chains {
    by_lineage: HashMap<usize, Chain>,
    /// The lineages in the order in which they were added.
    order: Vec<usize>,
}

/// The files of tables that record their changes together.
#[derive(Debug)]
pub(super) struct Chain {
    /// The newest run. It keeps the lineage alive, so that no other lineage gets its address.
    run: Run,
    /// The common prefix of the tables' names.
    prefix: String,
    /// The files of each table, oldest first, by the table's name without the prefix.
    parts: BTreeMap<String, Vec<Part>>,
    /// The pending merge of runs.
    together: Option<Together>,
    /// True if the next checkpoint must hold the complete state.
    anew: bool,
}

/// Runs that a checkpoint merges with its own changes.
#[derive(Debug)]
pub(super) struct Together {
    /// The first of these runs; all later runs follow.
    from: Sequence,
    /// The changes, by the name of the table.
    added: BTreeMap<String, Vec<RecordBatch>>,
}

/// The input of a merge: the prefix of the chain's table names, the files of the runs, and the changes.
pub(super) struct Pieces {
    pub(super) prefix: String,
    pub(super) files: Vec<(String, Part)>,
    pub(super) added: BTreeMap<String, Vec<RecordBatch>>,
}

impl Chains {
    /// Returns the chain of a run with the table `name`, called `own` within the run. If the run continues
    /// another one, the chain begins with the files of `before`, the previous checkpoint.
    pub(super) fn of(&mut self, run: &Run, name: &str, own: &str, before: &Chains) -> Result<&mut Chain> {
        let lineage = run.lineage();
        if !self.by_lineage.contains_key(&lineage) {
            let parts = match before.by_lineage.get(&lineage) {
                _ if run.is_whole() => BTreeMap::new(),
                Some(before) => before.parts.clone(),
                None => {
                    // The run has no predecessor to continue: the next one holds the complete state.
                    run.publish(true);
                    let reason = "the checkpoint before has nothing of it".into();
                    return Err(Error::Corrupt { name: name.into(), offset: 0, reason });
                }
            };
            let prefix = name.strip_suffix(own).unwrap_or_default().to_string();
            self.order.push(lineage);
            let mut chain = Chain { run: run.clone(), prefix, parts, together: None, anew: false };
            chain.together = chain.to_put_together().map(|from| Together { from, added: BTreeMap::new() });
            self.by_lineage.insert(lineage, chain);
        }
        self.by_lineage.get_mut(&lineage).ok_or_else(|| Error::Corrupt {
            name: name.into(),
            offset: 0,
            reason: "it is of no chain".into(),
        })
    }

    /// Returns the pending merges, each with the lineage of its chain.
    pub(super) fn together(&mut self) -> Vec<(usize, Pieces)> {
        let mut all = Vec::new();
        for lineage in &self.order {
            let Some(chain) = self.by_lineage.get_mut(lineage) else { continue };
            let Some(Together { from, added }) = chain.together.take() else { continue };
            let mut files = Vec::new();
            for (own, parts) in &mut chain.parts {
                let newer = parts.extract_if(.., |part| part.of >= Some(from));
                files.extend(newer.map(|part| (own.clone(), part)));
            }
            all.push((*lineage, Pieces { prefix: chain.prefix.clone(), files, added }));
        }
        all
    }

    /// Returns the chain of a lineage.
    pub(super) fn chain(&mut self, lineage: usize) -> Option<&mut Chain> {
        self.by_lineage.get_mut(&lineage)
    }

    /// Returns all files, under the tables' present names.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        let chains = self.order.iter().filter_map(|lineage| self.by_lineage.get(lineage));
        chains.flat_map(|chain| {
            let named = move |(own, part): (&String, &Part)| Part {
                name: format!("{}{own}", chain.prefix),
                ..part.clone()
            };
            chain.parts.iter().flat_map(|(own, parts)| parts.iter().map(move |part| (own, part))).map(named)
        })
    }

    /// Makes these the chains of the newest checkpoint, from which the next one continues.
    pub(super) fn publish(self, newest: &mut Chains) {
        for (lineage, chain) in &newest.by_lineage {
            if !self.by_lineage.contains_key(lineage) {
                chain.run.publish(true);
            }
        }
        self.by_lineage.values().for_each(|chain| chain.run.publish(chain.is_long()));
        *newest = self;
    }

    /// Makes the next checkpoint continue from none of these.
    pub(super) fn give_up(self) {
        self.by_lineage.values().for_each(|chain| chain.run.publish(true));
    }
}

impl Chain {
    /// Adds a file of a table.
    pub(super) fn push(&mut self, own: &str, part: Part) {
        self.parts.entry(own.to_string()).or_default().push(part);
    }

    /// Returns true if runs of the chain are merged with the changes.
    pub(super) fn is_put_together(&self) -> bool {
        self.together.is_some()
    }

    /// Keeps the changes of a table for the merge.
    pub(super) fn hold(&mut self, own: &str, batches: Vec<RecordBatch>) {
        if let Some(together) = &mut self.together {
            together.added.insert(own.to_string(), batches);
        }
    }

    /// Makes the next checkpoint begin a new chain.
    pub(super) fn begin_anew(&mut self) {
        self.anew = true;
    }

    /// Returns the bytes of each run, oldest first.
    fn bytes(&self) -> Vec<(Option<Sequence>, u64)> {
        let mut by_run: BTreeMap<Option<Sequence>, u64> = BTreeMap::new();
        for part in self.parts.values().flatten() {
            *by_run.entry(part.of).or_default() += part.sum.bytes;
        }
        by_run.into_iter().collect()
    }

    /// Returns the first run to merge, if there are many runs.
    fn to_put_together(&self) -> Option<Sequence> {
        let runs = self.bytes();
        let (_, changes) = runs.split_first()?;
        if changes.len() < RUNS_MAX {
            return None;
        }
        let (mut from, mut sum) = (None, 0);
        for (of, bytes) in changes.iter().rev() {
            // The newest run is always merged. Its size stands for that of the changes, which is unknown
            // here.
            if from.is_some() && *bytes > 2 * sum {
                break;
            }
            from = *of;
            sum += bytes;
        }
        from
    }

    /// Returns true if the next checkpoint should begin a new chain.
    fn is_long(&self) -> bool {
        let runs = self.bytes();
        let Some(((_, first), changes)) = runs.split_first() else { return false };
        self.anew || changes.iter().map(|(_, bytes)| bytes).sum::<u64>() > first / 2
    }
}
