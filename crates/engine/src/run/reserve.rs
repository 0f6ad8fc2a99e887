//! Tables that one statement reserves while it is evaluated outside the loop.
//!
//! A statement that reads tables is evaluated over a snapshot, and is applied only if the tables haven't changed. The
//! first one wins, and the others are evaluated again. A statement that has lost several times reserves its tables.
//! Statements and transactions that change one of these then wait; readers and all others don't.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::Loop;
use crate::event::{Apart, Event, Modification, Reply};

/// A reservation: no other statement changes its tables. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) number: u64,
    events: Sender<Event>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Apart(Apart::Unreserve { number: self.number }));
    }
}

/// The present reservations, and the events that wait for them.
#[derive(Default)]
pub(super) struct Reserved {
    last: u64,
    held: Vec<(u64, Vec<Arc<str>>)>,
    /// The waiting events, in order of arrival.
    waiting: VecDeque<Event>,
    /// True if some waiting events may have to wait no longer.
    look: bool,
    /// True if some events wait for a checkpoint.
    for_checkpoint: bool,
}

impl Reserved {
    /// True if another reservation than `number` has the table.
    fn is_taken(&self, table: &str, number: Option<u64>) -> bool {
        let others = self.held.iter().filter(|(holder, _)| Some(*holder) != number);
        others.flat_map(|(_, tables)| tables).any(|taken| taken.as_ref() == table)
    }

    /// Retries the waiting events once the present epoch is over.
    pub(super) fn look_again(&mut self) {
        self.look = !self.waiting.is_empty();
    }

    /// Returns the time of the next retry of the waiting events, if that may help.
    pub(super) fn looks(&self) -> Option<Instant> {
        self.look.then(Instant::now)
    }

    /// True if an earlier transaction waits for a table that the event would change. The transaction needs all its
    /// tables at one moment, and would wait for ever if others went first.
    fn is_behind_a_commit(&self, event: &Event) -> bool {
        let is_awaited = |table: &str| {
            self.waiting.iter().any(|before| match before {
                Event::Commit { writes, reply, .. } => {
                    !reply.is_closed() && writes.iter().any(|write| write.table.as_ref() == table)
                }
                _ => false,
            })
        };
        match event {
            // The holder of the reservation goes first.
            Event::Modify { modification: Modification::Evaluated(evaluated), .. }
                if evaluated.reservation.is_some() =>
            {
                false
            }
            Event::Modify { modification, reply, .. } => {
                !reply.is_closed() && is_awaited(modification.table())
            }
            Event::Commit { writes, reply, .. } => {
                !reply.is_closed() && writes.iter().any(|write| is_awaited(&write.table))
            }
            _ => false,
        }
    }

    fn keeps_waiting(&self, event: &Event) -> bool {
        match event {
            Event::Modify { modification, reply, .. } => {
                let number = match modification {
                    Modification::Evaluated(evaluated) => evaluated.reservation,
                    _ => None,
                };
                !reply.is_closed() && self.is_taken(modification.table(), number)
            }
            Event::Commit { writes, reply, .. } => {
                !reply.is_closed() && writes.iter().any(|write| self.is_taken(&write.table, None))
            }
            Event::Apart(Apart::Reserve { tables, reply }) => {
                !reply.is_closed() && tables.iter().any(|table| self.is_taken(table, None))
            }
            _ => false,
        }
    }
}

impl Loop {
    /// Returns an event, unless it must wait: for a lagging query, or for reserved tables.
    pub(super) fn now_or_later(&mut self, event: Event) -> Option<Event> {
        let event = self.tasks.under_its_name(event);
        self.set_aside(event).and_then(|event| self.wait_for_reserved(event))
    }

    /// Returns an event, unless it must wait until a table is no longer reserved.
    fn wait_for_reserved(&mut self, event: Event) -> Option<Event> {
        let reserved = (!self.tables.reserved.held.is_empty() && self.tables.reserved.keeps_waiting(&event))
            || self.tables.reserved.is_behind_a_commit(&event);
        let for_checkpoint = self.waits_for_checkpoint(&event);
        if !reserved && !for_checkpoint && !self.tables.applied.keeps_waiting(&event) {
            return Some(event);
        }
        self.tables.reserved.for_checkpoint |= for_checkpoint;
        self.tables.reserved.waiting.push_back(event);
        None
    }

    /// Retries statements that wait for a checkpoint, once it is taken or they would no longer delay it.
    pub(super) fn go_on_after_checkpoint(&mut self) {
        if self.tables.reserved.for_checkpoint && !self.checkpoint_waits_for_statements() {
            self.tables.reserved.for_checkpoint = false;
            self.tables.reserved.look_again();
        }
    }

    /// Serves a request of a statement that is evaluated outside the loop.
    pub(super) fn serve(&mut self, asked: Apart) {
        match asked {
            Apart::Backfill { base, object, reply } => reply.send(self.backfill(base, &object)),
            Apart::BackfillSince { number, names, places, reply } => {
                reply.send(self.backfill_since(number, &names, places));
            }
            Apart::ReadStaged { relations, reply } => reply.send(self.read_staged(&relations)),
            Apart::Reserve { tables, reply } => self.reserve(tables, reply),
            Apart::Unreserve { number } => self.unreserve(number),
        }
    }

    fn reserve(&mut self, tables: Vec<Arc<str>>, reply: Reply<Reservation>) {
        self.tables.reserved.last += 1;
        let number = self.tables.reserved.last;
        self.tables.reserved.held.push((number, tables));
        // If the client has disconnected, it is dropped, and so given back.
        reply.send(Ok(Reservation { number, events: self.tasks.events.clone() }));
    }

    fn unreserve(&mut self, number: u64) {
        self.tables.reserved.held.retain(|(holder, _)| *holder != number);
        self.tables.reserved.look = true;
        self.take_waiting();
    }

    /// Retries the events that wait for tables, if that may help.
    pub(super) fn take_waiting(&mut self) {
        if !std::mem::take(&mut self.tables.reserved.look) {
            return;
        }
        for event in std::mem::take(&mut self.tables.reserved.waiting) {
            self.react(event);
        }
    }
}
