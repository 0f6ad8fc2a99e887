//! The part of the loop that reads recorded epochs again.

use super::Loop;
use super::clock::Clock;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::waiters::Waiters;

/// Reads the rows of a recorded epoch again, and takes them in as of that epoch.
///
/// Its methods lie in the modules of their topics.
pub(super) struct EpochReplay<'a> {
    pub(super) setup: &'a Setup,
    pub(super) clock: &'a mut Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a mut Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) waiters: &'a mut Waiters,
}

impl Loop {
    pub(super) fn epoch_replay(&mut self) -> EpochReplay<'_> {
        EpochReplay {
            setup: &self.setup,
            clock: &mut self.clock,
            tables: &mut self.tables,
            sources: &mut self.sources,
            queries: &mut self.queries,
            waiters: &mut self.waiters,
        }
    }
}
