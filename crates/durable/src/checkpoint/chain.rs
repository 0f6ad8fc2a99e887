//! Tables of which checkpoints have what has changed: which files all of it is in.
//!
//! A chain begins with files that have everything, and goes on with those of later checkpoints, which have what has changed
//! since. When these have become half as large as the first, or are many, the next checkpoint begins a new one.

use std::collections::{BTreeMap, HashMap};

use millstream_state::Run;

use super::Part;
use crate::frame::Sequence;
use crate::{Error, Result};

/// So many checkpoints go on from one that has everything.
const RUNS_MAX: usize = 30;

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
            self.by_lineage.insert(lineage, Chain { run: run.clone(), prefix, parts });
        }
        self.by_lineage.get_mut(&lineage).ok_or_else(|| Error::Corrupt {
            name: name.into(),
            offset: 0,
            reason: "it is of no chain".into(),
        })
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

    /// Whether it is time to begin a new one.
    fn is_long(&self) -> bool {
        let mut by_run: BTreeMap<Option<Sequence>, u64> = BTreeMap::new();
        for part in self.parts.values().flatten() {
            *by_run.entry(part.of).or_default() += part.sum.bytes;
        }
        let mut bytes = by_run.values();
        let first = bytes.next().copied().unwrap_or_default();
        by_run.len() > RUNS_MAX || bytes.sum::<u64>() > first / 2
    }
}
