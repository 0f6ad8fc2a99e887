//! The part of the loop that makes queries lag.

use super::clock::Clock;
use super::durable::Durability;
use super::flow_control::FlowControl;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::tasks::Tasks;
use super::waiters::Waiters;

/// Makes queries leave the loop: slow ones, ones with much to do, and ones whose operators a thread reads. It changes
/// nothing but queries.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Departures<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a Outputs,
    pub(super) waiters: &'a Waiters,
    pub(super) durability: &'a Durability,
}

impl Departures<'_> {
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
}
