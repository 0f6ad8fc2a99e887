//! A data directory, a target outside, and two processes that go by the rules: all that they are at one instant.

use std::collections::{BTreeMap, BTreeSet};

use millstream_delta::Epoch;

use super::rules::Rules;
use crate::Sequence;
use crate::protocol::{Ledger, Outside};

/// Where the data directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a folder: locked by one process; what isn't synced may be lost.
    Folder,
    /// On an object store: nothing is locked, and what is put is there.
    Store,
}

/// What is explored.
#[derive(Clone)]
pub struct Setting {
    pub place: Place,
    /// Whether the target knows which epoch it holds; none: there is no sink.
    pub tells: Option<bool>,
    pub rules: Rules,
    pub inputs: u8,
    /// How many starts there are, on an object store.
    pub starts: u8,
    /// How many processes are killed, or machines lose power.
    pub crashes: u8,
    /// How many checkpoints are begun.
    pub checkpoints: u8,
    /// How many syncs fail, or answers are lost.
    pub faults: u8,
}

/// An entry of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// By which start.
    Claim(u8),
    /// An epoch that took an input in, and up to where the sink had published by then.
    Epoch { number: Epoch, input: u8, told: Option<Epoch> },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    pub items: Vec<Item>,
    /// How many of them a loss of power leaves there.
    pub synced: usize,
    /// Whether a sync failed, so that the system takes for written what isn't.
    pub forgotten: bool,
}

/// A file of a checkpoint: the entry, the claim of the process that wrote it, and how many that one had begun.
pub type File = (Sequence, Sequence, u8);

/// What makes a checkpoint one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manifest {
    pub file: File,
    pub history: Vec<u8>,
    pub delivered: Epoch,
}

/// What can be removed of checkpoints.
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

/// What is outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// What it was sent: epochs, with the input of each.
    pub epochs: Vec<(Epoch, u8)>,
    /// The newest epoch, and the start that published it, as far as the target keeps that.
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
    /// About to put its claim.
    Claiming {
        id: u8,
        at: Sequence,
    },
    /// It has put it, and looks whether that stops others.
    Claimed {
        id: u8,
        at: Sequence,
    },
    /// Removes what was left of checkpoints.
    Clearing {
        id: u8,
        claim: Sequence,
        gone: Vec<Object>,
    },
    /// Reads the journal behind a checkpoint; these are the segments that it has seen.
    Reading {
        id: u8,
        claim: Sequence,
        from: Option<Sequence>,
        listed: Vec<Sequence>,
    },
    Running(Box<Running>),
}

/// A checkpoint on its way.
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
    /// The claim held after it was published.
    Held,
    Removing(Vec<Object>),
}

/// A process that takes in and puts out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Running {
    pub id: u8,
    /// 0 in a folder.
    pub claim: Sequence,
    pub ledger: Ledger,
    pub last: Sequence,
    /// By epoch, the input that it took in.
    pub history: Vec<u8>,
    /// Entries that are appended, and that are being written.
    pub waiting: Vec<Item>,
    pub group: Vec<Item>,
    /// The first entry that isn't known to be written.
    pub next: Sequence,
    /// The segment that is written in a folder, and whether it is to end.
    pub segment: Sequence,
    pub ends: bool,
    /// Whether the group is in the file, and not yet synced.
    pub appended: bool,
    pub promised: Vec<(Sequence, u8)>,
    pub outside: Outside,
    /// Up to which epoch all is published or passed over.
    pub passed: Epoch,
    /// What the target is known to hold.
    pub known: Option<(Epoch, u8)>,
    /// Up to where is being published, and whether that has arrived.
    pub sending: Option<(Epoch, bool)>,
    /// The epoch before the first that the sink holds in memory, where it does.
    pub gathered: Option<Epoch>,
    /// Whether the sink has stopped: somebody else has published.
    pub stopped: bool,
    /// What the journal isn't told yet.
    pub news: Option<Epoch>,
    pub whole: BTreeSet<Sequence>,
    pub drafts: u8,
    pub saved: Sequence,
    pub saving: Option<Saving>,
    pub forgetting: Vec<Sequence>,
}

/// What a start would find.
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

    /// The newest checkpoint that is whole, but for a damaged one.
    pub fn newest(&self, damaged: Option<Sequence>) -> Option<(Sequence, &Manifest)> {
        let mut whole = self.manifests.iter().rev().map(|(number, manifest)| (*number, manifest));
        whole.find(|(number, of)| self.files.contains(&of.file) && Some(*number) != damaged)
    }

    /// What a start would find now, or after a loss of power, with a checkpoint damaged.
    pub fn found(&self, synced: bool, damaged: Option<Sequence>) -> Result<Found, String> {
        let listed: Vec<Sequence> = self.journal.keys().copied().collect();
        self.found_in(self.newest(damaged), &listed, synced)
    }

    /// The same of the segments that were listed.
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

    /// The last entry that is there.
    pub fn last(&self) -> Sequence {
        let known = self.manifests.keys().last().copied().unwrap_or_default();
        let last = self.journal.iter().last();
        last.map_or(known, |(first, segment)| known.max(Sequence(first.0 + segment.items.len() as u64 - 1)))
    }

    /// The newest claim.
    pub fn newest_claim(&self) -> Sequence {
        let claims = |segment: &Segment| matches!(segment.items[..], [Item::Claim(_), ..]);
        let newest = self.journal.iter().rev().find(|(_, segment)| claims(segment));
        newest.map_or(Sequence::default(), |(first, _)| *first)
    }

    /// How many claims a start has put.
    pub fn claims_of(&self, id: u8) -> usize {
        self.journal.values().filter(|segment| segment.items.contains(&Item::Claim(id))).count()
    }

    /// What there is of checkpoints.
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
