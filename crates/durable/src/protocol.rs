//! The rules by which nothing is lost that was promised, and nothing is put out twice: decisions as plain values.
//!
//! The engine, the journal and the checkpoints ask here; whatever they do between two of these decisions may be cut off.
//! A test lets two processes that go by these rules do all that they may do, in every order, with crashes in between
//! (`tests/protocol.rs`), and sees that each rule is needed.
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

/// Why nothing is written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A write failed, and nobody knows what is there.
    Failed,
    /// Another process goes on from what is there.
    Lost,
}

/// What is known of a journal that is being written: what it holds for good, and so what may be promised and put out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Entries that aren't known to be durable, each with the newest epoch when it was written.
    waiting: VecDeque<(Sequence, Epoch)>,
    /// The newest epoch that is durable.
    durable: Epoch,
    ended: Option<End>,
}

impl Ledger {
    /// That of a journal whose entries have all been read, the newest epoch among them being this one.
    pub fn after(epoch: Epoch) -> Ledger {
        Ledger { durable: epoch, ..Ledger::default() }
    }

    /// An entry was appended, `epoch` being the newest one by now.
    pub fn append(&mut self, entry: Sequence, epoch: Epoch) {
        self.waiting.push_back((entry, epoch));
    }

    /// All entries up to one are durable. After the end nothing is any more, whatever is said.
    pub fn are_durable(&mut self, through: Sequence) {
        if self.ended.is_some() {
            return;
        }
        while let Some((_, epoch)) = self.waiting.pop_front_if(|(entry, _)| *entry <= through) {
            self.durable = self.durable.max(epoch);
        }
    }

    /// Nothing is written any more. The first reason stays.
    pub fn end(&mut self, end: End) {
        self.ended.get_or_insert(end);
    }

    /// Why nothing is written any more.
    pub fn ended(&self) -> Option<End> {
        self.ended
    }

    /// Whether an entry is durable: then what it tells may be acknowledged, and a checkpoint of it may be published.
    pub fn has(&self, entry: Sequence) -> bool {
        self.waiting.front().is_none_or(|(waiting, _)| *waiting > entry)
    }

    /// Whether all that was appended is durable.
    pub fn has_all(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether another epoch may be decided.
    pub fn may_decide(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether an epoch may be put out. What another process goes on with, that one puts out.
    pub fn may_deliver(&self, epoch: Epoch) -> bool {
        epoch <= self.durable && self.ended != Some(End::Lost)
    }

    /// The newest epoch that is durable.
    pub fn durable(&self) -> Epoch {
        self.durable
    }
}

/// What is known of what a sink published before its engine was started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// The number that its CREATE has.
    made: Epoch,
    /// Whether it says itself what it holds.
    tells: bool,
    /// What it says, once it has.
    held: Option<Epoch>,
    /// What the journal says.
    delivered: Epoch,
    /// The newest epoch that the journal holds, once that is known; a sink that is made later has none.
    through: Option<Epoch>,
}

impl Outside {
    /// Of a sink that was made in this epoch; `tells`: it says itself what it holds.
    pub fn of(made: Epoch, tells: bool) -> Outside {
        Outside { made, tells, held: None, delivered: Epoch::default(), through: None }
    }

    /// The journal is read: this is the newest epoch.
    pub fn go_on(&mut self, through: Epoch) {
        self.through = Some(through);
    }

    /// The journal, or a checkpoint, says that all up to this epoch is published.
    pub fn was_delivered(&mut self, through: Epoch) {
        self.delivered = through;
    }

    /// The sink says what it holds.
    pub fn holds(&mut self, held: Epoch) {
        self.held = Some(held);
    }

    /// What the journal says.
    pub fn delivered(&self) -> Epoch {
        self.delivered
    }

    /// Whether something may be sent: before the sink has spoken nobody knows what it holds.
    pub fn may_send(&self) -> bool {
        self.held.is_some()
    }

    /// Up to which epoch nothing is sent again. While entries are done again that is no more than what these have told:
    /// with it comes what is compared.
    pub fn published(&self) -> Epoch {
        match (self.tells, self.through) {
            (true, Some(_)) => self.held.unwrap_or_default(),
            (true, None) => self.held.unwrap_or_default().min(self.delivered),
            (false, _) => self.delivered,
        }
    }

    /// Where it holds what this engine can't have put out: what it holds.
    pub fn too_much(&self) -> Option<Epoch> {
        self.held.filter(|held| *held > self.possible())
    }

    /// The newest epoch that can be there.
    pub fn possible(&self) -> Epoch {
        self.through.unwrap_or(Epoch(self.made.0.saturating_sub(1)))
    }

    /// Whether it was made before its engine was started.
    pub fn is_of_before(&self) -> bool {
        self.through.is_some()
    }
}

/// The checkpoints that are kept, of those that are known to be whole: the newest so many.
pub fn kept(whole: &BTreeSet<Sequence>, count: usize) -> BTreeSet<Sequence> {
    whole.iter().rev().take(count.max(1)).copied().collect()
}

/// The entry up to which the journal isn't read any more: that of the oldest checkpoint, once so many are kept. Where all
/// newer ones are damaged a start goes on from that one.
pub fn covered(kept: &BTreeSet<Sequence>, count: usize) -> Option<Sequence> {
    kept.first().copied().filter(|_| kept.len() >= count)
}

/// Whether what belongs to a checkpoint of entry `number` is removed. Where other processes may begin checkpoints, only
/// what comes before an entry that they begin none before.
pub fn is_left_over(number: Sequence, kept: &BTreeSet<Sequence>, before: Option<Sequence>) -> bool {
    !kept.contains(&number) && before.is_none_or(|before| number < before)
}

/// Which segments hold nothing behind entry `through`, by the first entries of all of them, ascending. The last one is
/// being written.
pub fn passed(firsts: &[Sequence], through: Sequence) -> impl Iterator<Item = usize> {
    let followers = firsts.iter().skip(1).enumerate();
    followers.filter(move |(_, next)| **next <= through.next()).map(|(place, _)| place)
}

/// Whether a passed segment may be a claim, which stays: whoever wrote before must find it, whenever it comes back. What
/// comes behind a process's own claim that process has written itself.
pub fn may_be_claim(first: Sequence, own: Sequence) -> bool {
    first <= own
}

/// Whether a claim that was put stops everyone who wrote before. Where something newer is there, its place may have been
/// that of a segment that was removed, whose writer is far ahead.
pub fn stops_others(claim: Sequence, newest: Option<Sequence>) -> bool {
    newest.is_none_or(|newest| newest <= claim)
}

/// Who has a prefix, as one who claimed it finds when it has read all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The one who reads: its claim is the last entry.
    Reader,
    /// Somebody else has written behind the claim, as only another claim allows.
    Another,
    /// What is listed ends before the claim.
    Unknown,
}

/// Who has the prefix where `last` is the last entry and `claim` that of one's own claim.
pub fn owner(last: Sequence, claim: Sequence) -> Owner {
    match last.cmp(&claim) {
        std::cmp::Ordering::Equal => Owner::Reader,
        std::cmp::Ordering::Greater => Owner::Another,
        std::cmp::Ordering::Less => Owner::Unknown,
    }
}
