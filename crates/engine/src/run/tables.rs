//! The tables, with the statements that reserve or change them.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::apply::Applied;
use super::reserve::Reserved;
use super::table::Table;
use crate::sequences::Sequences;

/// The owner of all tables: finds them, applies changes to them, and knows which statements have them to themselves.
///
/// Its methods lie in the modules of their topics.
#[derive(Default)]
pub(super) struct BaseTables {
    pub(super) all: BTreeMap<Arc<str>, Table>,
    /// Tables that statements have to themselves.
    pub(super) reserved: Reserved,
    /// Statements whose changes are applied piece by piece.
    pub(super) applied: Applied,
    /// The sequences of all identity columns.
    pub(super) sequences: Arc<Sequences>,
}

impl Deref for BaseTables {
    type Target = BTreeMap<Arc<str>, Table>;

    fn deref(&self) -> &BTreeMap<Arc<str>, Table> {
        &self.all
    }
}

impl DerefMut for BaseTables {
    fn deref_mut(&mut self) -> &mut BTreeMap<Arc<str>, Table> {
        &mut self.all
    }
}
