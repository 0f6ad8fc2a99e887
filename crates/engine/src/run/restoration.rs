//! The part of the loop that restores its state at a start.

use super::Loop;
use super::clock::Clock;
use super::durable::Durability;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::watermarks::Watermarks;

/// Restores the state that a checkpoint saved, and ends the recovery.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Restoration<'a> {
    pub(super) setup: &'a mut Setup,
    pub(super) clock: &'a mut Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a mut Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) watermarks: &'a mut Watermarks,
    pub(super) durability: &'a mut Durability,
}

impl Loop {
    pub(super) fn restoration(&mut self) -> Restoration<'_> {
        Restoration {
            setup: &mut self.setup,
            clock: &mut self.clock,
            tables: &mut self.tables,
            sources: &mut self.sources,
            queries: &mut self.queries,
            outputs: &mut self.outputs,
            watermarks: &mut self.watermarks,
            durability: &mut self.durability,
        }
    }
}
