//! Statements and transactions that change many rows. The loop applies them in pieces, and serves others in between.
//!
//! Meanwhile, readers of such a table see it as it was. Two kinds of event wait (`reserve.rs`): changes of the table or
//! its definition, and changes of other tables that depend on its rows. When all pieces are applied, a thread
//! consolidates them, and the next epoch takes them in as one change. After an error or a cancellation, the loop undoes
//! the applied pieces, in pieces as well.
//!
//! A transaction may change several tables: all of them or none, in one epoch.
//!
//! Large changes that sinks bring into tables are applied in the same way (`apply/brought.rs`).

mod brought;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use brought::{Bringing, Turn};
use millstream_delta::{Delta, spawn_detached};
use millstream_sql::{Error, Result, sqlstate};
use millstream_state::Size;

use super::deltas::in_sum;
use super::durable::Durability;
use super::modify::named;
use super::query::RunningQuery;
use super::sources::Sources;
use super::step_threads::Wake;
use super::table::{ApplyingChange, Change, Table};
use super::tables::BaseTables;
use super::tasks::Tasks;
use crate::catalog::Definition;
use crate::evaluate::asked_by;
use crate::event::{self, Apart, Event, Modification, Question, Reply};
use crate::query_pool;
use crate::run::TableIntake;
use crate::run::queries::Queries;
use crate::settings::Settings;

/// The largest statement that is applied at once; larger ones are applied in pieces.
const ROWS_MAX: Size = Size::of(32 * 1024);

/// Most time spent on pieces before others have their turn. Below it, pieces get as much time as all else had since the
/// last ones, and at least one piece is applied.
const TIME_MAX: Duration = Duration::from_millis(2);

/// A statement, a transaction or a sink whose changes are being applied.
struct Applying {
    /// The changed tables; a statement or a sink has one.
    tables: Vec<Arc<str>>,
    owner: Owner,
    /// True if a sink brings rows into one of the tables.
    is_fed: bool,
    stage: Stage,
}

/// The origin of changes that are being applied.
enum Owner {
    Statement {
        /// True for a transaction: its errors do not name one table.
        is_transaction: bool,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
    },
    Sink(Bringing),
}

enum Stage {
    /// A thread makes a sink's changes fit the table.
    Fitting(Receiver<Result<Change>>),
    /// A sink's changes wait for their turn.
    Ready(Change, Turn),
    /// Some pieces are left.
    Pieces,
    /// A thread consolidates the changes of all pieces.
    Summing { sum: Receiver<Vec<Delta>>, deltas: Vec<Delta>, count: u64 },
    /// Finished, with the changes by table and the number of rows that the statement affects.
    Ended(Result<(Vec<Delta>, u64)>),
}

impl Applying {
    fn changes(&self, table: &str) -> bool {
        self.tables.iter().any(|changed| changed.as_ref() == table)
    }

    fn has_pieces(&self) -> bool {
        matches!(self.stage, Stage::Pieces)
    }

    fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Fitting(_) | Stage::Ready(..))
    }

    /// True if statements that change the same table must wait for it.
    fn has_its_turn(&self) -> bool {
        self.has_begun() || matches!(self.stage, Stage::Ready(_, Turn::Next))
    }

    /// True if nobody waits for its reply any more.
    fn is_given_up(&self) -> bool {
        matches!(&self.owner, Owner::Statement { reply, .. } if reply.is_closed())
    }
}

/// The changes that are being applied. Of those that share a table, one has its turn.
#[derive(Default)]
pub(super) struct Applied {
    all: Vec<Applying>,
    /// The time at which the last piece was applied.
    ended: Option<Instant>,
}

impl Applied {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// True if a table's rows are being changed.
    fn has(&self, table: &str) -> bool {
        self.all.iter().any(|applying| applying.has_its_turn() && applying.changes(table))
    }

    /// The same, or a sink has changes for the table.
    fn will_have(&self, table: &str) -> bool {
        self.all.iter().any(|applying| applying.changes(table))
    }

    /// True if an event must wait for a statement that is being applied. It would change the same table, or its changes
    /// depend on rows that it read there.
    pub(super) fn keeps_waiting(&self, event: &Event) -> bool {
        if self.all.is_empty() {
            return false;
        }
        match event {
            Event::Change { changes, .. } => changes.iter().any(|change| self.stops(change)),
            Event::Ask(Question::LookUp { table, .. }) => self.has(table),
            Event::Modify { modification, .. } => {
                self.has(modification.table()) || self.has_read(modification)
            }
            Event::Commit { writes, .. } => writes.iter().any(|write| self.has(&write.table)),
            Event::Apart(Apart::ReadStaged { relations, .. }) => {
                relations.iter().any(|asked| self.has(&asked.name))
            }
            // They may bring rows into tables at once, and have no cut that records the progress of sinks.
            Event::Replace(_) | Event::Pause { .. } => self.all.iter().any(|applying| applying.is_fed),
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
                matches!(&object.definition, Definition::SinkInto { table, .. } if self.will_have(table))
            }
            event::Change::Alter { object } => self.will_have(&object.name),
            event::Change::AlterTable(altered) => self.will_have(&altered.object.name),
            event::Change::Rename { from, .. } => self.will_have(from),
            event::Change::Comment { .. } => false,
            event::Change::Drop { names } => names.iter().any(|name| self.will_have(name)),
        }
    }
}

impl TableIntake<'_> {
    /// Applies pieces for a bounded time, in turns if there are several statements.
    pub(super) fn apply_pieces(&mut self) {
        if self.tables.applied.is_empty() {
            return;
        }
        self.tables.begin_brought();
        let begun = Instant::now();
        // If the journal has failed, no epoch can take the changes in, so they are undone.
        let refused = self.durability.check_journal().err();
        let others = self.tables.applied.ended.map_or(Duration::ZERO, |ended| begun - ended);
        let time = others.min(TIME_MAX);
        loop {
            for applying in std::mem::take(&mut self.tables.applied.all) {
                self.apply_piece(applying, refused.clone());
            }
            if self.tables.next_piece().is_none() || begun.elapsed() >= time {
                break;
            }
        }
        self.tables.applied.ended = Some(Instant::now());
    }

    /// Finishes a change of a table that is being applied in pieces.
    pub(super) fn finish_pieces(&mut self, table: &str) {
        let is_of = |applying: &Applying| applying.has_begun() && applying.changes(table);
        while let Some(place) = self.tables.applied.all.iter().position(is_of) {
            let mut applying = self.tables.applied.all.remove(place);
            if let Stage::Summing { sum, deltas, count } = applying.stage {
                let deltas = sum.recv().unwrap_or(deltas);
                applying.stage = Stage::Pieces;
                self.end_pieces(applying, Ok((deltas, count)));
            } else {
                self.apply_piece(applying, None);
            }
        }
    }

    fn apply_piece(&mut self, mut applying: Applying, refused: Option<Error>) {
        let ends = refused.or_else(|| applying.is_given_up().then(given_up));
        match self.tables.go_on(self.tasks, &applying.tables, applying.stage, ends) {
            Stage::Ended(done) => {
                applying.stage = Stage::Pieces;
                self.end_pieces(applying, done);
            }
            stage => {
                applying.stage = stage;
                self.tables.applied.all.push(applying);
            }
        }
    }

    fn end_pieces(&mut self, applying: Applying, done: Result<(Vec<Delta>, u64)>) {
        let Applying { tables, owner, is_fed, .. } = applying;
        self.tables.reserved.look_again();
        if is_fed {
            // Sinks that lagged for the table may return to the loop.
            let _ = self.tasks.events.send(Event::Stepped);
        }
        let (is_transaction, idempotency_key, reply) = match owner {
            Owner::Statement { is_transaction, idempotency_key, reply } => {
                (is_transaction, idempotency_key, reply)
            }
            Owner::Sink(bringing) => {
                self.measures.rows_wait_since(Instant::now());
                return bringing.end(self.tables, self.queries, self.clock.epoch, done);
            }
        };
        let Some(first) = tables.first() else { return reply.send(done.map(|(_, count)| count)) };
        let done = done.map_err(|error| if is_transaction { error } else { named(first, error) });
        let done = done.and_then(|(deltas, count)| {
            for (name, delta) in tables.iter().zip(deltas) {
                self.tables.table(name)?.publish(delta);
            }
            Ok(count)
        });
        if done.is_ok() {
            self.measures.rows_wait_since(Instant::now());
        }
        self.tables.answer_change(self.durability, &self.setup.settings, first, idempotency_key, reply, done);
    }
}

impl Tasks {
    fn sum_up(&self, deltas: Vec<Delta>, count: u64) -> Stage {
        let (sender, sum) = channel();
        let (wake, alive) = (Wake(self.events.clone()), self.threads.alive());
        let of = deltas.clone();
        let thread = std::thread::Builder::new().name("millstream-sum".into());
        let started = spawn_detached(thread, move || {
            // Locals drop in reverse order: the thread sends its result before it wakes the loop.
            let (_alive, _wake, sender) = (alive, wake, sender);
            query_pool::lower_this_thread();
            let _ = sender.send(of.into_iter().map(in_sum).collect());
        });
        match started {
            Ok(()) => Stage::Summing { sum, deltas, count },
            Err(_) => Stage::Ended(Ok((deltas, count))),
        }
    }
}

impl BaseTables {
    /// True if changes must be applied in pieces.
    pub(super) fn are_large(&self, changes: &[(Arc<str>, Change)]) -> bool {
        let must_index = |(name, change): &(Arc<str>, Change)| {
            self.get(name).is_some_and(|table| change.must_index(table))
        };
        changes.iter().map(|(_, change)| change.num_rows()).sum::<usize>() > ROWS_MAX.get()
            || changes.iter().any(must_index)
    }

    pub(super) fn begin_pieces(
        &mut self,
        changes: Vec<(Arc<str>, Change)>,
        is_transaction: bool,
        idempotency_key: Option<String>,
        reply: Reply<u64>,
        queries: &Queries,
    ) {
        let is_fed = changes.iter().any(|(table, _)| queries.sink_into(table).is_some());
        let mut tables = Vec::with_capacity(changes.len());
        for (name, change) in changes {
            match self.table(&name).and_then(|table| table.begin(change)) {
                Ok(()) => tables.push(name),
                Err(error) if tables.is_empty() => {
                    let error = if is_transaction { error } else { named(&name, error) };
                    return reply.send(Err(error));
                }
                Err(error) => {
                    self.take_back(&tables, &error);
                    break;
                }
            }
        }
        let owner = Owner::Statement { is_transaction, idempotency_key, reply };
        self.applied.all.push(Applying { tables, owner, is_fed, stage: Stage::Pieces });
    }

    /// Returns the time at which the next piece is due, if one is left.
    pub(super) fn next_piece(&self) -> Option<Instant> {
        let is_due = |applying: &Applying| applying.has_pieces() || self.is_ready(applying);
        self.applied.all.iter().any(is_due).then(Instant::now)
    }

    /// Makes all tables undo the applied pieces.
    fn take_back(&mut self, tables: &[Arc<str>], error: &Error) {
        for name in tables {
            if let Ok(table) = self.table(name) {
                table.give_up(error.clone());
            }
        }
    }

    /// Returns the changes by table once all pieces are applied, or the reason why nothing has changed.
    fn applied_to(&mut self, tables: &[Arc<str>]) -> Result<(Vec<Delta>, u64)> {
        let (mut deltas, mut rows, mut failed) = (Vec::with_capacity(tables.len()), 0, None);
        for name in tables {
            match self.table(name).and_then(|table| table.applied()) {
                Ok((delta, count)) => {
                    deltas.push(delta);
                    rows += count;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok((deltas, rows)), Err)
    }

    /// Applies a piece, or checks if the consolidated changes are ready.
    fn go_on(&mut self, tasks: &Tasks, tables: &[Arc<str>], stage: Stage, ends: Option<Error>) -> Stage {
        match stage {
            Stage::Fitting(change) => {
                return match change.try_recv() {
                    Ok(Ok(change)) => Stage::Ready(change, Turn::Free),
                    Ok(Err(error)) => Stage::Ended(Err(error)),
                    Err(TryRecvError::Empty) => Stage::Fitting(change),
                    Err(TryRecvError::Disconnected) => {
                        Stage::Ended(Err(Error::bug("the thread that makes its rows fit has ended")))
                    }
                };
            }
            Stage::Ready(..) | Stage::Ended(_) => return stage,
            Stage::Pieces | Stage::Summing { .. } => {}
        }
        if let Some(error) = ends {
            self.take_back(tables, &error);
        } else if let Stage::Summing { sum, deltas, count } = stage {
            return match sum.try_recv() {
                Ok(deltas) => Stage::Ended(Ok((deltas, count))),
                Err(TryRecvError::Empty) => Stage::Summing { sum, deltas, count },
                // The thread failed. The changes mean the same without consolidation.
                Err(TryRecvError::Disconnected) => Stage::Ended(Ok((deltas, count))),
            };
        }
        // Most errors occur in the checks, before anything has to be undone.
        for next in [Table::check_next, Table::apply_next] {
            for name in tables {
                let Ok(table) = self.table(name) else { continue };
                let ended = next(table);
                if let Some(error) = table.applying().and_then(ApplyingChange::failure).cloned() {
                    self.take_back(tables, &error);
                }
                if !ended {
                    return Stage::Pieces;
                }
            }
        }
        match self.applied_to(tables) {
            Ok((deltas, count)) if !deltas.iter().all(Delta::is_append_only) => tasks.sum_up(deltas, count),
            done => Stage::Ended(done),
        }
    }

    /// True if a statement that may be applied in pieces must wait for a checkpoint that is due. The checkpoint needs a
    /// moment without such statements; statements that overlap would postpone it for ever.
    pub(super) fn waits_for_checkpoint(
        &self,
        queries: &[RunningQuery],
        sources: &Sources,
        durability: &Durability,
        settings: &Settings,
        event: &Event,
    ) -> bool {
        let (rows_max, reply) = match event {
            Event::Modify { modification, reply, .. } => (modification.num_rows_max(), reply),
            Event::Commit { writes, reply, .. } => {
                (Some(writes.iter().map(|write| write.change.num_rows()).sum()), reply)
            }
            _ => return false,
        };
        !reply.is_closed()
            && rows_max.is_some_and(|rows| rows > ROWS_MAX.get())
            && durability.waits_for_statements(queries, self, sources, settings)
    }
}

fn given_up() -> Error {
    Error::external("the statement was canceled").code(sqlstate::QUERY_CANCELED)
}
