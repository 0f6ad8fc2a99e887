//! Statements that change many rows: the loop applies them a piece at a time and does what others ask for in between.
//!
//! Who reads such a table meanwhile sees it as it was; who wants to change it, or the object that it is, or rows of
//! another table by what it holds, waits (`reserve.rs`). Once all pieces are applied a thread sums them up, and the next
//! epoch takes them in as one change. An error, or someone who gives the statement up, takes back what is applied, piece
//! by piece as well.
//!
//! Deliberately absent: commits of transactions, which change all their tables or none, and what sinks bring into
//! tables. They are applied at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use millstream_delta::Delta;
use millstream_sql::{Error, Result, sqlstate};
use millstream_state::Size;

use super::Loop;
use super::behind::Wake;
use super::modify::named;
use super::sink::in_sum;
use super::table::Change;
use crate::catalog::Definition;
use crate::evaluate::asked_by;
use crate::event::{self, Apart, Event, Modification, Reply};
use crate::query_pool;

/// Statements that change more rows are applied in pieces.
const ROWS_MAX: Size = Size::of(32 * 1024);

/// Pieces have as much time as all else had since the last, within these bounds.
const TIME_MIN: Duration = Duration::from_millis(2);
const TIME_MAX: Duration = Duration::from_millis(8);

/// A statement whose changes are being applied.
pub(super) struct Applying {
    table: Arc<str>,
    once: Option<String>,
    reply: Reply<u64>,
    stage: Stage,
}

enum Stage {
    /// Some pieces are left.
    Pieces,
    /// A thread sums up what all pieces have changed.
    Summing { sum: Receiver<Delta>, delta: Delta, count: u64 },
    /// It is over: what is changed, and how many rows the statement is about.
    Ended(Result<(Delta, u64)>),
}

impl Applying {
    fn has_pieces(&self) -> bool {
        matches!(self.stage, Stage::Pieces)
    }
}

/// The statements that are being applied, each to a table of its own.
#[derive(Default)]
pub(super) struct Applied {
    all: Vec<Applying>,
    /// When the last piece was applied.
    ended: Option<Instant>,
}

impl Applied {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// True if a table's rows are being changed.
    fn has(&self, table: &str) -> bool {
        self.all.iter().any(|applying| applying.table.as_ref() == table)
    }

    /// True if an event must wait until a statement is applied: it would change that table, or it changes rows by what
    /// it has read there, and the two must be one after the other.
    pub(super) fn keeps_waiting(&self, event: &Event) -> bool {
        if self.all.is_empty() {
            return false;
        }
        match event {
            Event::Change { changes, .. } => changes.iter().any(|change| self.stops(change)),
            Event::LookUp { table, .. } => self.has(table),
            Event::Modify { modification, .. } => {
                self.has(modification.table()) || self.has_read(modification)
            }
            Event::Commit { writes, .. } => writes.iter().any(|write| self.has(write.table())),
            Event::Apart(Apart::ReadStaged { relations, .. }) => {
                relations.iter().any(|asked| self.has(&asked.name))
            }
            _ => false,
        }
    }

    fn has_read(&self, modification: &Modification) -> bool {
        match modification {
            Modification::Evaluated(evaluated) => evaluated.read.iter().any(|read| self.has(&read.name)),
            Modification::Statement(dml) => {
                asked_by(dml).unwrap_or_default().iter().any(|asked| self.has(&asked.name))
            }
            Modification::Insert { .. } | Modification::Delete { .. } => false,
        }
    }

    fn stops(&self, change: &event::Change) -> bool {
        match change {
            event::Change::Create { object, .. } => {
                matches!(&object.definition, Definition::SinkInto { table, .. } if self.has(table))
            }
            event::Change::Alter { object } | event::Change::Widen { object, .. } => self.has(&object.name),
            event::Change::Rename { from, .. } => self.has(from),
            event::Change::Drop { names } => names.iter().any(|name| self.has(name)),
        }
    }
}

impl Loop {
    /// True if a statement must wait for a checkpoint: one is due, is taken when no statement is being applied, and this
    /// one may be applied in pieces. Statements that overlap would put it off for ever.
    pub(super) fn waits_for_checkpoint(&self, event: &Event) -> bool {
        let Event::Modify { modification, reply, .. } = event else { return false };
        !reply.is_closed()
            && modification.num_rows_max().is_some_and(|rows| rows > ROWS_MAX.get())
            && self.checkpoint_waits_for_statements()
    }

    /// True if a change is so large that it is applied in pieces.
    pub(super) fn is_large(&self, table: &str, change: &Change) -> bool {
        change.num_rows() > ROWS_MAX.get() && self.sink_into(table).is_none()
    }

    /// Begins to apply a change in pieces.
    pub(super) fn begin_pieces(
        &mut self,
        table: Arc<str>,
        change: Change,
        once: Option<String>,
        reply: Reply<u64>,
    ) {
        match self.table(&table).and_then(|of| of.begin(change)) {
            Ok(()) => self.applied.all.push(Applying { table, once, reply, stage: Stage::Pieces }),
            Err(error) => reply.send(Err(named(&table, error))),
        }
    }

    /// When the next piece is due, where there is one.
    pub(super) fn next_piece(&self) -> Option<Instant> {
        self.applied.all.iter().any(Applying::has_pieces).then(Instant::now)
    }

    /// Applies pieces for a while, in turns where there are several statements.
    pub(super) fn apply_pieces(&mut self) {
        if self.applied.is_empty() {
            return;
        }
        let begun = Instant::now();
        // What no epoch can take in any more is taken back.
        let refused = self.check_journal().err();
        let others = self.applied.ended.map_or(TIME_MIN, |ended| begun - ended);
        let time = others.clamp(TIME_MIN, TIME_MAX);
        loop {
            for mut applying in std::mem::take(&mut self.applied.all) {
                let given_up = applying.reply.is_closed().then(given_up);
                let ends = refused.clone().or(given_up);
                applying.stage = self.go_on(&applying.table, applying.stage, ends);
                match applying.stage {
                    Stage::Ended(done) => {
                        self.end_pieces(applying.table, applying.once, applying.reply, done)
                    }
                    _ => self.applied.all.push(applying),
                }
            }
            if self.next_piece().is_none() || begun.elapsed() >= time {
                break;
            }
        }
        self.applied.ended = Some(Instant::now());
    }

    /// Applies a piece, or looks whether the sum is there.
    fn go_on(&mut self, name: &str, stage: Stage, ends: Option<Error>) -> Stage {
        let table = match self.table(name) {
            Ok(table) => table,
            Err(error) => return Stage::Ended(Err(error)),
        };
        if let Some(error) = ends {
            table.give_up(error);
        } else if let Stage::Summing { sum, delta, count } = stage {
            return match sum.try_recv() {
                Ok(delta) => Stage::Ended(Ok((delta, count))),
                Err(TryRecvError::Empty) => Stage::Summing { sum, delta, count },
                // Then it isn't in sum, which changes nothing of what it means.
                Err(TryRecvError::Disconnected) => Stage::Ended(Ok((delta, count))),
            };
        }
        if !table.apply_next() {
            return Stage::Pieces;
        }
        match table.applied() {
            Ok((delta, count)) if !delta.is_append_only() => self.sum_up(delta, count),
            done => Stage::Ended(done),
        }
    }

    fn sum_up(&self, delta: Delta, count: u64) -> Stage {
        let (sender, sum) = channel();
        let (wake, alive) = (Wake(self.events.clone()), self.threads.alive());
        let of = delta.clone();
        let thread = std::thread::Builder::new().name("millstream-sum".into());
        let started = thread.spawn(move || {
            // They go in this order: the loop is woken when it finds what it is woken for.
            let (_alive, _wake, sender) = (alive, wake, sender);
            query_pool::lower_this_thread();
            let _ = sender.send(in_sum(of));
        });
        match started {
            Ok(_) => Stage::Summing { sum, delta, count },
            Err(_) => Stage::Ended(Ok((delta, count))),
        }
    }

    fn end_pieces(
        &mut self,
        name: Arc<str>,
        once: Option<String>,
        reply: Reply<u64>,
        done: Result<(Delta, u64)>,
    ) {
        self.reserved.look_again();
        let done = done.map_err(|error| named(&name, error));
        let done = done.and_then(|(delta, count)| {
            self.table(&name)?.publish(delta);
            Ok(count)
        });
        if done.is_ok() {
            self.measures.rows_wait_since(Instant::now());
        }
        self.answer_change(&name, once, reply, done);
    }
}

fn given_up() -> Error {
    Error::external("the statement was given up").code(sqlstate::QUERY_CANCELED)
}
