//! The part of the loop that lets events and reads wait.

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

/// Decides which events and reads must wait: for lagging queries, reserved tables, a checkpoint or room.
///
/// Its methods lie in the modules of their topics.
pub(super) struct Admission<'a> {
    pub(super) setup: &'a Setup,
    pub(super) clock: &'a Clock,
    pub(super) tables: &'a mut BaseTables,
    pub(super) sources: &'a Sources,
    pub(super) queries: &'a QueryGraph,
    pub(super) outputs: &'a Outputs,
    pub(super) waiters: &'a mut Waiters,
    pub(super) durability: &'a Durability,
}

impl Loop {
    pub(super) fn admission(&mut self) -> Admission<'_> {
        Admission {
            setup: &self.setup,
            clock: &self.clock,
            tables: &mut self.tables,
            sources: &self.sources,
            queries: &self.queries,
            outputs: &self.outputs,
            waiters: &mut self.waiters,
            durability: &self.durability,
        }
    }
}

impl Admission<'_> {
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
