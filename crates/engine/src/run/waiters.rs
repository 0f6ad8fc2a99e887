//! Replies that wait for a state of the engine: FLUSH, the end of a bounded run, the end of the engine.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millstream_delta::Epoch;
use millstream_durable::{Entry, Sequence, Standing};
use millstream_sql::functions::quote_ident;
use millstream_sql::{Error, Kind, Result, qualified_ident, sqlstate};

use super::Loop;
use super::backpressure::HeldBack;
use super::clock::Clock;
use super::durable::Durability;
use super::log::Place;
use super::observe::Observing;
use super::outputs::Outputs;
use super::pending_reads::{DeferredEvent, PendingRead};
use super::query::{RunningQuery, Status};
use super::rename::Names;
use super::replaying::Replaying;
use super::saving::is_unsettled;
use super::settling::{Settling, is_settled, settling_all};
use super::source::RunningSource;
use super::sources::Sources;
use super::tables::BaseTables;
use crate::catalog::{Definition, Object, schema_of_key};
use crate::engine::Shared;
use crate::event::{Advance, Change, Reply};
use crate::jobs::Job;
use crate::run::queries::Queries;
use crate::run::{Answers, CatalogChanges};
use crate::settings::{ClockKind, Settings};

/// A sink that has failed this many times no longer delays the end of a bounded run.
const ATTEMPTS_MAX: u32 = 8;

/// The replies that wait for a state of the engine.
#[derive(Default)]
pub(crate) struct Waiters {
    flush: Vec<Flushing>,
    pub(crate) finished: Vec<Reply<()>>,
    pub(crate) ending: Ending,
    /// CREATE, DROP and RESUME statements whose queries are still starting.
    pub(crate) changes: Vec<Changing>,
    /// CREATE … IF NOT EXISTS statements whose objects another statement may still undo, by the objects' names.
    pub(crate) existing: Vec<(Vec<Arc<str>>, Reply<u64>)>,
    /// EXPLAIN ANALYZE statements that observe a query.
    pub(crate) observing: Vec<Observing>,
    /// The epoch of the journal that is being replayed.
    pub(crate) replay: Option<Replaying>,
    /// A query that becomes current by the journal, and the reply that waits for that.
    pub(crate) arriving: Option<(String, Reply<()>)>,
    /// SELECT statements that wait for lagging queries.
    pub(crate) reads: Vec<PendingRead>,
    /// The time at which sources last began to wait for a new query.
    held_at: Option<Instant>,
    /// Events that wait until queries are current.
    pub(super) deferred: Vec<DeferredEvent>,
}

/// The end of the engine, once a STOP asks for it.
#[derive(Default)]
pub(crate) struct Ending {
    pub(super) replies: Vec<Reply<()>>,
    pub(crate) is_asked: bool,
    /// True if epochs take the waiting rows of sources before the end.
    pub(crate) gracefully: bool,
    /// The state that all queries must reach before; set once everything is taken in.
    through: Option<Settling>,
    /// True once the loop ends.
    pub(super) is_over: bool,
}

impl Ending {
    /// Asks for the end, at once without a reply.
    pub(super) fn ask(&mut self, reply: Option<Reply<()>>, gracefully: bool) {
        let Some(reply) = reply else {
            self.is_over = true;
            return;
        };
        self.replies.push(reply);
        self.is_asked = true;
        self.gracefully |= gracefully;
    }
}

impl Waiters {
    /// Ends the loop after what it does now.
    fn end_soon(&mut self, shared: &Weak<Shared>) {
        self.ending.is_over = true;
        if let Some(shared) = shared.upgrade() {
            shared.stopped.store(true, std::sync::atomic::Ordering::Release);
        }
    }

    /// Returns the time until which sources wait for a query that begins now. They don't wait for one subscription
    /// after another: readers could hold them up for ever.
    pub(super) fn hold_sources(
        &mut self,
        now: Instant,
        length: Duration,
        temporary: bool,
    ) -> Option<Instant> {
        if temporary && self.held_at.is_some_and(|at| now < at + 2 * length) {
            return None;
        }
        self.held_at = Some(now);
        Some(now + length)
    }
}

/// A FLUSH. Once everything is taken in, all queries must be `through`; then each sink must reach its position.
#[derive(Debug)]
struct Flushing {
    reply: Reply<()>,
    through: Option<Settling>,
    sinks: Option<Vec<(Arc<str>, Place)>>,
}

/// A change of the catalog whose queries are still starting.
#[derive(Debug)]
pub(crate) struct Changing {
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) notices: Vec<String>,
    /// The journal entry that must be durable.
    pub(crate) entry: Option<Sequence>,
    pub(crate) reply: Awaits,
    /// The undo of the change, if that is possible.
    pub(crate) undo: Option<Undo>,
}

/// The reply to a statement that waits for starting queries, and gets the notices.
#[derive(Debug)]
pub(crate) enum Awaits {
    Change(Reply<Option<Vec<String>>>),
    Resume(Reply<Vec<String>>),
}

impl Awaits {
    fn is_closed(&self) -> bool {
        match self {
            Awaits::Change(reply) => reply.is_closed(),
            Awaits::Resume(reply) => reply.is_closed(),
        }
    }

    fn job(&self) -> Option<Arc<Job>> {
        match self {
            Awaits::Change(reply) => reply.job(),
            Awaits::Resume(reply) => reply.job(),
        }
    }

    fn send(self, notices: Result<Vec<String>>) {
        match self {
            Awaits::Change(reply) => reply.send(notices.map(Some)),
            Awaits::Resume(reply) => reply.send(notices),
        }
    }
}

/// The undo of a change that created objects and did nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Undo {
    objects: Vec<Arc<Object>>,
    /// The variables on which its statements depended.
    variables: Vec<(String, String)>,
}

/// Interval at which the loop checks if statements with starting queries are still awaited.
const LOOK: Duration = Duration::from_millis(50);

impl Undo {
    /// Returns the undo of these changes, which the journal has as this entry.
    pub(super) fn of(changes: &[Change], entry: &Entry) -> Option<Undo> {
        let Entry::Changed { variables, done, .. } = entry else { return None };
        let made = |change: &Change| match change {
            // Others may have inserted rows into a table, or read from a source, and would lose these.
            Change::Create { object, .. } => match object.definition {
                Definition::Table { .. } | Definition::Source { .. } | Definition::Subscription { .. } => {
                    None
                }
                _ => Some(object.clone()),
            },
            Change::Alter { .. }
            | Change::Comment { .. }
            | Change::Rename { .. }
            | Change::AlterTable(_)
            | Change::Drop { .. } => None,
        };
        let objects = changes.iter().map(made).collect::<Option<_>>()?;
        // A retry under a name that was recorded as done would do nothing.
        done.is_empty().then(|| Undo { objects, variables: variables.clone() })
    }
}

impl Waiters {
    /// Returns true if a reader or a statement waits for a query that lags.
    pub(super) fn hurry(&self, name: &Arc<str>) -> bool {
        self.want_all()
            || self.reads.iter().any(|read| read.holds_at(name).is_some() || !read.settling.is_empty())
            || self.deferred.iter().any(|aside| !aside.settling.is_empty())
    }

    /// Renames relations.
    pub(super) fn rename(&mut self, names: &Names) {
        names.put_all(self.changes.iter_mut().flat_map(|changing| &mut changing.names));
        let sinks = self.flush.iter_mut().flat_map(|flushing| flushing.sinks.iter_mut().flatten());
        names.put_all(sinks.map(|(name, _)| name));
        self.reads.iter_mut().for_each(|read| read.rename(names));
        let flushed = self.flush.iter_mut().filter_map(|flushing| flushing.through.as_mut());
        flushed.chain(&mut self.ending.through).for_each(|settling| settling.rename(names));
        self.observing.iter_mut().for_each(|observing| observing.rename(names));
    }

    /// Returns the statement that creates or resumes a query, while that is in backfill.
    pub(super) fn job_of(&self, name: &Arc<str>) -> Option<Arc<Job>> {
        self.changes.iter().find(|changing| changing.names.contains(name))?.reply.job()
    }

    /// Answers CREATE … IF NOT EXISTS statements whose objects no statement may undo any more.
    fn answer_existing(&mut self, version: u64) {
        for (names, reply) in std::mem::take(&mut self.existing) {
            let undone = self.changes.iter().filter_map(|changing| changing.undo.as_ref());
            let mut undone = undone.flat_map(|undo| &undo.objects).map(|object| &object.name);
            if undone.any(|name| names.contains(name)) {
                self.existing.push((names, reply));
            } else {
                reply.send(Ok(version));
            }
        }
    }

    /// True if a read may wait for a checkpoint.
    pub(super) fn reads_may_wait(&self) -> bool {
        !self.reads.is_empty() || !self.deferred.is_empty()
    }

    /// Returns true if a reply waits until all queries have taken everything in.
    pub(crate) fn want_all(&self) -> bool {
        self.ending.is_asked || !self.flush.is_empty() || !self.finished.is_empty()
    }

    /// Returns the time of the next check for statements whose queries are starting.
    pub(super) fn looks_at_changes(&self, durability: &Durability) -> Option<Instant> {
        let starts = !durability.is_recovering() && !self.changes.is_empty();
        starts.then(|| Instant::now() + LOOK)
    }
}

impl Answers<'_> {
    /// Asks every source for its rows, and answers when all of them are taken in.
    pub(super) fn flush(&mut self, reply: Reply<()>) {
        if self.setup.settings.clock == ClockKind::Manual {
            if self.sources.something_waits(self.queries, self.tables) {
                // Nothing waits for the batch itself: the flush is answered once the sinks have it, too.
                self.clock.advance(&self.setup.settings, Advance::Batches(1), Reply::new().0);
            }
        } else {
            self.sources.values_mut().filter(|source| source.is_read()).for_each(RunningSource::ask_at_once);
        }
        self.waiters.flush.push(Flushing { reply, through: None, sinks: None });
    }

    /// Replies to all statements that wait for epochs, sinks or the end.
    fn answer_others(&mut self) {
        self.answer_flushes();
        self.waiters.answer_observations(
            self.clock,
            self.queries,
            self.tables,
            self.sources,
            &self.setup.settings,
        );
        if !self.waiters.finished.is_empty() {
            self.answer_finished();
        }
        if self.durability.is_lost() || self.waiters.ending.is_asked && self.durability.failure().is_some() {
            self.waiters.end_soon(&self.setup.shared);
        }
        let rest = self.waiters.ending.gracefully
            && !self.clock.held
            && self.sources.rows_wait(&self.flow_control().held_back());
        if self.waiters.ending.is_asked
            && !rest
            && !tables_are_changed(self.queries, self.tables, self.sources, &self.setup.settings)
        {
            let all = settling_all(self.queries, self.clock.epoch);
            self.waiters.ending.through.get_or_insert(all);
        }
        let mut through = self.waiters.ending.through.take();
        let stops = through
            .as_mut()
            .is_some_and(|all| all_are_through(self.queries, self.clock, self.clock.epoch, all));
        self.waiters.ending.through = through;
        if stops {
            self.outputs.deliver_sinks(self.durability, true);
        }
        if stops
            && !rest
            && !tables_are_changed(self.queries, self.tables, self.sources, &self.setup.settings)
            && self.outputs.sinks_are_done(1)
        {
            self.durability.checkpoints.ends = true;
            // If the state can't be saved now, the journal has it.
            if self.durability.is_checkpointed()
                || is_unsettled(self.queries, self.tables, self.sources, self.outputs, self.waiters)
            {
                self.waiters.end_soon(&self.setup.shared);
            }
        }
    }

    /// Answers statements whose queries have started: a CREATE is done when its queries have finished their backfill.
    fn answer_changes(&mut self) -> Vec<Undo> {
        let mut given_up = Vec::new();
        for changing in std::mem::take(&mut self.waiters.changes) {
            if let Err(error) = self.durability.check_journal() {
                changing.reply.send(Err(error));
                continue;
            }
            let starting =
                |name: &Arc<str>| self.queries.query(name).is_some_and(|query| query.status.is_starting());
            // During recovery, queries become current when the journal says so.
            let waits = !self.durability.is_recovering() && changing.names.iter().any(starting);
            if waits && changing.undo.is_some() && changing.reply.is_closed() {
                given_up.extend(changing.undo);
            } else if waits || !self.durability.has(changing.entry) {
                self.waiters.changes.push(changing);
            } else {
                if let Some((undo, error)) = self.queries.beyond_memory(&changing) {
                    changing.reply.send(Err(error));
                    given_up.push(undo);
                    continue;
                }
                let mut notices = changing.notices;
                for name in changing.names {
                    if let Some(Status::Suspended { reason, .. }) =
                        self.queries.query(&name).map(|query| &query.status)
                    {
                        notices.push(format!("\"{name}\" is suspended: {}", reason.message));
                    }
                }
                changing.reply.send(Ok(notices));
            }
        }
        given_up
    }

    /// Answers FLUSH once the queries have taken everything in, and the sinks hold everything as of that moment. Later
    /// rows don't delay it.
    fn answer_flushes(&mut self) {
        if let Err(error) = self.durability.check_journal() {
            let flushes = std::mem::take(&mut self.waiters.flush);
            return flushes.into_iter().for_each(|flushing| flushing.reply.send(Err(error.clone())));
        }
        for mut flushing in std::mem::take(&mut self.waiters.flush) {
            if flushing.through.is_none()
                && all_is_taken_in(
                    self.queries,
                    self.tables,
                    self.sources,
                    self.outputs,
                    &self.setup.settings,
                    self.clock,
                    &self.flow_control().held_back(),
                )
            {
                flushing.through = Some(settling_all(self.queries, self.clock.epoch));
            }
            let through = flushing
                .through
                .as_mut()
                .is_some_and(|all| all_are_through(self.queries, self.clock, self.clock.epoch, all));
            if flushing.sinks.is_none() && through {
                let ends = self
                    .outputs
                    .sinks
                    .iter()
                    .map(|(name, sink)| (name.clone(), self.outputs.logs.end(&sink.from)));
                flushing.sinks = Some(ends.collect());
            }
            let delivered = |sinks: &Vec<(Arc<str>, Place)>| {
                sinks
                    .iter()
                    .all(|(name, place)| self.outputs.sinks.get(name).is_none_or(|sink| sink.is_past(*place)))
            };
            if flushing.sinks.as_ref().is_some_and(delivered) {
                flushing.reply.send(Ok(()));
            } else {
                self.waiters.flush.push(flushing);
            }
        }
        if self.waiters.flush.iter().any(|flushing| flushing.sinks.is_some()) {
            self.outputs.deliver_sinks(self.durability, true);
        }
    }

    fn answer_finished(&mut self) {
        if let Err(error) = self.durability.check_journal() {
            return self.waiters.finished.drain(..).for_each(|reply| reply.send(Err(error.clone())));
        }
        let held = self.flow_control().held_back();
        let mut used = self.sources.iter().filter(|(_, source)| source.used);
        let ended = used.all(|(name, source)| {
            let is_done = source.has_ended() && !source.has_rows();
            is_done || self.outputs.is_stuck(name, &held, ATTEMPTS_MAX)
        });
        let taken_in = ended
            && !tables_are_changed(self.queries, self.tables, self.sources, &self.setup.settings)
            && self.queries.iter().all(|query| !query.status.is_starting())
            && self.queries.are_through(self.clock.epoch);
        if self.clock.held || !taken_in {
            return;
        }
        self.outputs.deliver_sinks(self.durability, true);
        if !self.outputs.sinks_are_done(ATTEMPTS_MAX) {
            return;
        }
        let problems = self.outputs.problems(self.queries, self.sources, self.durability);
        let at_fault = |query: &RunningQuery| {
            !query.role.is_temporary() && (query.status.is_suspended() || query.result.errors.count() > 0)
        };
        let kind = if self.queries.iter().any(at_fault) { Kind::Invalid } else { Kind::External };
        for reply in self.waiters.finished.drain(..) {
            reply.send(if problems.is_empty() { Ok(()) } else { Err(Error::new(kind, problems.join("\n"))) });
        }
    }
}

impl Loop {
    /// Answers the replies whose state is reached.
    pub(super) fn answer_waiters(&mut self) {
        for undo in self.answers().answer_changes() {
            self.changes().undo(undo);
        }
        self.waiters.answer_existing(self.setup.catalog.version);
        self.answers().answer_others();
    }
}

impl CatalogChanges<'_> {
    /// Drops the objects of a statement that was given up while its queries were starting. It keeps them if others use
    /// them by now, or have altered them.
    fn undo(&mut self, undo: Undo) {
        let Undo { objects, variables } = undo;
        let names: Vec<Arc<str>> = objects.iter().rev().map(|object| object.name.clone()).collect();
        let is_own = |name: &Arc<str>| names.contains(name);
        let is_as_made = |object: &Arc<Object>| {
            let found = self.setup.catalog.find(&object.name).is_some_and(|found| Arc::ptr_eq(found, object));
            found && self.setup.catalog.dependants(&object.name).iter().all(is_own)
        };
        if !objects.iter().all(is_as_made) {
            return;
        }
        let drop_one = |name: &Arc<str>| {
            let kind = self.setup.catalog.find(name)?.definition.kind().to_uppercase();
            let name = match (schema_of_key(name), name.strip_suffix("()")) {
                (Some(schema), _) => quote_ident(schema),
                (_, Some(routine)) => quote_ident(routine),
                _ => qualified_ident(name),
            };
            Some(format!("DROP {kind} {name}"))
        };
        let Some(statements) = names.iter().map(drop_one).collect() else { return };
        let standing = Standing::default();
        let entry = Entry::Changed { statements, variables, done: Vec::new(), plans: Vec::new(), standing };
        let (reply, _answer) = Reply::new();
        self.change(self.setup.catalog.version, vec![Change::Drop { names }], entry, reply);
    }
}

impl Queries {
    /// Returns the error of a statement that exceeded its memory limit, and how to undo the statement.
    fn beyond_memory(&self, changing: &Changing) -> Option<(Undo, Error)> {
        let reason = |name: &Arc<str>| match &self.query(name)?.status {
            Status::Suspended { reason, .. } => Some(reason),
            _ => None,
        };
        let mut reasons = changing.names.iter().filter_map(reason);
        let error = reasons.find(|reason| reason.code == Some(sqlstate::OUT_OF_MEMORY))?.clone();
        Some((changing.undo.clone()?, error))
    }
}

/// Returns true if all that sources had when last asked has gone through every query. Sources held back by a
/// failing sink don't count.
fn all_is_taken_in(
    queries: &[RunningQuery],
    tables: &BaseTables,
    sources: &Sources,
    outputs: &Outputs,
    settings: &Settings,
    clock: &Clock,
    held: &HeldBack,
) -> bool {
    // Only subscribers wait for their own queries.
    let is_there = |query: &RunningQuery| query.role.is_temporary() || !query.status.is_starting();
    if settings.clock == ClockKind::Manual {
        return !clock.is_moving() && queries.iter().all(is_there);
    }
    let mut read = sources.iter().filter(|(_, source)| source.is_read());
    !clock.held
        && read.all(|(name, source)| source.is_idle() || outputs.is_stuck(name, held, 1))
        && !tables_are_changed(queries, tables, sources, settings)
        && queries.iter().all(is_there)
}

/// True if all awaited sinks have applied their changes, and all queries have taken them in.
fn all_are_through(queries: &Queries, clock: &Clock, epoch: Epoch, settling: &mut Settling) -> bool {
    is_settled(queries, clock, epoch, settling) && queries.are_through(settling.epoch())
}

fn tables_are_changed(
    queries: &[RunningQuery],
    tables: &BaseTables,
    sources: &Sources,
    settings: &Settings,
) -> bool {
    !tables.applied.is_empty()
        || (settings.clock == ClockKind::System && sources.statements_wait(queries, tables))
}
