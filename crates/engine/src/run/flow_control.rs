//! The decisions which queries may run apart from the loop, and which sources, reads and checkpoints wait for them.

use super::Loop;
use super::durable::Durability;
use super::outputs::Outputs;
use super::queries::Queries;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::waiters::Waiters;

/// Decides which queries may lag, which must be current, and which sources, reads and checkpoints wait for them. It
/// changes nothing: the loop acts on its answers.
///
/// Its methods lie in the modules of their topics.
#[derive(Clone, Copy)]
pub(super) struct FlowControl<'a> {
    pub(super) setup: &'a Setup,
    pub(super) queries: &'a Queries,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) outputs: &'a Outputs,
    pub(super) waiters: &'a Waiters,
    pub(super) durability: &'a Durability,
}

impl Loop {
    pub(super) fn flow_control(&self) -> FlowControl<'_> {
        FlowControl {
            setup: &self.setup,
            queries: &self.queries,
            tables: &self.tables,
            sources: &self.sources,
            outputs: &self.outputs,
            waiters: &self.waiters,
            durability: &self.durability,
        }
    }
}
