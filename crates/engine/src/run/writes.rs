//! The part of the loop that takes the changes of statements.

use super::Loop;
use super::clock::Clock;
use super::durable::Durability;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::watermarks::Watermarks;

/// Hands the changes of INSERT, UPDATE, DELETE and COMMIT to tables and sources.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Writes<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a mut Sources,
    pub(super) queries: &'a QueryGraph,
    pub(super) watermarks: &'a Watermarks,
    pub(super) durability: &'a mut Durability,
}

impl Loop {
    pub(super) fn writes(&mut self) -> Writes<'_> {
        Writes {
            setup: &self.setup,
            tasks: &self.tasks,
            clock: &self.clock,
            tables: &mut self.tables,
            sources: &mut self.sources,
            queries: &self.queries,
            watermarks: &self.watermarks,
            durability: &mut self.durability,
        }
    }
}
