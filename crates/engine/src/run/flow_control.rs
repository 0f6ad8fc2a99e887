//! The decisions which queries may run apart from the loop, and which sources, reads and checkpoints wait for them.

use super::Loop;
use super::durable::Durability;
use super::execution::Execution;
use super::outputs::Outputs;
use super::queries::Queries;
use super::sources::Sources;
use super::tables::BaseTables;
use super::waiters::Waiters;
use crate::catalog::Catalog;
use crate::settings::Settings;

/// Decides which queries may lag, which must be current, and which sources, reads and checkpoints wait for them. It
/// changes nothing: the loop acts on its answers.
///
/// Its methods lie in the modules of their topics.
#[derive(Clone, Copy)]
pub(super) struct FlowControl<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) queries: &'a Queries,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) outputs: &'a Outputs,
    pub(super) waiters: &'a Waiters,
    pub(super) settings: &'a Settings,
    pub(super) execution: &'a Execution,
    pub(super) durability: &'a Durability,
}

impl Loop {
    pub(super) fn flow_control(&self) -> FlowControl<'_> {
        FlowControl {
            catalog: &self.catalog,
            queries: &self.queries,
            tables: &self.tables,
            sources: &self.sources,
            outputs: &self.outputs,
            waiters: &self.waiters,
            settings: &self.settings,
            execution: &self.execution,
            durability: &self.durability,
        }
    }
}
