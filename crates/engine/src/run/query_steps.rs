//! The part of the loop that steps queries.

use super::clock::Clock;
use super::durable::Durability;
use super::flow_control::{FlowControl, borrow_flow_control};
use super::measure::Measures;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::waiters::Waiters;
use super::watermarks::Watermarks;
use super::{Departures, Loop, TableIntake, borrow_departures, borrow_table_intake};

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

/// Borrows the parts of [`QuerySteps`] from the loop, or from a view that has them.
macro_rules! borrow_query_steps {
    ($from:ident) => {
        QuerySteps {
            setup: &$from.setup,
            tasks: &$from.tasks,
            clock: &$from.clock,
            tables: &mut $from.tables,
            sources: &$from.sources,
            queries: &mut $from.queries,
            outputs: &mut $from.outputs,
            watermarks: &mut $from.watermarks,
            waiters: &$from.waiters,
            durability: &mut $from.durability,
            measures: &mut $from.measures,
        }
    };
}
pub(super) use borrow_query_steps;

impl Loop {
    pub(super) fn steps(&mut self) -> QuerySteps<'_> {
        borrow_query_steps!(self)
    }
}

impl QuerySteps<'_> {
    pub(super) fn flow_control(&self) -> FlowControl<'_> {
        borrow_flow_control!(self)
    }

    pub(super) fn departures(&mut self) -> Departures<'_> {
        borrow_departures!(self)
    }

    pub(super) fn intake(&mut self) -> TableIntake<'_> {
        borrow_table_intake!(self)
    }
}
