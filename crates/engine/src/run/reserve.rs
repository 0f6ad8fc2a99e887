//! Tables that one statement reserves while it is evaluated outside the loop.
//!
//! A statement that reads tables is evaluated over a snapshot, and is applied only if the tables haven't changed. The
//! first one wins, and the others are evaluated again. A statement that has lost several times reserves its tables.
//! Statements and transactions that change one of these then wait; readers and all others don't.
//!
//! Sinks into reserved tables lag from the moment at which the statement has read until it is applied. Who reads such a
//! table, and wants the changes of these sinks, waits for the statement.
//!
//! Deliberately absent: sinks that may not lag, such as those under a manual clock. They go on to change a reserved table,
//! and if they do so in every epoch, the loop evaluates the statement.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::Loop;
use crate::event::{Apart, Event, Modification, Reply, Staged};
use crate::run::Admission;

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

/// A reservation that a statement holds.
struct Held {
    number: u64,
    tables: Vec<Arc<str>>,
    /// True while the statement is evaluated over rows that it has read.
    excludes_sinks: bool,
}

/// The present reservations, and the events that wait for them.
#[derive(Default)]
pub(super) struct Reserved {
    last: u64,
    held: Vec<Held>,
    /// The waiting events, in order of arrival.
    waiting: VecDeque<Event>,
    /// True if some waiting events may have to wait no longer.
    look: bool,
    /// True if some events wait for a checkpoint.
    for_checkpoint: bool,
    /// The queries for whose room some events wait.
    for_room: BTreeSet<Arc<str>>,
}

impl Reserved {
    /// True if another reservation than `number` has the table.
    fn is_taken(&self, table: &str, number: Option<u64>) -> bool {
        let others = self.held.iter().filter(|held| Some(held.number) != number);
        others.flat_map(|held| &held.tables).any(|taken| taken.as_ref() == table)
    }

    /// Makes sinks into the tables of a reservation lag, or lets them go on.
    pub(super) fn exclude_sinks(&mut self, number: Option<u64>, excludes: bool) {
        let held = self.held.iter_mut().find(|held| Some(held.number) == number);
        held.into_iter().for_each(|held| held.excludes_sinks = excludes);
    }

    /// True if a statement has read under its reservation, and is not applied yet.
    pub(super) fn has_read(&self, number: Option<u64>) -> bool {
        self.held.iter().any(|held| Some(held.number) == number && held.excludes_sinks)
    }

    /// True if sinks into some table must lag.
    pub(super) fn excludes_any_sink(&self) -> bool {
        self.held.iter().any(|held| held.excludes_sinks)
    }

    /// True if sinks into a table must lag.
    pub(super) fn excludes_sinks_into(&self, table: &str) -> bool {
        let excluding = self.held.iter().filter(|held| held.excludes_sinks);
        excluding.flat_map(|held| &held.tables).any(|taken| taken.as_ref() == table)
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
    /// tables at one moment, and would wait for ever if others went first. Nobody waits behind one for which a query has
    /// no room.
    fn is_behind_a_commit(&self, event: &Event, has_room: impl Fn(&Event) -> bool) -> bool {
        let is_awaited = |table: &str| {
            self.waiting.iter().filter(|before| has_room(before)).any(|before| match before {
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

    fn reserve(&mut self, events: Sender<Event>, tables: Vec<Arc<str>>, reply: Reply<Reservation>) {
        self.last += 1;
        let number = self.last;
        self.held.push(Held { number, tables, excludes_sinks: false });
        // If the client has disconnected, it is dropped, and so given back.
        reply.send(Ok(Reservation { number, events }));
    }
}

impl Admission<'_> {
    /// Returns an event, unless it must wait: for a lagging query, or for reserved tables.
    pub(super) fn admit(&mut self, event: Event) -> Option<Event> {
        self.defer(event).and_then(|event| self.wait_for_reserved(event))
    }

    /// Returns an event, unless it must wait until a table is no longer reserved.
    fn wait_for_reserved(&mut self, event: Event) -> Option<Event> {
        let reserved = (!self.tables.reserved.held.is_empty() && self.tables.reserved.keeps_waiting(&event))
            || {
                let has_room = |before: &Event| {
                    self.setup
                        .execution
                        .without_room_for(self.queries, self.outputs, &self.setup.settings, before)
                        .is_empty()
                };
                self.tables.reserved.is_behind_a_commit(&event, has_room)
            };
        let (for_checkpoint, for_room) = (
            self.tables.waits_for_checkpoint(
                self.queries,
                self.sources,
                self.durability,
                &self.setup.settings,
                &event,
            ),
            self.setup.execution.without_room_for(self.queries, self.outputs, &self.setup.settings, &event),
        );
        let must_wait = reserved || for_checkpoint || !for_room.is_empty();
        if !must_wait && !self.tables.applied.keeps_waiting(&event) {
            return Some(event);
        }
        self.tables.reserved.for_checkpoint |= for_checkpoint;
        self.tables.reserved.for_room.extend(for_room);
        self.tables.reserved.waiting.push_back(event);
        None
    }

    /// Retries statements that wait for a checkpoint, once it is taken or they would no longer delay it, and those that wait
    /// for queries, once one of these has room.
    pub(super) fn retry_waiting(&mut self) {
        let for_checkpoint = self.tables.reserved.for_checkpoint;
        let has_room = |name: &Arc<str>| {
            let query = self.queries.query(name);
            query.is_none_or(|query| self.setup.execution.has_room_for_statements(query, &self.outputs.logs))
        };
        let is_checkpoint_over = for_checkpoint
            && !self.durability.waits_for_statements(
                self.queries,
                self.tables,
                self.sources,
                &self.setup.settings,
            );
        if is_checkpoint_over || self.tables.reserved.for_room.iter().any(has_room) {
            self.tables.reserved.for_checkpoint &= !is_checkpoint_over;
            self.tables.reserved.for_room.clear();
            self.tables.reserved.look_again();
        }
    }
}

impl Loop {
    /// Serves a request of a statement that is evaluated outside the loop.
    pub(super) fn serve(&mut self, asked: Apart) {
        match asked {
            Apart::Backfill { base, object, reply } => reply.send(self.pins().backfill(base, &object)),
            Apart::BackfillSince { number, names, places, reply } => {
                reply.send(self.outputs.transactions.backfill_since(
                    &self.outputs.logs,
                    self.clock.epoch,
                    number,
                    &names,
                    places,
                ));
            }
            Apart::ReadStaged { relations, reservation, reply } => {
                let mut staged = Staged { relations: Vec::new(), versions: Vec::new() };
                let read = relations.iter().try_for_each(|asked| {
                    if !self.tables.add_staged(&self.sources, asked, &mut staged)? {
                        staged.relations.push(self.content_asked(asked, false)?);
                    }
                    Ok(())
                });
                let staged = read.map(|()| staged);
                self.tables.reserved.exclude_sinks(reservation, staged.is_ok());
                reply.send(staged);
            }
            Apart::Reserve { tables, reply } => {
                self.tables.reserved.reserve(self.tasks.events(), tables, reply)
            }
            Apart::Unreserve { number } => {
                self.tables.reserved.held.retain(|held| held.number != number);
                self.tables.reserved.look = true;
                self.take_waiting();
            }
        }
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
