//! The rules that prevent loss of promised data and duplicate output: decisions as plain values.
//!
//! The engine, the journal and the checkpoints ask here; a crash may interrupt them between any two
//! decisions. The test `tests/protocol.rs` explores two processes that follow these rules, in every order of
//! their actions, with crashes in between. It also proves each rule necessary.
//!
//! ```
//! use millstream_delta::Epoch;
//! use millstream_durable::Sequence;
//! use millstream_durable::protocol::Ledger;
//!
//! let mut ledger = Ledger::after(Epoch(7));
//! ledger.append(Sequence(21), Epoch(8));
//! assert!(!ledger.has(Sequence(21)) && !ledger.may_deliver(Epoch(8)));
//! ledger.are_durable(Sequence(21));
//! assert!(ledger.has(Sequence(21)) && ledger.may_deliver(Epoch(8)));
//! ```
//!
//! Deliberately absent: threads, storage and time.

use std::collections::{BTreeSet, VecDeque};

use millstream_delta::Epoch;

use crate::Sequence;

/// The reason why the journal writes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A write failed with unknown outcome.
    Failed,
    /// Another process continues from the journal's last entry.
    Lost,
}

/// The durability of a journal that is being written, which determines what may be acknowledged and
/// published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Entries not known to be durable, each with the newest epoch when it was appended.
    waiting: VecDeque<(Sequence, Epoch)>,
    /// The newest durable epoch.
    durable: Epoch,
    ended: Option<End>,
}

impl Ledger {
    /// Returns the ledger of a journal whose entries have all been read, with `epoch` as the newest epoch
    /// among them.
    pub fn after(epoch: Epoch) -> Ledger {
        Ledger { durable: epoch, ..Ledger::default() }
    }

    /// Records an appended entry; `epoch` is the newest epoch by then.
    pub fn append(&mut self, entry: Sequence, epoch: Epoch) {
        self.waiting.push_back((entry, epoch));
    }

    /// Records that all entries up to `through` are durable. After the end this call has no effect.
    pub fn are_durable(&mut self, through: Sequence) {
        if self.ended.is_some() {
            return;
        }
        while let Some((_, epoch)) = self.waiting.pop_front_if(|(entry, _)| *entry <= through) {
            self.durable = self.durable.max(epoch);
        }
    }

    /// Records that nothing is written any more. The first reason stays.
    pub fn end(&mut self, end: End) {
        self.ended.get_or_insert(end);
    }

    /// Returns the reason why nothing is written any more.
    pub fn ended(&self) -> Option<End> {
        self.ended
    }

    /// Returns true if an entry is durable. Then it may be acknowledged, and a checkpoint of it may be
    /// published.
    pub fn has(&self, entry: Sequence) -> bool {
        self.waiting.front().is_none_or(|(waiting, _)| *waiting > entry)
    }

    /// Returns true if all appended entries are durable.
    pub fn has_all(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns true if the engine may decide another epoch.
    pub fn may_decide(&self) -> bool {
        self.ended.is_none()
    }

    /// Returns true if the engine may publish an epoch. If another process has taken over, that process
    /// publishes.
    pub fn may_deliver(&self, epoch: Epoch) -> bool {
        epoch <= self.durable && self.ended != Some(End::Lost)
    }

    /// Returns the newest durable epoch.
    pub fn durable(&self) -> Epoch {
        self.durable
    }
}

/// The published position of a sink, as the engine learns it during a start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// The epoch in which the sink was created.
    made: Epoch,
    /// True if the sink itself reports its position.
    tells: bool,
    /// The position that the sink reported; `None` until it has.
    held: Option<Epoch>,
    /// The position according to the journal.
    delivered: Epoch,
    /// The newest epoch in the journal, once that is known; `None` for a sink created later.
    through: Option<Epoch>,
}

impl Outside {
    /// Returns the state of a sink created in the epoch `made`. `tells` is true if the sink itself reports
    /// its position.
    pub fn of(made: Epoch, tells: bool) -> Outside {
        Outside { made, tells, held: None, delivered: Epoch::default(), through: None }
    }

    /// Records the newest epoch, once the journal has been read.
    pub fn go_on(&mut self, through: Epoch) {
        self.through = Some(through);
    }

    /// Records a position from the journal or from a checkpoint.
    pub fn was_delivered(&mut self, through: Epoch) {
        self.delivered = through;
    }

    /// Records the position that the sink reports.
    pub fn holds(&mut self, held: Epoch) {
        self.held = Some(held);
    }

    /// Returns the position according to the journal.
    pub fn delivered(&self) -> Epoch {
        self.delivered
    }

    /// Returns true if rows may be sent: before the sink has reported, its position is unknown.
    pub fn may_send(&self) -> bool {
        self.held.is_some()
    }

    /// Returns the epoch up to which nothing is sent again. During recovery it does not exceed the position
    /// in the journal, because the journal's digests for comparison come with that position.
    pub fn published(&self) -> Epoch {
        match (self.tells, self.through) {
            (true, Some(_)) => self.held.unwrap_or_default(),
            (true, None) => self.held.unwrap_or_default().min(self.delivered),
            (false, _) => self.delivered,
        }
    }

    /// Returns the position that the sink reported, if it is beyond anything this engine can have published.
    pub fn too_much(&self) -> Option<Epoch> {
        self.held.filter(|held| *held > self.possible())
    }

    /// Returns the newest epoch that can have been published.
    pub fn possible(&self) -> Epoch {
        self.through.unwrap_or(Epoch(self.made.0.saturating_sub(1)))
    }

    /// Returns true if the sink was created before its engine was started.
    pub fn is_of_before(&self) -> bool {
        self.through.is_some()
    }
}

/// Returns the checkpoints to keep: the newest `count` of those known to be whole.
pub fn kept(whole: &BTreeSet<Sequence>, count: usize) -> BTreeSet<Sequence> {
    whole.iter().rev().take(count.max(1)).copied().collect()
}

/// Returns the entry up to which the journal is no longer needed: that of the oldest kept checkpoint, once
/// `count` checkpoints are kept. If all newer ones are damaged, a start uses the oldest.
pub fn covered(kept: &BTreeSet<Sequence>, count: usize) -> Option<Sequence> {
    kept.first().copied().filter(|_| kept.len() >= count)
}

/// Returns true if the files of a checkpoint of entry `number` are to be removed. Other processes may write
/// checkpoints from the entry `before` on, so those stay.
pub fn is_left_over(number: Sequence, kept: &BTreeSet<Sequence>, before: Option<Sequence>) -> bool {
    !kept.contains(&number) && before.is_none_or(|before| number < before)
}

/// Returns the indices of segments without entries after `through`, given the first entries of all segments,
/// ascending. The last segment is being written and never among them.
pub fn passed(firsts: &[Sequence], through: Sequence) -> impl Iterator<Item = usize> {
    let followers = firsts.iter().skip(1).enumerate();
    followers.filter(move |(_, next)| **next <= through.next()).map(|(place, _)| place)
}

/// Returns true if a passed segment may be a claim. Claims stay: a previous owner must find its successor's
/// claim, however late it resumes. All segments after its own claim a process has written itself.
pub fn may_be_claim(first: Sequence, own: Sequence) -> bool {
    first <= own
}

/// Returns true if a new claim fences all previous owners off. If a newer segment exists, the claim may have
/// landed in the slot of a removed segment, while its writer is far ahead.
pub fn stops_others(claim: Sequence, newest: Option<Sequence>) -> bool {
    newest.is_none_or(|newest| newest <= claim)
}

/// The owner of a prefix, from the view of a process that claimed it and has read the whole journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The reader: its claim is the last entry.
    Reader,
    /// Another process: an entry after the claim requires a newer claim.
    Another,
    /// Unknown: the store's listing ends before the claim.
    Unknown,
}

/// Returns the owner, given the last entry and the reader's own claim.
pub fn owner(last: Sequence, claim: Sequence) -> Owner {
    match last.cmp(&claim) {
        std::cmp::Ordering::Equal => Owner::Reader,
        std::cmp::Ordering::Greater => Owner::Another,
        std::cmp::Ordering::Less => Owner::Unknown,
    }
}
