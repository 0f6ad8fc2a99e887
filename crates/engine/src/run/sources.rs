//! The running sources, by name.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::budget::Budget;
use super::source::RunningSource;

/// The owner of all running sources: finds them, which of them have rows, and how many an epoch takes.
///
/// Its methods lie in the modules of their topics.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) all: BTreeMap<Arc<str>, RunningSource>,
    /// The number of rows that an epoch takes of them.
    pub(super) budget: Budget,
}

impl Deref for Sources {
    type Target = BTreeMap<Arc<str>, RunningSource>;

    fn deref(&self) -> &BTreeMap<Arc<str>, RunningSource> {
        &self.all
    }
}

impl DerefMut for Sources {
    fn deref_mut(&mut self) -> &mut BTreeMap<Arc<str>, RunningSource> {
        &mut self.all
    }
}
