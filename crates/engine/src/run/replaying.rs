//! Replaying epochs of the journal, with the rows that they took.

use std::collections::VecDeque;
use std::sync::Arc;

use millstream_connect::{Arrival, More};
use millstream_delta::{Delta, Span};
use millstream_durable::Brought;
use millstream_sql::{Error, Result};

use super::Loop;
use super::deltas::{Deltas, in_sum};
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

impl Loop {
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
        self.replay_next();
    }

    fn replay_next(&mut self) {
        let Some(replaying) = &self.waiters.replay else { return };
        match replaying.spans.front().cloned() {
            Some((name, span)) => self.sources.ask_replay(self.budget.limit(&self.settings), &name, span),
            None => {
                if let Some(replaying) = self.waiters.replay.take() {
                    let Replaying { record, brought, reply, mut deltas, .. } = replaying;
                    let taken =
                        self.sources.take_brought(&mut self.tables, &record.cut, brought, &mut deltas);
                    reply.send(taken.and_then(|()| self.finish_replay(record, deltas)));
                }
            }
        }
    }

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
        self.replay_next();
    }

    fn finish_replay(&mut self, record: Record, mut deltas: Deltas) -> Result<()> {
        self.bring_before_replay(&record.changes);
        for (name, delta) in &record.changes {
            let mut delta = delta.clone();
            if let Some(source) = self.sources.get_mut(name) {
                source.rows += delta.num_rows() as u64;
                if source.replayable && !self.tables.contains_key(name) {
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
                spans.iter().for_each(|span| source.position.advance(span));
            }
        }
        self.clock.epoch = record.cut.epoch;
        self.clock.stamp(record.cut.now);
        self.queries.forget_brought(&record.cut);
        self.decide_and_step(record.cut, record.changes, deltas);
        Ok(())
    }
}
