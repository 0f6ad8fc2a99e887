//! The part of the loop that replies to waiting statements.

use super::Loop;
use super::clock::Clock;
use super::durable::Durability;
use super::flow_control::FlowControl;
use super::outputs::Outputs;
use super::queries::QueryGraph;
use super::setup::Setup;
use super::sources::Sources;
use super::tables::BaseTables;
use super::waiters::Waiters;

/// Replies to statements that wait for changes, epochs, sinks or the end.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Answers<'a> {
    pub(super) setup: &'a Setup,
    pub(super) clock: &'a mut Clock,
    pub(super) tables: &'a BaseTables,
    pub(super) sources: &'a mut Sources,
    pub(super) queries: &'a QueryGraph,
    pub(super) outputs: &'a mut Outputs,
    pub(super) waiters: &'a mut Waiters,
    pub(super) durability: &'a mut Durability,
}

impl Loop {
    pub(super) fn answers(&mut self) -> Answers<'_> {
        Answers {
            setup: &self.setup,
            clock: &mut self.clock,
            tables: &self.tables,
            sources: &mut self.sources,
            queries: &self.queries,
            outputs: &mut self.outputs,
            waiters: &mut self.waiters,
            durability: &mut self.durability,
        }
    }
}

impl Answers<'_> {
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
