//! The state of the model: a data directory, an external target, and two processes that follow the rules.

use std::collections::{BTreeMap, BTreeSet};

use millstream_delta::Epoch;

use super::rules::Rules;
use super::sending::Sending;
use super::writer::Writer;
use crate::Sequence;
use crate::protocol::Ledger;

/// The location of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder: one process locks it; unsynced bytes may be lost.
    Folder,
    /// An object store: no locks, and every put is durable.
    Store,
}

/// The bounds of the exploration.
#[derive(Clone)]
pub struct Setting {
    pub place: Place,
    /// True if the target stores its epoch; `None`: there is no sink.
    pub tells: Option<bool>,
    pub rules: Rules,
    pub inputs: u8,
    /// The number of starts, on an object store.
    pub starts: u8,
    /// The number of kills and power losses.
    pub crashes: u8,
    /// The number of checkpoints begun.
    pub checkpoints: u8,
    /// The number of failed syncs and lost answers.
    pub faults: u8,
}

/// An entry of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// A claim, with the number of the start.
    Claim(u8),
    /// An epoch that took an input, with the position of the sink by then.
    Epoch { number: Epoch, input: u8, told: Option<Epoch> },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    pub items: Vec<Item>,
    /// The number of items that survive a loss of power.
    pub synced: usize,
    /// True if a sync failed, so that the system takes unsynced items for written.
    pub forgotten: bool,
}

/// A file of a checkpoint: the entry, the claim of its writer, and the writer's number of drafts.
pub type File = (Sequence, Sequence, u8);

/// The manifest of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manifest {
    pub file: File,
    pub history: Vec<u8>,
    pub delivered: Epoch,
}

/// A removable object of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Manifest(Sequence),
    File(File),
}

impl Object {
    pub fn number(self) -> Sequence {
        match self {
            Object::Manifest(number) | Object::File((number, ..)) => number,
        }
    }
}

/// The external target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The epochs it received, with the input of each.
    pub epochs: Vec<(Epoch, u8)>,
    /// The newest epoch and the start that published it, if the target stores them.
    pub known: (Epoch, u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub journal: BTreeMap<Sequence, Segment>,
    pub manifests: BTreeMap<Sequence, Manifest>,
    pub files: BTreeSet<File>,
    pub target: Target,
    pub inputs: u8,
    pub acknowledged: BTreeSet<u8>,
    pub processes: [Process; 2],
    pub starts: u8,
    pub crashes: u8,
    pub checkpoints: u8,
    pub faults: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    Down,
    /// The process is about to put its claim.
    Claiming {
        id: u8,
        at: Sequence,
    },
    /// The process has put its claim, and checks if that fences others off.
    Claimed {
        id: u8,
        at: Sequence,
    },
    /// The process removes the remains of checkpoints.
    Clearing {
        id: u8,
        claim: Sequence,
        gone: Vec<Object>,
    },
    /// The process reads the journal after a checkpoint; `listed` are the segments that it has seen.
    Reading {
        id: u8,
        claim: Sequence,
        from: Option<Sequence>,
        listed: Vec<Sequence>,
    },
    Running(Box<Running>),
}

/// A checkpoint in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Saving {
    pub through: Sequence,
    pub manifest: Manifest,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Begun,
    Drafted,
    Published,
    /// The claim was still held after the publication.
    Held,
    Removing(Vec<Object>),
}

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Running {
    pub id: u8,
    /// The claim; 0 in a folder.
    pub claim: Sequence,
    pub ledger: Ledger,
    pub last: Sequence,
    /// The input of each epoch.
    pub history: Vec<u8>,
    pub promised: Vec<(Sequence, u8)>,
    pub writer: Writer,
    pub sink: Sending,
    pub checkpoints: Checkpoints,
}

/// The checkpoints of a running process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoints {
    pub whole: BTreeSet<Sequence>,
    pub drafts: u8,
    pub saved: Sequence,
    pub saving: Option<Saving>,
}

/// The state that a start would find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub history: Vec<u8>,
    pub delivered: Epoch,
    pub last: Sequence,
}

impl World {
    pub fn empty() -> World {
        World {
            journal: BTreeMap::new(),
            manifests: BTreeMap::new(),
            files: BTreeSet::new(),
            target: Target::default(),
            inputs: 0,
            acknowledged: BTreeSet::new(),
            processes: [Process::Down, Process::Down],
            starts: 0,
            crashes: 0,
            checkpoints: 0,
            faults: 0,
        }
    }

    /// Returns the newest whole checkpoint other than a damaged one.
    pub fn newest(&self, damaged: Option<Sequence>) -> Option<(Sequence, &Manifest)> {
        let mut whole = self.manifests.iter().rev().map(|(number, manifest)| (*number, manifest));
        whole.find(|(number, of)| self.files.contains(&of.file) && Some(*number) != damaged)
    }

    /// Returns the state that a start would find now, or after a loss of power, with one checkpoint damaged.
    pub fn found(&self, synced: bool, damaged: Option<Sequence>) -> Result<Found, String> {
        let listed: Vec<Sequence> = self.journal.keys().copied().collect();
        self.found_in(self.newest(damaged), &listed, synced)
    }

    /// Like [`World::found`], for a given list of segments.
    pub fn found_in(
        &self,
        from: Option<(Sequence, &Manifest)>,
        listed: &[Sequence],
        synced: bool,
    ) -> Result<Found, String> {
        let mut found = Found::default();
        if let Some((through, manifest)) = from {
            found = Found { history: manifest.history.clone(), delivered: manifest.delivered, last: through };
        }
        let after = found.last;
        let skipped = listed.windows(2).take_while(|pair| pair[1] <= after.next()).count();
        let rest = &listed[skipped..];
        let mut expected = rest.first().map_or(after.next(), |first| (*first).min(after.next()));
        for first in rest {
            let segment = self.journal.get(first).ok_or_else(|| format!("segment {first} is gone"))?;
            if *first != expected {
                return Err(format!("segment {first} is there, but {expected} was expected"));
            }
            let count = if synced { segment.synced } else { segment.items.len() };
            for item in &segment.items[..count] {
                if expected > after {
                    found.take(*item)?;
                    found.last = expected;
                }
                expected = expected.next();
            }
        }
        Ok(found)
    }

    /// Returns the last existing entry.
    pub fn last(&self) -> Sequence {
        let known = self.manifests.keys().last().copied().unwrap_or_default();
        let last = self.journal.iter().last();
        last.map_or(known, |(first, segment)| known.max(Sequence(first.0 + segment.items.len() as u64 - 1)))
    }

    /// Returns the newest claim.
    pub fn newest_claim(&self) -> Sequence {
        let claims = |segment: &Segment| matches!(segment.items[..], [Item::Claim(_), ..]);
        let newest = self.journal.iter().rev().find(|(_, segment)| claims(segment));
        newest.map_or(Sequence::default(), |(first, _)| *first)
    }

    /// Returns the number of claims that a start has put.
    pub fn claims_of(&self, id: u8) -> usize {
        self.journal.values().filter(|segment| segment.items.contains(&Item::Claim(id))).count()
    }

    /// Returns all objects of checkpoints.
    pub fn objects(&self) -> Vec<Object> {
        let manifests = self.manifests.keys().map(|number| Object::Manifest(*number));
        manifests.chain(self.files.iter().map(|file| Object::File(*file))).collect()
    }

    pub fn remove(&mut self, object: Object) {
        match object {
            Object::Manifest(number) => drop(self.manifests.remove(&number)),
            Object::File(file) => drop(self.files.remove(&file)),
        }
    }
}

impl Found {
    fn take(&mut self, item: Item) -> Result<(), String> {
        if let Item::Epoch { number, input, told } = item {
            let expected = self.history.len() as u64 + 1;
            if number.0 != expected {
                return Err(format!("the journal has epoch {number}, but {expected} was expected"));
            }
            self.history.push(input);
            self.delivered = told.unwrap_or(self.delivered);
        }
        Ok(())
    }
}
