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

/// Borrows the parts of [`Delivery`] from the loop, or from a view that has them.
macro_rules! borrow_delivery {
    ($from:ident) => {
        Delivery {
            setup: &$from.setup,
            tasks: &$from.tasks,
            clock: &$from.clock,
            tables: &$from.tables,
            sources: &mut $from.sources,
            queries: &mut $from.queries,
            outputs: &mut $from.outputs,
            durability: &$from.durability,
            measures: &mut $from.measures,
        }
    };
}
pub(super) use borrow_delivery;

impl Loop {
    pub(super) fn delivery(&mut self) -> Delivery<'_> {
        borrow_delivery!(self)
    }
}
