//! The intake of all sources: their pulls, and the rows that an epoch takes of them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_connect::Limit;
use millstream_delta::{Cut, Delta, Epoch, Span, Timestamp};
use millstream_durable::Brought;
use millstream_sql::{Error, Result};

use super::Taken;
use crate::event::Reply;
use crate::run::backpressure::HeldBack;
use crate::run::clock::Clock;
use crate::run::deltas::{Deltas, in_sum};
use crate::run::durable::Durability;
use crate::run::query::RunningQuery;
use crate::run::receive::Command;
use crate::run::sources::Sources;
use crate::run::table::{Table, Waiting};
use crate::run::tables::BaseTables;
use crate::run::waiters::Waiters;
use crate::settings::{ClockKind, Pace, Settings};

impl Sources {
    /// Pulls rows of every source for the batch that a manual clock begins.
    pub(in crate::run) fn collect(&mut self, settings: &Settings, now: Timestamp) {
        let limit = self.budget.limit(settings);
        for source in self.values_mut().filter(|source| source.is_read() && !source.has_ended()) {
            let bound = source.waiting.bound(settings);
            let rows_max = bound.map(|bound| source.waiting.available(&bound, now));
            if let Some(room) = source.waiting.room(limit, rows_max) {
                source.pulls.ask(room);
            }
        }
    }

    /// Takes the rows of each source for an epoch with this cut.
    pub(in crate::run) fn take_for_epoch(
        &mut self,
        tables: &mut BaseTables,
        settings: &Settings,
        epoch: Epoch,
        held: &HeldBack,
        cut: &Cut,
    ) -> Vec<(Arc<str>, Taken)> {
        let mut left = self.budget.limit(settings).rows;
        let mut taken = Vec::new();
        let open = self.iter_mut().filter(|(name, _)| !held.contains_key(*name));
        let mut used: Vec<_> = open.filter(|(_, source)| source.is_read()).collect();
        // Another source comes first in each epoch, so that none takes all the room for ever.
        let count = used.len().max(1);
        used.rotate_left(epoch.0 as usize % count);
        for (name, source) in used {
            let bound = source.waiting.bound(settings);
            let table = tables.get_mut(name);
            let of_source = source.take(table, left, taken.is_empty(), bound, cut);
            left = left.saturating_sub(of_source.delta.num_rows());
            let journals = !of_source.journalled.is_empty();
            if journals || !of_source.spans.is_empty() || !of_source.delta.is_empty() {
                taken.push((name.clone(), of_source));
            }
        }
        taken
    }

    /// Acknowledges to reliable sources what is durable; without a journal, that is as soon as the epoch is done.
    pub(in crate::run) fn acknowledge(&self, durability: &mut Durability, taken: &[Arc<str>]) {
        let reliable =
            taken.iter().filter_map(|name| self.get(name)).filter(|source| source.properties.reliable);
        for source in reliable {
            let (commands, position) = (source.pulls.sender(), source.position.taken().clone());
            durability.when_durable(move |done| {
                if done.is_ok() {
                    let _ = commands.send(Command::Acknowledge(position));
                }
            });
        }
    }

    /// Asks a source's task to read a span again, for the replay of an epoch.
    pub(in crate::run) fn ask_replay(&self, settings: &Settings, name: &str, span: Span) {
        let limit = self.budget.limit(settings);
        if let Some(source) = self.get(name) {
            source.pulls.send(Command::Replay { span, limit });
        }
    }

    /// Keeps each source in use one pull ahead of the epochs, within the bounds of waiting rows.
    pub(in crate::run) fn pull(
        &mut self,
        waiters: &Waiters,
        durability: &Durability,
        settings: &Settings,
        clock: &Clock,
    ) {
        let is_off = clock.held || waiters.ending.is_asked || durability.failure().is_some();
        if is_off || settings.clock == ClockKind::Manual {
            return;
        }
        let limit = self.budget.limit(settings);
        // Under a fixed interval, the rows of the next batch wait already while one is running. That shows when a batch
        // is late.
        let batches = if matches!(settings.pace, Pace::Fixed(_)) { 2 } else { 1 };
        let ahead = Limit { rows: limit.rows * batches, bytes: limit.bytes * batches };
        for source in self.values_mut().filter(|source| source.is_read() && !source.has_ended()) {
            let bound = source.waiting.bound(settings);
            let room = source.waiting.room(ahead, bound.map(|bound| bound.batch_rows()));
            let room = room
                .map(|room| Limit { rows: room.rows.min(limit.rows), bytes: room.bytes.min(limit.bytes) });
            // After a failure, the next answer must not wait for rows: it shows that the failure has passed.
            source.pulls.keep_ahead(room, limit, !source.health.is_failing());
        }
    }

    /// Takes in the journalled arrivals that the sources can't deliver again.
    pub(in crate::run) fn take_brought(
        &mut self,
        tables: &mut BaseTables,
        cut: &Cut,
        brought: Vec<Brought>,
        deltas: &mut Deltas,
    ) -> Result<()> {
        for Brought { source: name, arrivals } in brought {
            let source = self.get_mut(&name);
            let source = source.ok_or_else(|| Error::invalid(format!("source \"{name}\" is gone")))?;
            for mut arrival in arrivals {
                let (delta, _) = source.take_in(tables.get_mut(&name), &mut arrival, cut.event_time_max)?;
                deltas.entry(name.clone()).or_default().append(delta);
            }
        }
        Ok(())
    }

    /// Inserts rows of a source's columns into it, if they fit; the next epoch takes them.
    pub(in crate::run) fn insert_rows(
        &mut self,
        name: &str,
        fits: Result<RecordBatch>,
        settings: &Settings,
        reply: Reply<u64>,
    ) {
        let put = fits.and_then(|rows| {
            let source = self.get_mut(name);
            let source = source.ok_or_else(|| crate::Error::bug("it is there as a source"))?;
            let count = rows.num_rows() as u64;
            if count > 0 {
                source.counts.insert(count);
                source.inserts.pending.push(rows);
            }
            Ok((&mut source.inserts, count))
        });
        match put {
            Ok((put, count)) if settings.clock == ClockKind::System => put.replies.push((reply, count)),
            Ok((_, count)) => reply.send(Ok(count)),
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Adds the rows that were inserted into sources to an epoch.
    pub(in crate::run) fn take_put(
        &mut self,
        tables: &mut BaseTables,
        deltas: &mut Deltas,
        changes: &mut Vec<(Arc<str>, Delta)>,
        replies: &mut Waiting,
    ) {
        for (name, source) in self.iter_mut().filter(|(_, source)| source.inserts.is_waiting()) {
            let (delta, waiting) = source.inserts.take();
            if !source.properties.replayable || tables.contains_key(name) {
                // Later queries over this source start with later rows or its table, so nobody reads these again.
                source.inserts.all.clear();
            }
            replies.extend(waiting);
            if !delta.is_empty() {
                changes.push((name.clone(), delta.clone()));
                let all = deltas.entry(name.clone()).or_default();
                match tables.get_mut(name).map(|table| table.follow_rows(&delta)) {
                    None => all.append(delta),
                    Some(Ok(delta)) => {
                        all.append(delta);
                        *all = in_sum(std::mem::take(all));
                    }
                    Some(Err(error)) => source.fail(error),
                }
            }
        }
    }

    /// Returns true if changes by statements wait for an epoch.
    pub(in crate::run) fn statements_wait(&self, queries: &[RunningQuery], tables: &BaseTables) -> bool {
        tables.values().any(Table::is_changed)
            || self.values().any(|source| source.inserts.is_waiting())
            || queries.iter().any(|query| query.correction.is_some())
    }
}
