//! Replaying the journal at a start, before the engine takes in anything new.

use millstream_delta::Epoch;
use millstream_durable::{Delivered, Entry, Recorded};
use millstream_sql::{Error, Result};

use super::Loop;
use super::durable::{Durability, end_loading, journal_state};
use super::query::{RunningQuery, Status};
use super::waiters::{Awaits, Changing};
use crate::Record;
use crate::event::{Recovery, Reply};
use crate::run::catch_up::take_waiting_pieces;
use crate::run::outputs::Outputs;
use crate::run::{CatalogChanges, QueryStarts};
use crate::settings::ClockKind;

impl Loop {
    /// Performs one step of the recovery, and replies when it is done.
    pub(super) fn recover(&mut self, step: Recovery, reply: Reply<()>) {
        if !self.durability.is_recovering() {
            return reply.send(Err(Error::bug("a running engine is to be recovered")));
        }
        match step {
            Recovery::Notes { notes, checkpoint } => {
                end_loading(&mut self.durability);
                self.durability.crash_notes.begin(*notes);
                self.steps().bring_loaded(checkpoint);
            }
            Recovery::Entry { entry, last } => self.durability.crash_notes.begin_entry(entry, last),
            Recovery::Opened(at) => self.clock.begin_at(at),
            Recovery::Standing(standing) => {
                self.durability.begins_at_once = !standing.begins_apart;
                self.clock.stand(&standing);
            }
            Recovery::Epoch(recorded) => {
                let Recorded { cut, changes, brought, done, delivered } = *recorded;
                self.clock.fixed_time = Some(cut.now);
                self.durability.were_done(done);
                self.outputs.were_delivered(&delivered);
                self.epoch_replay().begin_replay(Record { cut, changes }, brought, reply);
                return self.replay_on(None);
            }
            Recovery::Arrived(query) => {
                self.waiters.arriving = Some((query, reply));
                return self.starts().arrive_again();
            }
            Recovery::Skipped(to) => self.queries.skip_batches(self.clock.epoch, to),
            Recovery::Done(names) => self.durability.were_done(names),
            Recovery::Advanced(name, through) => {
                self.outputs.pass_subscription(&name, through);
            }
            Recovery::Sequence(value) => self.tables.sequences.restore(&value),
            Recovery::Delivered(delivered) => self.outputs.were_delivered(&delivered),
            Recovery::Load(checkpoint) => return reply.send(self.restoration().load(*checkpoint)),
            Recovery::Live(live) => {
                self.restoration().go_live(*live);
                // Some queries had finished their backfill before the crash, but the journal doesn't record it.
                self.starts().arrive_all();
                self.steps().intake().stage_all_again();
            }
        }
        reply.send(Ok(()));
    }
}

impl CatalogChanges<'_> {
    pub(super) fn pause_durably(
        &mut self,
        name: Option<String>,
        pause: bool,
        replayed: Option<bool>,
        reply: Reply<Vec<String>>,
    ) {
        // Under a manual clock no epoch comes by itself, and readers see the rows at once.
        let stages = replayed.unwrap_or(self.setup.settings.clock == ClockKind::System);
        let standing = self.clock.standing(&self.setup.settings);
        if self.durability.is_on() {
            self.clock.fixed_time = Some(standing.now);
        }
        let starting = |query: &&RunningQuery| query.status.is_starting();
        let before: Vec<_> = self.queries.iter().filter(starting).map(|query| query.name.clone()).collect();
        self.queries.stage_sinks = stages;
        let paused = self.durability.check_journal().and_then(|()| self.pause(name.as_deref(), pause));
        self.queries.stage_sinks = false;
        self.clock.end_change(self.durability.is_recovering());
        let names = self.queries.iter().filter(starting).map(|query| query.name.clone());
        let names: Vec<_> = names.filter(|name| !pause && !before.contains(name)).collect();
        match paused {
            Ok(notices) if !names.is_empty() && !self.durability.is_recovering() => {
                journal_state(
                    self.durability,
                    self.clock.epoch,
                    Entry::Paused { name, pause, stages, standing },
                );
                let (entry, reply) = (self.durability.last(), Awaits::Resume(reply));
                self.waiters.changes.push(Changing { names, notices, entry, reply, undo: None });
            }
            paused => answer_durably(
                self.durability,
                self.clock.epoch,
                paused,
                || Entry::Paused { name, pause, stages, standing },
                reply,
            ),
        }
    }
}

impl QueryStarts<'_> {
    /// Makes a query current once it has read all of its past.
    pub(super) fn arrive_again(&mut self) {
        let Some((name, _)) = &self.waiters.arriving else { return };
        let place = self.queries.iter().position(|query| query.name.as_ref() == name);
        place
            .into_iter()
            .for_each(|place| take_waiting_pieces(self.queries, self.outputs, self.durability, place));
        if let Some(place) = place
            && !self.queries.has_read_the_past(place)
            // A query that can't read its past now keeps the reason; the others continue.
            && matches!(self.queries[place].status, Status::Waiting(_) | Status::CatchingUp(_))
        {
            return;
        }
        if let Some(place) = place.filter(|place| self.queries.has_read_the_past(*place)) {
            self.arrive(place);
            self.start_queries();
        }
        if let Some((_, reply)) = self.waiters.arriving.take() {
            reply.send(Ok(()));
        }
    }

    /// Makes a query current, starts the queries that wait for it, and journals that.
    pub(super) fn arrive_durably(&mut self, place: usize) {
        if !self.durability.is_on() || self.queries[place].role.is_temporary() {
            return self.arrive(place);
        }
        let standing = self.clock.standing(&self.setup.settings);
        let query = self.queries[place].name.to_string();
        self.clock.fixed_time = Some(standing.now);
        self.arrive(place);
        self.start_queries();
        self.clock.fixed_time = None;
        self.durability.append(Entry::Arrived { query, standing }, self.clock.epoch);
    }

    /// The same for all queries that have read all of their past, except successors.
    pub(super) fn arrive_all(&mut self) {
        for place in 0..self.queries.len() {
            if self.queries.has_read_the_past(place) && !self.queries[place].role.is_successor() {
                self.arrive_durably(place);
            }
        }
    }
}

impl Outputs {
    fn were_delivered(&mut self, delivered: &[Delivered]) {
        for of in delivered {
            if let Some(sink) = self.sinks.get_mut(&of.sink) {
                sink.compare(&self.logs, &of.digests);
                sink.was_delivered(of.through);
            }
        }
    }
}

/// Journals a statement, and answers once that is durable.
pub(super) fn answer_durably<T: Send + 'static>(
    durability: &mut Durability,
    epoch: Epoch,
    result: Result<T>,
    entry: impl FnOnce() -> Entry,
    reply: Reply<T>,
) {
    if result.is_ok() {
        journal_state(durability, epoch, entry());
    }
    durability.when_durable(move |done| reply.send(done.and(result)));
}
