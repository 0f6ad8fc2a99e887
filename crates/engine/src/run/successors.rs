//! The part of the loop that makes queries ready to replace others.

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
use super::watermarks::Watermarks;

/// Makes queries ready to replace others: hands state over to them, brings them to the present, and compares their
/// answers with the old ones.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Successors<'a> {
    pub(super) setup: &'a Setup,
    pub(super) tasks: &'a Tasks,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a mut QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) watermarks: &'a Watermarks,
    pub(super) waiters: &'a Waiters,
    pub(super) durability: &'a mut Durability,
}

impl Successors<'_> {
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
