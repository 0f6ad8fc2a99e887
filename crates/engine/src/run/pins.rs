//! The part of the loop that pins relations.

use super::Departures;
use super::Loop;
use super::clock::Clock;
use super::durable::Durability;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::waiters::Waiters;
use super::watermarks::Watermarks;

/// Pins relations at one epoch for those that read them later: transactions, backfills, VERIFY, and inserts of late
/// rows.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Pins<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) watermarks: &'a Watermarks,
    pub(super) waiters: &'a Waiters,
    pub(super) durability: &'a Durability,
}

impl Loop {
    pub(super) fn pins(&mut self) -> Pins<'_> {
        Pins {
            setup: &self.setup,
            tasks: &self.tasks,
            clock: &self.clock,
            tables: &self.tables,
            sources: &self.sources,
            queries: &mut self.queries,
            outputs: &mut self.outputs,
            watermarks: &self.watermarks,
            waiters: &self.waiters,
            durability: &self.durability,
        }
    }
}

impl Pins<'_> {
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
}
