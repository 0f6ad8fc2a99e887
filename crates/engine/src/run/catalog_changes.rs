//! The part of the loop that changes objects.

use super::clock::Clock;
use super::contents::Bases;
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
use super::{
    Delivery, Departures, Loop, QueryStarts, QuerySteps, Successors, TableIntake, borrow_delivery,
    borrow_departures, borrow_query_starts, borrow_query_steps, borrow_table_intake,
};

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
        borrow_flow_control!(self)
    }

    pub(super) fn departures(&mut self) -> Departures<'_> {
        borrow_departures!(self)
    }

    pub(super) fn intake(&mut self) -> TableIntake<'_> {
        borrow_table_intake!(self)
    }

    pub(super) fn steps(&mut self) -> QuerySteps<'_> {
        borrow_query_steps!(self)
    }

    pub(super) fn starts(&mut self) -> QueryStarts<'_> {
        borrow_query_starts!(self)
    }

    pub(super) fn delivery(&mut self) -> Delivery<'_> {
        borrow_delivery!(self)
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

impl CatalogChanges<'_> {
    /// Lets current queries read the parts that they have in common, and drops parts without readers.
    pub(super) fn share_parts(&mut self) {
        let mut changed = self.queries.drop_unread_parts(self.outputs);
        let is_on = !self.setup.execution.options.separate_parts;
        // A start repeats what happened, one by one; history has each query's own epochs.
        let waits = self.durability.is_recovering() || self.waiters.replay.is_some();
        if !is_on || self.setup.settings.keeps_history() {
            self.queries.unmatched.clear();
        } else if !waits {
            changed |= self.queries.share_parts(Bases::new(self.tables, self.sources));
        }
        if changed {
            self.sources.mark_used(self.measures, self.queries, self.tables, self.outputs);
        }
    }
}
