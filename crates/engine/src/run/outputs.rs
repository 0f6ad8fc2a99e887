//! The outputs of queries: the logs keep each epoch's changes until every sink and subscription has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::log::Logs;
use super::sink::RunningSink;
use super::subscriptions::Subscriptions;

/// Hands the changes of relations to sinks and subscriptions, each from its own place in the logs.
#[derive(Default)]
pub(crate) struct Outputs {
    pub(super) sinks: BTreeMap<Arc<str>, RunningSink>,
    pub(super) logs: Logs,
    pub(super) subscriptions: Subscriptions,
}
