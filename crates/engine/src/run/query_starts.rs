//! The part of the loop that starts queries.

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
use super::{Loop, QuerySteps, borrow_query_steps};

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

/// Borrows the parts of [`QueryStarts`] from the loop, or from a view that has them.
macro_rules! borrow_query_starts {
    ($from:ident) => {
        QueryStarts {
            setup: &$from.setup,
            tasks: &$from.tasks,
            clock: &mut $from.clock,
            tables: &mut $from.tables,
            sources: &$from.sources,
            queries: &mut $from.queries,
            outputs: &mut $from.outputs,
            watermarks: &mut $from.watermarks,
            waiters: &mut $from.waiters,
            durability: &mut $from.durability,
            measures: &mut $from.measures,
        }
    };
}
pub(super) use borrow_query_starts;

impl Loop {
    pub(super) fn starts(&mut self) -> QueryStarts<'_> {
        borrow_query_starts!(self)
    }
}

impl QueryStarts<'_> {
    pub(super) fn flow_control(&self) -> FlowControl<'_> {
        borrow_flow_control!(self)
    }

    pub(super) fn steps(&mut self) -> QuerySteps<'_> {
        borrow_query_steps!(self)
    }
}
