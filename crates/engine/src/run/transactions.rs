//! The open transactions, by number.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use millstream_delta::Epoch;

use super::transact::OpenTransaction;

/// The owner of all open transactions and pins.
///
/// Its methods lie in the modules of their topics.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    pub(super) open: BTreeMap<u64, OpenTransaction>,
    /// The number of the newest transaction.
    pub(super) last: u64,
    /// The epoch after which the rows kept for transactions were last measured.
    pub(super) expired: Epoch,
}

impl Deref for Transactions {
    type Target = BTreeMap<u64, OpenTransaction>;

    fn deref(&self) -> &BTreeMap<u64, OpenTransaction> {
        &self.open
    }
}

impl DerefMut for Transactions {
    fn deref_mut(&mut self) -> &mut BTreeMap<u64, OpenTransaction> {
        &mut self.open
    }
}
