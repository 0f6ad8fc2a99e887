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
