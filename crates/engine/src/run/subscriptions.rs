//! The subscriptions: those with a reader, and the durable ones.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::subscribe::Subscription;
use super::subscription::DurableSubscription;

/// The owner of all subscriptions.
///
/// Its methods lie in the modules of their topics.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) open: BTreeMap<u64, Subscription>,
    /// The subscriptions with a name, whose position survives restarts.
    pub(super) durable: BTreeMap<Arc<str>, DurableSubscription>,
    /// The number of the newest subscription.
    pub(super) last: u64,
}

impl Deref for Subscriptions {
    type Target = BTreeMap<u64, Subscription>;

    fn deref(&self) -> &BTreeMap<u64, Subscription> {
        &self.open
    }
}

impl DerefMut for Subscriptions {
    fn deref_mut(&mut self) -> &mut BTreeMap<u64, Subscription> {
        &mut self.open
    }
}
