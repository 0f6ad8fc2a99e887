//! Tables of which checkpoints have what has changed: which files all of it is in.
//!
//! A chain begins with files that have everything, and goes on with those of later checkpoints, which have what has changed
//! since. When these are many, the newest of them are put together with what the next checkpoint adds: each that is at most
//! twice as large as the ones after it together, so that what has changed is written again logarithmically often (O'Neil et
//! al., *The Log-Structured Merge-Tree*, 1996). When they have become half as large as the first, the next checkpoint
//! begins a new chain.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use millstream_state::Run;

use super::Part;
use crate::frame::Sequence;
use crate::{Error, Result};

/// So many runs go on from one that has everything before the newest are put together.
const RUNS_MAX: usize = 8;

/// The chains of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Chains {
    by_lineage: HashMap<usize, Chain>,
    /// The lineages in the order in which they are told.
    order: Vec<usize>,
}

/// The files of tables that tell together what has changed.
#[derive(Debug)]
pub(super) struct Chain {
    /// What the newest of them have. It holds the lineage, so that no other one gets its place in memory.
    run: Run,
    /// What the names of the tables begin with.
    prefix: String,
    /// By what the tables are called behind that: the files, the oldest first.
    parts: BTreeMap<String, Vec<Part>>,
    /// Where runs are put together.
    together: Option<Together>,
    /// Whether the next checkpoint is to have everything, whatever there is.
    anew: bool,
}

/// Runs that a checkpoint puts together with what it adds.
#[derive(Debug)]
pub(super) struct Together {
    /// The first of them; the others are all that follow.
    from: Sequence,
    /// What is added, by what the tables are called.
    added: BTreeMap<String, Vec<RecordBatch>>,
}

/// What is to be put together: the name of its chain's tables begins so, the files of the runs, and what is added.
pub(super) struct Pieces {
    pub(super) prefix: String,
    pub(super) files: Vec<(String, Part)>,
    pub(super) added: BTreeMap<String, Vec<RecordBatch>>,
}

impl Chains {
    /// The chain of a run, to which table `name` belongs, which it calls `own`: where it goes on from another one, with what
    /// the checkpoint before has of that.
    pub(super) fn of(&mut self, run: &Run, name: &str, own: &str, before: &Chains) -> Result<&mut Chain> {
        let lineage = run.lineage();
        if !self.by_lineage.contains_key(&lineage) {
            let parts = match before.by_lineage.get(&lineage) {
                _ if run.is_whole() => BTreeMap::new(),
                Some(before) => before.parts.clone(),
                None => {
                    // It can't go on from what isn't there: the next time it has everything.
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

    /// What is to be put together, each with the lineage of its chain.
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

    /// The chain of a lineage.
    pub(super) fn chain(&mut self, lineage: usize) -> Option<&mut Chain> {
        self.by_lineage.get_mut(&lineage)
    }

    /// All files, under the names that the tables have now.
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

    /// The newest checkpoint has these: what comes next goes on from them.
    pub(super) fn publish(self, newest: &mut Chains) {
        for (lineage, chain) in &newest.by_lineage {
            if !self.by_lineage.contains_key(lineage) {
                chain.run.publish(true);
            }
        }
        self.by_lineage.values().for_each(|chain| chain.run.publish(chain.is_long()));
        *newest = self;
    }

    /// The next checkpoint goes on from none of these.
    pub(super) fn give_up(self) {
        self.by_lineage.values().for_each(|chain| chain.run.publish(true));
    }
}

impl Chain {
    /// Adds a file of a table.
    pub(super) fn push(&mut self, own: &str, part: Part) {
        self.parts.entry(own.to_string()).or_default().push(part);
    }

    /// Whether runs of it are put together with what is added.
    pub(super) fn is_put_together(&self) -> bool {
        self.together.is_some()
    }

    /// Keeps what is added of a table until then.
    pub(super) fn hold(&mut self, own: &str, batches: &[RecordBatch]) {
        if let Some(together) = &mut self.together {
            together.added.insert(own.to_string(), batches.to_vec());
        }
    }

    /// Lets the next checkpoint begin a new one.
    pub(super) fn begin_anew(&mut self) {
        self.anew = true;
    }

    /// How many bytes each run has, the oldest first.
    fn bytes(&self) -> Vec<(Option<Sequence>, u64)> {
        let mut by_run: BTreeMap<Option<Sequence>, u64> = BTreeMap::new();
        for part in self.parts.values().flatten() {
            *by_run.entry(part.of).or_default() += part.sum.bytes;
        }
        by_run.into_iter().collect()
    }

    /// From which run on they are put together, where they are many.
    fn to_put_together(&self) -> Option<Sequence> {
        let runs = self.bytes();
        let (_, changes) = runs.split_first()?;
        if changes.len() < RUNS_MAX {
            return None;
        }
        let (mut from, mut sum) = (None, 0);
        for (of, bytes) in changes.iter().rev() {
            // What is added stands for the first.
            if from.is_some() && *bytes > 2 * sum {
                break;
            }
            from = *of;
            sum += bytes;
        }
        from
    }

    /// Whether it is time to begin a new one.
    fn is_long(&self) -> bool {
        let runs = self.bytes();
        let Some(((_, first), changes)) = runs.split_first() else { return false };
        self.anew || changes.iter().map(|(_, bytes)| bytes).sum::<u64>() > first / 2
    }
}
