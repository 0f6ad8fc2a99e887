//! The part of the loop that starts queries.

use super::Loop;
use super::QuerySteps;
use super::clock::Clock;
use super::durable::Durability;
use super::flow_control::FlowControl;
use super::measure::Measures;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::waiters::Waiters;
use super::watermarks::Watermarks;

/// Starts queries, with a backfill if they need one, and makes them current.
///
/// Its methods lie in the modules of their topics.
pub(super) struct QueryStarts<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a mut Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) watermarks: &'a mut Watermarks,
    pub(super) waiters: &'a mut Waiters,
    pub(super) durability: &'a mut Durability,
    pub(super) measures: &'a mut Measures,
}

impl Loop {
    pub(super) fn starts(&mut self) -> QueryStarts<'_> {
        QueryStarts {
            setup: &self.setup,
            tasks: &self.tasks,
            clock: &mut self.clock,
            tables: &mut self.tables,
            sources: &self.sources,
            queries: &mut self.queries,
            outputs: &mut self.outputs,
            watermarks: &mut self.watermarks,
            waiters: &mut self.waiters,
            durability: &mut self.durability,
            measures: &mut self.measures,
        }
    }
}

impl QueryStarts<'_> {
    pub(super) fn flow_control(&self) -> FlowControl<'_> {
        FlowControl {
            setup: self.setup,
            queries: self.queries,
            tables: self.tables,
            sources: self.sources,
            outputs: self.outputs,
            waiters: self.waiters,
            durability: self.durability,
        }
    }

    pub(super) fn steps(&mut self) -> QuerySteps<'_> {
        QuerySteps {
            setup: self.setup,
            tasks: self.tasks,
            clock: self.clock,
            tables: self.tables,
            sources: self.sources,
            queries: self.queries,
            outputs: self.outputs,
            watermarks: self.watermarks,
            waiters: self.waiters,
            durability: self.durability,
            measures: self.measures,
        }
    }
}
