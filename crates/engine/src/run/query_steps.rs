//! The part of the loop that steps queries.

use super::Departures;
use super::Loop;
use super::TableIntake;
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

/// Steps queries: in an epoch, beside the loop while they lag, and back to its epoch.
///
/// Its methods lie in the modules of their topics.
pub(super) struct QuerySteps<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) watermarks: &'a mut Watermarks,
    pub(super) waiters: &'a Waiters,
    pub(super) durability: &'a mut Durability,
    pub(super) measures: &'a mut Measures,
}

impl Loop {
    pub(super) fn steps(&mut self) -> QuerySteps<'_> {
        QuerySteps {
            setup: &self.setup,
            tasks: &self.tasks,
            clock: &self.clock,
            tables: &mut self.tables,
            sources: &self.sources,
            queries: &mut self.queries,
            outputs: &mut self.outputs,
            watermarks: &mut self.watermarks,
            waiters: &self.waiters,
            durability: &mut self.durability,
            measures: &mut self.measures,
        }
    }
}

impl QuerySteps<'_> {
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

    pub(super) fn departures(&mut self) -> Departures<'_> {
        Departures {
            setup: self.setup,
            tasks: self.tasks,
            clock: self.clock,
            tables: self.tables,
            sources: self.sources,
            queries: self.queries,
            outputs: self.outputs,
            waiters: self.waiters,
            durability: self.durability,
        }
    }

    pub(super) fn intake(&mut self) -> TableIntake<'_> {
        TableIntake {
            setup: self.setup,
            tasks: self.tasks,
            clock: self.clock,
            tables: self.tables,
            queries: self.queries,
            watermarks: self.watermarks,
            durability: self.durability,
            measures: self.measures,
        }
    }
}
