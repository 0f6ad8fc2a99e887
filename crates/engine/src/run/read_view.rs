//! The state of the engine as readers see it.

use super::Loop;
use super::clock::Clock;
use super::compile::Scope;
use super::contents::{Bases, Contents};
use super::durable::Durability;
use super::flow_control::FlowControl;
use super::measure::Measures;
use super::memory::Memory;
use super::outputs::Outputs;
use super::queries::Queries;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::watermarks::Watermarks;

/// Reads relations, the status of objects and the system tables as of the last epoch. It changes nothing.
///
/// Its methods lie in the modules of their topics.
#[derive(Clone, Copy)]
pub(super) struct ReadView<'a> {
    pub(super) setup: &'a Setup,
    pub(super) clock: &'a Clock,
    pub(super) measures: &'a Measures,
    pub(super) memory: &'a Memory,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a Queries,
    pub(super) outputs: &'a Outputs,
    pub(super) watermarks: &'a Watermarks,
    pub(super) durability: &'a Durability,
    pub(super) flow_control: FlowControl<'a>,
}

impl<'a> ReadView<'a> {
    pub(super) fn contents(&self) -> Contents<'a> {
        Bases::new(self.tables, self.sources).contents(self.queries)
    }

    /// Returns the scope in which queries are compiled.
    pub(super) fn scope(&self) -> Scope<'a> {
        Scope::new(self.setup, self.queries)
    }
}

impl Loop {
    pub(super) fn read_view(&self) -> ReadView<'_> {
        ReadView {
            setup: &self.setup,
            clock: &self.clock,
            measures: &self.measures,
            memory: &self.memory,
            tables: &self.tables,
            sources: &self.sources,
            queries: &self.queries,
            outputs: &self.outputs,
            watermarks: &self.watermarks,
            durability: &self.durability,
            flow_control: self.flow_control(),
        }
    }
}
