//! The part of the loop that serves subscriptions.

use super::Loop;
use super::clock::Clock;
use super::durable::Durability;
use super::measure::Measures;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::Tasks;

/// Opens and ends subscriptions, and hands each the changes that its reader has room for.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Delivery<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a mut Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) durability: &'a Durability,
    pub(super) measures: &'a mut Measures,
}

impl Loop {
    pub(super) fn delivery(&mut self) -> Delivery<'_> {
        Delivery {
            setup: &self.setup,
            tasks: &self.tasks,
            clock: &self.clock,
            tables: &self.tables,
            sources: &mut self.sources,
            queries: &mut self.queries,
            outputs: &mut self.outputs,
            durability: &self.durability,
            measures: &mut self.measures,
        }
    }
}
