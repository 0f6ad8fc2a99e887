//! Who waits for what: FLUSH, the end of a bounded run, the end of the engine.

use std::sync::Arc;

use millstream_sql::{Error, Kind};

use super::Loop;
use super::catch_up::Replaying;
use super::query::RunningQuery;
use super::source::RunningSource;
use super::table::Table;
use crate::event::{Advance, Reply};
use crate::settings::ClockKind;

/// A sink that has failed as often as this no longer holds back the end of a bounded run.
const ATTEMPTS_MAX: u32 = 8;

/// Replies that wait for a state of the whole engine.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    flush: Vec<Reply<()>>,
    pub(crate) finished: Vec<Reply<()>>,
    pub(crate) stop: Vec<Reply<()>>,
    pub(crate) stopping: bool,
    /// CREATE and DROP statements whose queries are still starting.
    pub(crate) changes: Vec<Changing>,
    /// A recorded epoch that is being run again.
    pub(crate) replay: Option<Replaying>,
}

/// A change of the catalog that is done but for its queries.
#[derive(Debug)]
pub(crate) struct Changing {
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) notices: Vec<String>,
    pub(crate) reply: Reply<Option<Vec<String>>>,
}

impl Loop {
    /// Asks every source what it has, and answers when all of it is taken in.
    pub(super) fn flush(&mut self, reply: Reply<()>) {
        if self.settings.clock == ClockKind::Manual {
            let waiting = self.tables.values().any(Table::is_changed)
                || self.sources.values().any(|source| source.used && !source.has_ended());
            return if waiting { self.advance(Advance::Batches(1), reply) } else { reply.send(Ok(())) };
        }
        for source in self.sources.values_mut().filter(|source| source.used) {
            source.ask_at_once();
        }
        self.waiters.flush.push(reply);
    }

    /// Answers those who wait for what is now the case.
    pub(super) fn answer_waiters(&mut self) {
        self.answer_changes();
        if !self.waiters.flush.is_empty() && self.is_flushed() {
            self.waiters.flush.drain(..).for_each(|reply| reply.send(Ok(())));
        }
        if !self.waiters.finished.is_empty() {
            self.answer_finished();
        }
        if self.waiters.stopping && !self.tables_are_changed() && self.sinks_are_done(1) {
            self.ended = true;
            self.waiters.stop.drain(..).for_each(|reply| reply.send(Ok(())));
        }
    }

    /// A CREATE is done when its queries have taken in what was there before them.
    fn answer_changes(&mut self) {
        for changing in std::mem::take(&mut self.waiters.changes) {
            let starting = |name: &Arc<str>| self.query(name).is_some_and(|query| query.is_starting());
            if changing.names.iter().any(starting) {
                self.waiters.changes.push(changing);
            } else {
                changing.reply.send(Ok(Some(changing.notices)));
            }
        }
    }

    fn tables_are_changed(&self) -> bool {
        self.settings.clock == ClockKind::System && self.tables.values().any(Table::is_changed)
    }

    /// Whether all that was there when it was last asked for has gone through every query and sink.
    fn is_flushed(&self) -> bool {
        !self.held
            && self.sources.values().filter(|source| source.used).all(RunningSource::is_idle)
            && !self.tables_are_changed()
            && self.queries.iter().all(|query| !query.is_starting())
            && self.sinks_are_done(1)
    }

    fn answer_finished(&mut self) {
        let ended = self
            .sources
            .values()
            .filter(|source| source.used)
            .all(|source| source.has_ended() && !source.has_rows());
        let taken_in =
            ended && !self.tables_are_changed() && self.queries.iter().all(|query| !query.is_starting());
        if self.held || !taken_in || !self.sinks_are_done(ATTEMPTS_MAX) {
            return;
        }
        let problems = self.problems();
        let kind =
            if self.queries.iter().any(RunningQuery::is_suspended) { Kind::Invalid } else { Kind::External };
        for reply in self.waiters.finished.drain(..) {
            reply.send(if problems.is_empty() { Ok(()) } else { Err(Error::new(kind, problems.join("\n"))) });
        }
    }
}
