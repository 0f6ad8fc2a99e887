//! The rules that processes go by: those of the engine, or one of them broken.

use std::collections::BTreeSet;

use millstream_delta::Epoch;

use crate::Sequence;
use crate::protocol::{self, Ledger, Outside, Owner};

/// How many checkpoints are kept, as by the engine.
pub const KEPT: usize = 2;

#[derive(Clone)]
pub struct Rules {
    /// Whether a promise is kept that rests on an entry.
    pub may_acknowledge: fn(&Ledger, Sequence) -> bool,
    pub may_deliver: fn(&Ledger, Epoch) -> bool,
    pub may_publish: fn(&Ledger, Sequence) -> bool,
    pub published: fn(&Outside) -> Epoch,
    /// What counts as published where a sink was asked to publish all up to an epoch, and has published up to another.
    pub named: fn(Epoch, Epoch) -> Epoch,
    pub kept: fn(&BTreeSet<Sequence>, usize) -> BTreeSet<Sequence>,
    pub covered: fn(&BTreeSet<Sequence>, usize) -> Option<Sequence>,
    pub is_left_over: fn(Sequence, &BTreeSet<Sequence>, Option<Sequence>) -> bool,
    pub may_be_claim: fn(Sequence, Sequence) -> bool,
    pub passed: fn(&[Sequence], Sequence) -> Vec<usize>,
    pub owner: fn(Sequence, Sequence) -> Owner,
    /// Whether a start writes again what it read, and syncs that.
    pub syncs_at_start: Sync,
    /// Whether a failed sync is the end.
    pub ends_where_a_sync_fails: bool,
    /// Whether the claim is looked after before anything is removed.
    pub looks_after_the_claim: bool,
    /// Whether segments are put only where there is none.
    pub puts_if_absent: bool,
}

/// What a start does with the end of the journal that it has read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Writes it again and syncs it.
    Again,
    /// Syncs it.
    Only,
    None,
}

impl Rules {
    /// Those of the engine.
    pub fn real() -> Rules {
        Rules {
            may_acknowledge: Ledger::has,
            may_deliver: Ledger::may_deliver,
            may_publish: Ledger::has,
            published: Outside::published,
            named: |_, published| published,
            kept: protocol::kept,
            covered: protocol::covered,
            is_left_over: protocol::is_left_over,
            may_be_claim: protocol::may_be_claim,
            passed: |firsts, through| protocol::passed(firsts, through).collect(),
            owner: protocol::owner,
            syncs_at_start: Sync::Again,
            ends_where_a_sync_fails: true,
            looks_after_the_claim: true,
            puts_if_absent: true,
        }
    }
}
