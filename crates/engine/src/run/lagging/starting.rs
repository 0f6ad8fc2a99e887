//! Lagging queries at a start. A query that took long before it would take as long again, and nobody is served meanwhile,
//! so it lags: the replayed changes wait for it, and threads step it once the engine is live.
//!
//! While the journal is replayed, no thread steps a query. A replayed statement needs the same queries to be current as
//! it did when it ran, and the loop steps them then. They were current once, so that ends.
//!
//! Deliberately absent, so a start makes these current before the engine is live:
//!
//! - queries whose changes others take: sinks, durable subscriptions, and paused or starting queries. These continue
//!   from epochs that the query must pass one by one,
//! - all queries after a crash that the process caused itself: steps on the loop are noted, so that the crash notes find
//!   the query that kills processes,
//! - queries for which much waits, since nothing holds the replay back.

use std::sync::Arc;

use millstream_delta::{Cut, Delta};

use super::Lag;
use crate::catalog::late_rows_of;
use crate::run::QuerySteps;
use crate::run::flow_control::FlowControl;
use crate::run::lagging::in_order::has_log;
use crate::run::outputs::Outputs;
use crate::run::queries::made_of;
use crate::run::query::RunningQuery;
use crate::settings::ClockKind;

/// Most bytes that may wait for a query before a start steps it.
const WAITING_BYTES_MAX: usize = 256 << 20;

impl Lag {
    /// Returns a new query for which the content of its inputs waits.
    pub(in crate::run) fn beginning(cut: &Cut, contents: &[Delta]) -> Lag {
        let mut lag = Lag::new(cut.epoch.previous());
        lag.wait(cut, &contents.iter().collect::<Vec<_>>());
        lag
    }

    /// True if so much waits for it that a start must step it.
    pub(super) fn is_full_at_start(&self) -> bool {
        self.bytes() > WAITING_BYTES_MAX
    }
}

impl QuerySteps<'_> {
    /// Makes queries current before a replayed epoch: those that may not lag any more, and those whose results it
    /// changes itself, since late rows were put into their windows.
    pub(in crate::run) fn bring_before_replay(&mut self, changes: &[(Arc<str>, Delta)]) {
        if !self.durability.is_recovering() || !self.queries.some_lag() {
            return;
        }
        let corrected = changes.iter().filter_map(|(name, _)| late_rows_of(name)).map(Arc::from);
        // A history began when its query was current.
        let is_current = |query: &&RunningQuery| {
            self.setup.settings.keeps_history() || !self.setup.settings.may_leave(query)
        };
        let stay = self.queries.iter().filter(is_current);
        let stay: Vec<Arc<str>> = stay.map(|query| query.name.clone()).collect();
        let wanted = made_of(self.queries, corrected.chain(stay));
        for place in 0..self.queries.len() {
            if wanted.contains(&self.queries[place].name) {
                self.step_to_present(place);
            }
        }
    }
}

impl FlowControl<'_> {
    /// True if these queries, one with all that read it, may lag while a start replays the journal.
    pub(in crate::run) fn may_lag_at_start(&self, leaving: &[usize]) -> bool {
        let comes_later =
            self.setup.settings.clock == ClockKind::System || self.setup.execution.options.apart.is_some();
        let may = comes_later
            && !self.setup.settings.keeps_history()
            && !self.durability.crash_notes.suspect_queries();
        may && !leaving.iter().any(|place| is_taken_by_others(self.queries, self.outputs, *place))
    }
}

/// True if others take the changes of a query, or if it replaces another one.
fn is_taken_by_others(queries: &[RunningQuery], outputs: &Outputs, place: usize) -> bool {
    let query = &queries[place];
    let name = &query.name;
    query.into.is_some()
        || query.role.is_successor()
        || has_log(queries, outputs, place)
        || outputs.have_reader_of(name)
}
