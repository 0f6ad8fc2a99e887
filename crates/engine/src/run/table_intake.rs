//! The part of the loop that changes tables.

use super::clock::Clock;
use super::durable::Durability;
use super::measure::Measures;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::watermarks::Watermarks;

/// Applies the changes of statements and of sinks to tables, at once or piece by piece.
///
/// Its methods lie in the modules of their topics.
pub(super) struct TableIntake<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) watermarks: &'a mut Watermarks,
    pub(super) durability: &'a mut Durability,
    pub(super) measures: &'a mut Measures,
}

/// Borrows the parts of [`TableIntake`] from the loop, or from a view that has them.
macro_rules! borrow_table_intake {
    ($from:ident) => {
        TableIntake {
            setup: &$from.setup,
            tasks: &$from.tasks,
            clock: &$from.clock,
            tables: &mut $from.tables,
            queries: &mut $from.queries,
            watermarks: &mut $from.watermarks,
            durability: &mut $from.durability,
            measures: &mut $from.measures,
        }
    };
}
pub(super) use borrow_table_intake;
