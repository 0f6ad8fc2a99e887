//! The state of a query while it backfills.

use std::sync::Arc;
use std::time::Instant;

use millstream_delta::{Cut, Epoch, Timestamp};

use super::Pieces;
use super::apart::BeginningMemory;
use crate::run::query::Status;

impl Status {
    /// True if a thread is taking over the state of the old query.
    pub(in crate::run) fn inherits(&self) -> bool {
        matches!(self, Status::CatchingUp(catch_up) if catch_up.pieces.inherits)
    }

    /// Returns the cut under which a query takes in what its inputs held at its creation. `epoch`: its last one.
    pub(in crate::run) fn pinned(&self, epoch: Epoch) -> Cut {
        match self {
            Status::CatchingUp(catch_up) => catch_up.pinned.clone(),
            _ => Cut::new(epoch, Timestamp::default()),
        }
    }

    /// Returns the batch time of pieces that no later changes have followed yet.
    pub(in crate::run) fn piece_time(&self) -> Timestamp {
        match self {
            Status::CatchingUp(catch_up) => catch_up.now,
            _ => Timestamp::default(),
        }
    }

    /// Returns the time from which on sources no longer wait for it as a new query.
    pub(in crate::run) fn hold_ends(&self) -> Option<Instant> {
        match self {
            Status::CatchingUp(catch_up) => catch_up.hold_ends(),
            _ => None,
        }
    }

    /// True if a thread repeats a piece that may have killed a previous process.
    pub(in crate::run) fn is_noted(&self) -> bool {
        matches!(self, Status::CatchingUp(catch_up) if catch_up.entry.is_some() && catch_up.pieces.is_away())
    }

    /// Returns the size in bytes of the changes that it has taken out of the logs, but not taken in.
    pub(in crate::run) fn since_bytes(&self) -> usize {
        match self {
            Status::CatchingUp(catch_up) => catch_up.pieces.since_bytes,
            _ => 0,
        }
    }

    /// True if it keeps its output until the backfill ends.
    pub(in crate::run) fn is_held(&self) -> bool {
        matches!(self, Status::CatchingUp(catch_up) if catch_up.is_held())
    }

    pub(super) fn pieces_mut(&mut self) -> Option<&mut Pieces> {
        match self {
            Status::CatchingUp(catch_up) => Some(&mut catch_up.pieces),
            _ => None,
        }
    }

    /// Returns the memory of the statement, if a query is in backfill.
    pub(in crate::run) fn memory(&self) -> Option<Arc<BeginningMemory>> {
        if let Status::CatchingUp(catch_up) = self { catch_up.memory.clone() } else { None }
    }
}
