//! The outputs of queries: the logs keep each epoch's changes until every sink and subscription has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::log::Logs;
use super::query_replacement::Successor;
use super::sink::RunningSink;
use super::subscriptions::Subscriptions;
use super::transactions::Transactions;
use crate::listener::SinkDelivery;

/// Keeps the changes of relations in logs, for all that read them besides queries: sinks, subscriptions, transactions,
/// successors. Hands them to sinks and subscriptions, each from its own place.
#[derive(Default)]
pub(crate) struct Outputs {
    pub(super) sinks: BTreeMap<Arc<str>, RunningSink>,
    pub(super) logs: Logs,
    pub(super) subscriptions: Subscriptions,
    pub(super) transactions: Transactions,
    /// Queries that will replace others.
    pub(super) successors: Vec<Successor>,
    /// Epochs that sinks were handed, for listeners.
    pub(super) begun: Vec<SinkDelivery>,
}

impl Outputs {
    /// True if a sink or a durable subscription reads a relation.
    pub(super) fn have_reader_of(&self, name: &Arc<str>) -> bool {
        self.sinks.values().any(|sink| sink.from == *name)
            || self.subscriptions.durable.values().any(|durable| durable.from == *name)
    }
}
