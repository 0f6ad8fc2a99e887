//! When the next epoch starts.

use super::Loop;
use super::clock::Clock;
use super::durable::Durability;
use super::flow_control::FlowControl;
use super::queries::Queries;
use super::sources::Sources;
use super::tables::BaseTables;
use super::waiters::Waiters;
use super::watermarks::Watermarks;
use crate::settings::Settings;

/// Decides when the next epoch starts, and when the loop must act without an event.
///
/// Its methods lie in the modules of their topics.
#[derive(Clone, Copy)]
pub(super) struct Schedule<'a> {
    pub(super) clock: &'a Clock,
    pub(super) queries: &'a Queries,
    pub(super) settings: &'a Settings,
    pub(super) sources: &'a Sources,
    pub(super) tables: &'a BaseTables,
    pub(super) waiters: &'a Waiters,
    pub(super) watermarks: &'a Watermarks,
    pub(super) durability: &'a Durability,
    pub(super) flow_control: FlowControl<'a>,
}

impl Loop {
    pub(super) fn schedule(&self) -> Schedule<'_> {
        Schedule {
            clock: &self.clock,
            queries: &self.queries,
            settings: &self.setup.settings,
            sources: &self.sources,
            tables: &self.tables,
            waiters: &self.waiters,
            watermarks: &self.watermarks,
            durability: &self.durability,
            flow_control: self.flow_control(),
        }
    }
}
