//! Describes a data directory for people: its checkpoints and its journal, with all checksums verified.

use std::path::Path;

use millstream_delta::Epoch;

use crate::frame::Sequence;
use crate::{Checkpoints, DataDirectory, Entries, Entry, Error, Plan, Result, StorePrefix};

/// A file of a checkpoint: part of a table, or something else.
#[derive(Clone, Debug)]
pub struct InspectedPart {
    /// The name of the content.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The number of rows, if it is a table.
    pub rows: Option<usize>,
    /// The checkpoint that wrote it, if that is an older one.
    pub of: Option<Sequence>,
}

/// The stored plan of an object's query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedPlan {
    /// The object.
    pub object: String,
    /// The version of the program that planned it.
    pub version: String,
    /// The size of the plan, or the part of the query that cannot be stored, so that a start plans it again.
    pub plan: std::result::Result<u64, String>,
}

/// A checkpoint.
#[derive(Clone, Debug)]
pub struct InspectedCheckpoint {
    /// The entry of the checkpoint.
    pub through: Sequence,
    /// The newest epoch at that entry.
    pub epoch: Option<Epoch>,
    /// Its files; empty if the checkpoint is unreadable.
    pub parts: Vec<InspectedPart>,
    /// The plans of the queries in its catalog.
    pub plans: Vec<InspectedPlan>,
    /// The damage found.
    pub damage: Option<String>,
}

/// The content of a data directory.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The checkpoints, oldest first.
    pub checkpoints: Vec<InspectedCheckpoint>,
    /// The names and sizes of the journal's segments.
    pub segments: Vec<(String, u64)>,
    /// The first and the last entry of the journal after the oldest checkpoint, if any.
    pub entries: Option<(Sequence, Sequence)>,
    /// The plans of queries created since the newest whole checkpoint.
    pub plans: Vec<InspectedPlan>,
    /// The number of entries that a start replays, and the number of epochs among them.
    pub behind: (u64, u64),
    /// The number of torn writes.
    pub torn: usize,
    /// The damage found in the journal.
    pub damage: Option<String>,
}

impl Inspection {
    /// Returns true if no damage was found.
    pub fn is_whole(&self) -> bool {
        self.damage.is_none() && self.checkpoints.iter().all(|checkpoint| checkpoint.damage.is_none())
    }
}

/// Describes a data directory, which no process may have open meanwhile. Changes nothing in its files.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let directory = DataDirectory::open_existing(path)?;
    look(&directory)
}

/// Describes a directory on an object store without claiming it. Its owner continues, so files that it
/// removes meanwhile may be reported as missing.
pub fn inspect_store(prefix: &StorePrefix) -> Result<Inspection> {
    look(&prefix.look()?)
}

fn look(directory: &DataDirectory) -> Result<Inspection> {
    let checkpoints = Checkpoints::of(directory);
    let mut found = Inspection::default();
    let mut newest = Sequence::default();
    let numbers = checkpoints.numbers()?;
    // The entries before were removed, except claims. So the checkpoints determine where the journal begins.
    let mut entries = Entries::open(directory, numbers.first().copied().unwrap_or_default())?;
    for through in numbers {
        let inspected = match checkpoints.inspect(through) {
            Ok(inspected) => {
                newest = through;
                inspected
            }
            Err(error @ (Error::Corrupt { .. } | Error::Arrow(_))) => {
                let damage = Some(error.to_string());
                InspectedCheckpoint { through, epoch: None, parts: Vec::new(), plans: Vec::new(), damage }
            }
            Err(error) => return Err(error),
        };
        found.checkpoints.push(inspected);
    }
    found.segments = entries.segments()?;
    let mut first = None;
    for entry in entries.by_ref() {
        match entry {
            Ok((sequence, entry)) => {
                first.get_or_insert(sequence);
                found.entries = first.map(|first| (first, sequence));
                if sequence > newest {
                    found.plans.extend(plans(&entry));
                }
                found.behind.0 += u64::from(sequence > newest);
                found.behind.1 += u64::from(sequence > newest && matches!(entry, Entry::Epoch(_)));
            }
            Err(error) => {
                found.damage = Some(error.to_string());
                break;
            }
        }
    }
    found.torn = entries.torn().len();
    Ok(found)
}

/// Returns descriptions of an entry's plans.
pub(crate) fn plans(entry: &Entry) -> Vec<InspectedPlan> {
    let Entry::Changed { plans, .. } = entry else { return Vec::new() };
    let inspected = |plan: &Plan| InspectedPlan {
        object: plan.object.clone(),
        version: plan.version.clone(),
        plan: plan.plan.as_ref().map(|bytes| bytes.len() as u64).map_err(Clone::clone),
    };
    plans.iter().map(inspected).collect()
}
