//! The state of the engine as readers see it.

use std::sync::Weak;

use super::Loop;
use super::budget::Budget;
use super::clock::Clock;
use super::compile::Scope;
use super::durable::Durability;
use super::execution::Execution;
use super::flow_control::FlowControl;
use super::measure::Measures;
use super::memory::Memory;
use super::outputs::Outputs;
use super::queries::Queries;
use super::sources::Sources;
use super::tables::BaseTables;
use super::watermarks::Watermarks;
use crate::catalog::Catalog;
use crate::engine::Shared;
use crate::settings::Settings;

/// Reads relations, the status of objects and the system tables as of the last epoch. It changes nothing.
///
/// Its methods lie in the modules of their topics.
#[derive(Clone, Copy)]
pub(super) struct ReadView<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) settings: &'a Settings,
    pub(super) clock: &'a Clock,
    pub(super) budget: &'a Budget,
    pub(super) measures: &'a Measures,
    pub(super) memory: &'a Memory,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a Queries,
    pub(super) outputs: &'a Outputs,
    pub(super) watermarks: &'a Watermarks,
    pub(super) durability: &'a Durability,
    pub(super) execution: &'a Execution,
    pub(super) shared: &'a Weak<Shared>,
    pub(super) flow_control: FlowControl<'a>,
}

impl<'a> ReadView<'a> {
    /// Returns the scope in which queries are compiled.
    pub(super) fn scope(&self) -> Scope<'a> {
        Scope::new(self.catalog, self.execution, self.queries, self.settings)
    }
}

impl Loop {
    pub(super) fn read_view(&self) -> ReadView<'_> {
        ReadView {
            catalog: &self.catalog,
            settings: &self.settings,
            clock: &self.clock,
            budget: &self.budget,
            measures: &self.measures,
            memory: &self.memory,
            tables: &self.tables,
            sources: &self.sources,
            queries: &self.queries,
            outputs: &self.outputs,
            watermarks: &self.watermarks,
            durability: &self.durability,
            execution: &self.execution,
            shared: &self.shared,
            flow_control: self.flow_control(),
        }
    }
}
