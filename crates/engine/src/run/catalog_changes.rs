//! The part of the loop that changes objects.

use super::Delivery;
use super::Departures;
use super::Loop;
use super::QueryStarts;
use super::QuerySteps;
use super::Successors;
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

/// Carries out statements that create, change, replace, pause and drop objects, between two epochs.
///
/// Its methods lie in the modules of their topics.
pub(super) struct CatalogChanges<'a> {
    pub(super) setup: &'a mut Setup,
    pub(super) tasks: &'a mut Tasks,
    pub(super) clock: &'a mut Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a mut Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) watermarks: &'a mut Watermarks,
    pub(super) waiters: &'a mut Waiters,
    pub(super) durability: &'a mut Durability,
    pub(super) measures: &'a mut Measures,
}

impl Loop {
    pub(super) fn changes(&mut self) -> CatalogChanges<'_> {
        CatalogChanges {
            setup: &mut self.setup,
            tasks: &mut self.tasks,
            clock: &mut self.clock,
            tables: &mut self.tables,
            sources: &mut self.sources,
            queries: &mut self.queries,
            outputs: &mut self.outputs,
            watermarks: &mut self.watermarks,
            waiters: &mut self.waiters,
            durability: &mut self.durability,
            measures: &mut self.measures,
        }
    }
}

impl CatalogChanges<'_> {
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

    pub(super) fn starts(&mut self) -> QueryStarts<'_> {
        QueryStarts {
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

    pub(super) fn delivery(&mut self) -> Delivery<'_> {
        Delivery {
            setup: self.setup,
            tasks: self.tasks,
            clock: self.clock,
            tables: self.tables,
            sources: self.sources,
            queries: self.queries,
            outputs: self.outputs,
            durability: self.durability,
            measures: self.measures,
        }
    }

    pub(super) fn successors(&mut self) -> Successors<'_> {
        Successors {
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
        }
    }
}
