//! What lies in a data directory, for people: its checkpoints and its journal, with all checksums looked at.

use std::path::Path;

use millstream_delta::Epoch;

use crate::frame::Sequence;
use crate::{Checkpoints, DataDirectory, Entries, Entry, Error, Plan, Result, StorePrefix};

/// A table, or what else is a file of a checkpoint.
#[derive(Clone, Debug)]
pub struct InspectedPart {
    /// What it is.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How many rows it has, where it is a table.
    pub rows: Option<usize>,
    /// The checkpoint that wrote it, where that is an older one.
    pub of: Option<Sequence>,
}

/// The plan of an object's query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedPlan {
    /// The object.
    pub object: String,
    /// The version of the program that planned it.
    pub version: String,
    /// The size of the plan; or what of the query can't be kept, so that a start plans it again.
    pub plan: std::result::Result<u64, String>,
}

/// A checkpoint.
#[derive(Clone, Debug)]
pub struct InspectedCheckpoint {
    /// The entry that it is of.
    pub through: Sequence,
    /// The newest epoch when it was there.
    pub epoch: Option<Epoch>,
    /// Its files; those of one that can't be read are unknown.
    pub parts: Vec<InspectedPart>,
    /// The plans of the queries in its catalog.
    pub plans: Vec<InspectedPlan>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// What lies in a data directory.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The checkpoints, oldest first.
    pub checkpoints: Vec<InspectedCheckpoint>,
    /// The segments of the journal: their names and sizes.
    pub segments: Vec<(String, u64)>,
    /// The first and the last entry of the journal behind the oldest checkpoint, where it has some.
    pub entries: Option<(Sequence, Sequence)>,
    /// The plans of queries that were made since the newest checkpoint that is whole.
    pub plans: Vec<InspectedPlan>,
    /// How many of these a start does again, and how many of them are epochs.
    pub behind: (u64, u64),
    /// Writes that a crash cut short.
    pub torn: usize,
    /// What is wrong with the journal.
    pub damage: Option<String>,
}

impl Inspection {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.damage.is_none() && self.checkpoints.iter().all(|checkpoint| checkpoint.damage.is_none())
    }
}

/// Looks at a data directory, which nobody may have open meanwhile. Nothing is made and nothing changed.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let directory = DataDirectory::open_existing(path)?;
    look(&directory)
}

/// Looks at one on an object store, without claiming it: whoever has it goes on, so what is removed meanwhile may be told to
/// be missing.
pub fn inspect_store(prefix: &StorePrefix) -> Result<Inspection> {
    look(&prefix.look()?)
}

fn look(directory: &DataDirectory) -> Result<Inspection> {
    let checkpoints = Checkpoints::of(directory);
    let mut found = Inspection::default();
    let mut newest = Sequence::default();
    let numbers = checkpoints.numbers()?;
    // What comes before is removed, but for claims, which stay; so where the journal begins is said by the checkpoints.
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

/// What an entry holds of plans.
pub(crate) fn plans(entry: &Entry) -> Vec<InspectedPlan> {
    let Entry::Changed { plans, .. } = entry else { return Vec::new() };
    let inspected = |plan: &Plan| InspectedPlan {
        object: plan.object.clone(),
        version: plan.version.clone(),
        plan: plan.plan.as_ref().map(|bytes| bytes.len() as u64).map_err(Clone::clone),
    };
    plans.iter().map(inspected).collect()
}
