//! The rules of the processes: those of the engine, or with one of them broken.

use std::collections::BTreeSet;

use millstream_delta::Epoch;

use crate::Sequence;
use crate::protocol::{self, Ledger, Outside, Owner};

/// Number of checkpoints kept, as in the engine.
pub const KEPT: usize = 2;

#[derive(Clone)]
pub struct Rules {
    pub journal: JournalRules,
    pub sinks: SinkRules,
    pub checkpoints: CheckpointRules,
    pub claims: ClaimRules,
}

/// The rules for entries of the journal.
#[derive(Clone)]
pub struct JournalRules {
    /// Returns true if an acknowledgement that depends on an entry may be given.
    pub may_acknowledge: fn(&Ledger, Sequence) -> bool,
    pub passed: fn(&[Sequence], Sequence) -> Vec<usize>,
    /// The treatment of the journal's end at a start.
    pub syncs_at_start: Sync,
    /// True if a failed sync ends the journal.
    pub ends_where_a_sync_fails: bool,
}

/// The rules for epochs that a sink publishes.
#[derive(Clone)]
pub struct SinkRules {
    pub may_deliver: fn(&Ledger, Epoch) -> bool,
    pub published: fn(&Outside) -> Epoch,
    /// Returns the published epoch if a sink was asked to publish up to one epoch and has published up to
    /// another.
    pub named: fn(Epoch, Epoch) -> Epoch,
}

/// The rules for checkpoints and what they replace.
#[derive(Clone)]
pub struct CheckpointRules {
    pub may_publish: fn(&Ledger, Sequence) -> bool,
    pub kept: fn(&BTreeSet<Sequence>, usize) -> BTreeSet<Sequence>,
    pub covered: fn(&BTreeSet<Sequence>, usize) -> Option<Sequence>,
    pub is_left_over: fn(Sequence, &BTreeSet<Sequence>, Option<Sequence>) -> bool,
}

/// The rules for two processes on an object store.
#[derive(Clone)]
pub struct ClaimRules {
    pub may_be_claim: fn(Sequence, Sequence) -> bool,
    pub owner: fn(Sequence, Sequence) -> Owner,
    /// True if a process checks its claim before it removes anything.
    pub looks_after_the_claim: bool,
    /// True if segments are put conditionally.
    pub puts_if_absent: bool,
}

/// The treatment of the last entries of the journal that a start has read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Writes them again and syncs them.
    Again,
    /// Syncs them.
    Only,
    None,
}

impl Rules {
    /// Returns the rules of the engine.
    pub fn real() -> Rules {
        Rules {
            journal: JournalRules {
                may_acknowledge: Ledger::has,
                passed: |firsts, through| protocol::passed(firsts, through).collect(),
                syncs_at_start: Sync::Again,
                ends_where_a_sync_fails: true,
            },
            sinks: SinkRules {
                may_deliver: Ledger::may_deliver,
                published: Outside::published,
                named: |_, published| published,
            },
            checkpoints: CheckpointRules {
                may_publish: Ledger::has,
                kept: protocol::kept,
                covered: protocol::covered,
                is_left_over: protocol::is_left_over,
            },
            claims: ClaimRules {
                may_be_claim: protocol::may_be_claim,
                owner: protocol::owner,
                looks_after_the_claim: true,
                puts_if_absent: true,
            },
        }
    }
}
