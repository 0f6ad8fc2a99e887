//! Replaying epochs of the journal, with the rows that they took.

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_connect::{Arrival, More};
use millstream_delta::{Delta, Span};
use millstream_durable::Brought;
use millstream_sql::{Error, Result};

use super::deltas::{Deltas, in_sum};
use super::{EpochReplay, Loop};
use crate::Record;
use crate::event::Reply;

/// An epoch of the journal whose rows are being read.
#[derive(Debug)]
pub(crate) struct Replaying {
    record: Record,
    brought: Vec<Brought>,
    reply: Reply<()>,
    spans: VecDeque<(Arc<str>, Span)>,
    deltas: Deltas,
}

/// An epoch of the journal whose rows have all been read.
struct Replayed {
    taken: Result<(Record, Deltas)>,
    reply: Reply<()>,
}

impl Loop {
    /// Continues the replay of an epoch, with rows that a source has read again. Decides and steps the epoch once it has
    /// all of its rows.
    pub(super) fn replay_on(&mut self, read: Option<(&str, Result<Arrival>)>) {
        if let Some((source, result)) = read {
            self.epoch_replay().replayed(source, result);
        }
        let Some(Replayed { taken, reply }) = self.epoch_replay().next_rows() else { return };
        let stepped = taken.and_then(|(record, deltas)| {
            self.steps().bring_before_replay(&record.changes);
            let deltas = self.epoch_replay().take_in(&record, deltas)?;
            self.decide_and_step(record.cut, record.changes, deltas);
            Ok(())
        });
        reply.send(stepped);
    }
}

impl EpochReplay<'_> {
    /// Reads the spans of a journalled cut from the sources.
    pub(super) fn begin_replay(&mut self, record: Record, brought: Vec<Brought>, reply: Reply<()>) {
        let mut spans: VecDeque<(Arc<str>, Span)> = VecDeque::new();
        for (name, of_source) in &record.cut.positions {
            if !brought.iter().any(|brought| brought.source == *name)
                && !self.queries.is_sink_into_table(name)
            {
                spans.extend(of_source.iter().map(|span| (name.clone(), span.clone())));
            }
        }
        self.waiters.replay = Some(Replaying { record, brought, reply, spans, deltas: Deltas::new() });
    }

    /// Asks the source of the next span. Returns the epoch once it has all rows.
    fn next_rows(&mut self) -> Option<Replayed> {
        let replaying = self.waiters.replay.as_ref()?;
        if let Some((name, span)) = replaying.spans.front().cloned() {
            self.sources.ask_replay(&self.setup.settings, &name, span);
            return None;
        }
        let Replaying { record, brought, reply, mut deltas, .. } = self.waiters.replay.take()?;
        let taken = self.sources.take_brought(self.tables, &record.cut, brought, &mut deltas);
        Some(Replayed { taken: taken.map(|()| (record, deltas)), reply })
    }

    /// Takes rows that a source has read again.
    pub(super) fn replayed(&mut self, name: &str, result: Result<Arrival>) {
        let Some(replaying) = &mut self.waiters.replay else { return };
        let taken = result.and_then(|mut arrival| {
            let through = arrival.spans.last().map(|read| read.to);
            let more = arrival.more == More::Now;
            let latest = replaying.record.cut.event_time_max;
            let source = self.sources.get_mut(name);
            let source = source.ok_or_else(|| Error::invalid(format!("source \"{name}\" is gone")))?;
            let (delta, _) = source.take_in(self.tables.get_mut(name), &mut arrival, latest)?;
            Ok((delta, through, more))
        });
        let (delta, through, more) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                if let Some(replaying) = self.waiters.replay.take() {
                    replaying.reply.send(Err(error));
                }
                return;
            }
        };
        if let Some((_, span)) = replaying.spans.front_mut() {
            let through = through.unwrap_or(span.to);
            if more && through < span.to {
                span.from = through;
            } else {
                replaying.spans.pop_front();
            }
        }
        replaying.deltas.entry(name.into()).or_default().append(delta);
    }

    fn take_in(&mut self, record: &Record, mut deltas: Deltas) -> Result<Deltas> {
        for (name, delta) in &record.changes {
            let mut delta = delta.clone();
            if let Some(source) = self.sources.get_mut(name) {
                source.counts.insert(delta.num_rows() as u64);
                if source.is_replayable() && !self.tables.contains_key(name) {
                    source.inserts.replay(delta.chunks.iter().map(|chunk| chunk.rows.clone()).collect());
                }
                if let Some(table) = self.tables.get_mut(name) {
                    delta = table.follow_rows(&delta)?;
                }
            } else if let Some(table) = self.tables.get_mut(name) {
                // The epoch may be older than an ADD COLUMN.
                delta = table.whole_delta(&delta)?;
                // The journalled changes include those that a new sink has staged, which the table has applied already.
                let (staged, _) = table.take();
                let rest = match staged.is_empty() {
                    true => delta.clone(),
                    false => in_sum(Delta {
                        chunks: [delta.clone(), staged.negated()].map(|delta| delta.chunks).concat(),
                    }),
                };
                table.replay(&rest)?;
                table.take();
            } else {
                // This is a correction of a view.
                continue;
            }
            deltas.entry(name.clone()).or_default().append(delta);
        }
        for (name, spans) in &record.cut.positions {
            if let Some(source) = self.sources.get_mut(name) {
                source.position.take(spans);
            }
        }
        self.clock.epoch = record.cut.epoch;
        self.clock.stamp(record.cut.now);
        self.queries.forget_brought(&record.cut);
        Ok(deltas)
    }
}
