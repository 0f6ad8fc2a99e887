//! The epoch loop: the only thread that changes anything.
//!
//! It reacts to one closed list of events, and starts an epoch when its pace says so. Sources and sinks are tasks of
//! their own, with which it exchanges bounded messages.

mod alter;
mod apply;
mod backfill;
mod backpressure;
mod bad_rows;
mod batches;
mod bounded;
mod budget;
mod catch_up;
mod change;
mod checkpoint;
mod clock;
mod compile;
mod contents;
mod dead_letters;
mod lagging;
mod pending_reads;

mod activity;
mod admission;
mod alerts;
mod alter_table;
mod answers;
mod catalog_changes;
mod crash_notes;
mod ddl_log;
mod delivery;
mod deltas;
mod departures;
mod durable;
mod epoch;
mod epoch_replay;
mod errors;
mod execution;
mod feed;
mod flow_control;
mod history;
mod initial_content;
mod inlet;
mod into_table;
mod inventory;
mod late_insert;
mod late_rows;
mod log;
mod measure;
mod memory;
mod metrics;
mod missed;
mod modify;
mod monotonic_clock;
mod observe;
mod outputs;
mod own_flow;
mod pace;
mod pause;
mod pin;
mod pins;
mod problem;
mod problems;
mod queries;
mod query;
mod query_names;
mod query_replacement;
mod query_starts;
mod query_steps;
mod rate;
mod read_view;
mod rebuild;
mod receive;
mod recover;
mod rename;
mod replaying;
mod reserve;
mod restoration;
mod retained;
mod saving;
mod schedule;
mod settling;
mod setup;
mod shared_parts;
mod sharing;
mod side_by_side;
mod sink;
mod source;
mod source_inserts;
mod sources;
mod speed;
mod status;
mod step_threads;
mod subscribe;
mod subscription;
mod subscriptions;
mod successors;
mod system;
mod table;
mod table_intake;
mod tables;
mod task_failure;
mod tasks;
mod transact;
mod transactions;
mod upserts;
mod waiters;
mod watermarks;
mod why;
mod why_slow;
mod window;

#[cfg(test)]
mod tests;
mod writes;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millstream_connect::Arrival;
use millstream_delta::{Delta, STACK_BYTES, spawn_detached};
use millstream_flow::Driver;
use millstream_sql::{Error, Planner, Result};
use millstream_state::Place;
use tokio::runtime::Runtime;

use crate::engine::{Recorder, Shared};
use crate::event::Event;
use crate::execution_options::ExecutionOptions;
use crate::listener::Listeners;
use crate::metrics::History;
use crate::sequences::Sequences;
use crate::settings::{ClockKind, MemorySettings, Settings};
pub(crate) use backfill::{
    Backfill, EPOCHS_MAX as BACKFILL_EPOCHS_MAX, Handover, REST_ROWS_MAX, ROUNDS_MAX, Since,
};
use backpressure::HeldBack;
use crash_notes::note_stepped;
use late_insert::correct;

pub(crate) use lagging::together;

use admission::Admission;
use answers::Answers;
use catalog_changes::CatalogChanges;
pub(crate) use catch_up::PartRows;
pub(crate) use checkpoint::Written;
use clock::Clock;
use delivery::{Delivery, borrow_delivery};
pub(crate) use deltas::in_sum;
use departures::{Departures, borrow_departures};
use durable::{Durability, end_journal, save_sequences};
use epoch_replay::EpochReplay;
use execution::Execution;
pub(crate) use late_insert::Correction;
pub(crate) use late_rows::Parted;
pub(crate) use log::Place as LogPlace;
pub(crate) use measure::EPOCHS;
use measure::Measures;
use memory::Memory;
pub(crate) use modify::part;
use monotonic_clock::MonotonicClock;
pub(crate) use monotonic_clock::{TimeSource, system_time};
use outputs::Outputs;
use pins::Pins;
use queries::{Queries, QueryGraph};
use query_names::state_sizes;
use query_replacement::take_differences;
use query_starts::{QueryStarts, borrow_query_starts};
use query_steps::{QuerySteps, borrow_query_steps};
pub(crate) use reserve::Reservation;
use restoration::Restoration;
use setup::Setup;
pub(crate) use sink::SinkReport;
use source::RunningSource;
use sources::Sources;
use successors::Successors;
pub(crate) use table::{Indexes, NewColumns, RowsAnew, TableWrite, check_distinct_keys, extended};
use table_intake::{TableIntake, borrow_table_intake};
use tables::BaseTables;
use tasks::Tasks;
use waiters::Waiters;
use watermarks::Watermarks;
pub(crate) use watermarks::ahead::Ahead;
use writes::Writes;

/// Most events taken before the loop looks for due work.
const EVENTS_MAX: usize = 1024;

/// Most epochs run before the loop looks at its events again.
const EPOCHS_MAX: usize = 64;

/// The time for which epochs run before the loop looks at its events again: readers wait there.
const EPOCHS_TIME: Duration = Duration::from_millis(2);

/// The parts of the loop besides the shared ones.
pub(crate) struct Parts {
    pub(crate) recorder: Option<Recorder>,
    pub(crate) listeners: Listeners,
    pub(crate) execution: ExecutionOptions,
    /// The place of spilled rows.
    pub(crate) spill: Arc<dyn Place>,
    /// `memory_limit` until it is set: a replay of the journal must not take more either.
    pub(crate) memory_limit: Option<usize>,
    pub(crate) history: History,
    pub(crate) sequences: Arc<Sequences>,
    /// The source of the system time.
    pub(crate) time: TimeSource,
    /// True if it begins with the replay of a journal.
    pub(crate) recovers: bool,
    pub(crate) runtime: Runtime,
    /// The runtime on which the plans that operators run spawn their tasks.
    pub(crate) steps: Runtime,
}

/// The state of an engine: everything that changes.
pub(crate) struct Loop {
    setup: Setup,
    tasks: Tasks,
    clock: Clock,
    measures: Measures,
    memory: Memory,
    tables: BaseTables,
    sources: Sources,
    queries: QueryGraph,
    outputs: Outputs,
    watermarks: Watermarks,
    waiters: Waiters,
    durability: Durability,
}

/// Starts the loop's thread.
pub(crate) fn spawn(shared: &Arc<Shared>, inbox: Receiver<Event>, parts: Parts) -> Result<()> {
    let weak = Arc::downgrade(shared);
    let events = shared.events.clone();
    let planner = shared.planner.clone();
    let thread = std::thread::Builder::new().name("millstream-loop".into()).stack_size(STACK_BYTES);
    spawn_detached(thread, move || {
        let (state, runtimes) = begin(weak, events, &planner, parts);
        state.run(&inbox);
        runtimes.into_iter().for_each(crate::engine::end);
    })
    .map_err(|error| Error::external(format!("the engine's thread can't be started: {error}")))
}

/// Returns the state of a new engine, and the runtimes on which its tasks and its steps run.
fn begin(
    shared: Weak<Shared>,
    events: Sender<Event>,
    planner: &Planner,
    parts: Parts,
) -> (Loop, [Runtime; 2]) {
    let driver = Driver::new(planner.state(), parts.steps.handle().clone());
    let driver = parts.execution.applied_to(driver);
    let memory = MemorySettings { limit: parts.memory_limit, ..MemorySettings::default() };
    let settings = Settings { memory, ..Settings::default() };
    driver.set_threads(settings.threads());
    let state = Loop {
        setup: Setup {
            shared,
            execution: Execution { driver, options: parts.execution },
            catalog: Arc::default(),
            settings,
        },
        tasks: Tasks::new(parts.runtime.handle().clone(), events),
        clock: Clock::start(MonotonicClock::new(parts.time)),
        measures: Measures::new(parts.listeners, parts.recorder, parts.history),
        memory: Memory::new(parts.spill),
        tables: BaseTables { sequences: parts.sequences, ..BaseTables::default() },
        sources: Sources::default(),
        queries: QueryGraph::default(),
        outputs: Outputs::default(),
        watermarks: Watermarks::default(),
        waiters: Waiters::default(),
        durability: if parts.recovers { Durability::recovering() } else { Durability::default() },
    };
    (state, [parts.runtime, parts.steps])
}

impl Loop {
    /// Runs until the engine stops: closes everything outside, and only then replies to the requests to stop.
    fn run(mut self, inbox: &Receiver<Event>) {
        while !self.waiters.ending.is_over {
            if !self.durability.is_recovering() {
                self.measures.listeners.tell_start(|| self.clock.now(&self.setup.settings));
            }
            let wake_at = self
                .schedule()
                .wake_at()
                .into_iter()
                .chain(self.waiters.observations_end(&self.clock))
                .chain(self.flow_control().checkpoint_wakes())
                .chain(self.tables.next_piece())
                .chain(self.tables.reserved.looks())
                .chain(self.waiters.looks_at_changes(&self.durability))
                .chain(
                    self.waiters
                        .reads_may_wait()
                        .then(|| self.flow_control().reads_wait())
                        .flatten()
                        .flatten(),
                )
                .min();
            match next_event(&mut self.durability, &self.queries, inbox, wake_at) {
                Ok(event) => self.react(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for event in inbox.try_iter().take(EVENTS_MAX) {
                self.react(event);
            }
            self.work();
        }
        end_journal(&mut self.durability, self.clock.epoch);
        // Ends the readers and threads of queries in backfill.
        drop((self.sources, self.outputs.sinks, self.queries));
        self.tasks.wait();
        self.waiters.ending.replies.into_iter().for_each(|reply| reply.send(Ok(())));
    }

    /// Dispatches an event.
    fn react(&mut self, event: Event) {
        let event = self.tasks.under_its_name(event);
        let Some(event) = self.admission().admit(event) else { return };
        match event {
            Event::Ask(question) => self.read_view().answer(question),
            Event::Change { base, changes, entry, reply } => {
                self.changes().change(base, changes, *entry, reply)
            }
            Event::Apart(asked) => self.serve(asked),
            Event::Replace(replacing) => self.changes().replace(*replacing),
            Event::Subscribe { base, request, reply } => reply.send(self.subscribe(base, request)),
            Event::Room | Event::Stepped => {}
            Event::Unsubscribe { subscription } => self.delivery().unsubscribe(subscription),
            Event::AdvanceSubscription { name, through: to, reply } => {
                self.outputs.advance(&mut self.durability, &self.queries, self.clock.epoch, &name, to, reply);
            }
            Event::SaveSequences { reply } => {
                let epoch = self.clock.epoch;
                save_sequences(&self.tables.sequences, &mut self.durability, epoch, reply);
            }
            Event::Modify { modification, idempotency_key: key, reply } => {
                self.modify(modification, key, reply)
            }
            Event::Recover { step, reply } => self.recover(step, reply),
            Event::Journal(report) => self.durability.journal_reports(report),
            Event::Checkpoint { reply } => self.durability.request_checkpoint(reply),
            Event::Checkpointed { through, stopped, took, written } => {
                self.durability.checkpointed(self.clock.system.now(), through, stopped, took, written);
                self.measures.hear_checkpoint(self.durability.checkpoints.told.back());
            }
            Event::ReadAt { transaction, relations, stamped, reply } => {
                self.read_soon(relations, stamped, Some(transaction), reply);
            }
            Event::Commit { writes, idempotency_key, reply } => self.commit(writes, idempotency_key, reply),
            Event::Release { transaction } => self.outputs.transactions.release(transaction),
            Event::Read { relations, stamped, reply } => self.read_soon(relations, stamped, None, reply),
            Event::Compile { plan, reply } => reply.send(self.compile_with_content(&plan)),
            Event::Begin { reply } => reply.send(Ok(self.pins().begin())),
            Event::Pin { view, reply } => reply.send(self.pins().pin(&view)),
            Event::PinLate { view, rows, reply } => reply.send(self.pins().pin_late(&view, &rows)),
            Event::Correct { correction, reply } => {
                correct(&mut self.queries, &self.durability, &self.setup.settings, *correction, reply)
            }
            Event::Set { name, value, reply } => self.set(name, value, reply),
            Event::Advance { advance, reply } => self.clock.advance(&self.setup.settings, advance, reply),
            Event::Flush { reply } => self.answers().flush(reply),
            Event::Hold(held) => self.clock.held = held,
            Event::Replay { record, reply } => self.replay(*record, reply),
            Event::Arrived { source, ticket, result, at } => self.take_answer(&source, ticket, result, at),
            Event::Jump { source, to, reply } => self.sources.jump(&self.durability, &source, to, reply),
            Event::Jumped { source, result, reply } => self.sources.jumped(&source, result, reply),
            Event::Replayed { source, result } => self.replay_on(Some((&source, result))),
            Event::CaughtUp { query, source, piece, permit } => {
                self.starts().caught_up(&query, &source, piece, permit)
            }
            Event::Sink { sink, report } => {
                self.measures.hear_sink(&mut self.outputs, &sink, &report);
                self.outputs.hear(&mut self.durability, &sink, report);
            }
            Event::Pause { name, pause, replayed, reply } => {
                self.changes().pause_durably(name, pause, replayed, reply)
            }
            Event::Observe { name, epochs, time, reply } => {
                self.waiters.observe(&self.queries, &self.setup.catalog, &name, epochs, time, reply);
            }
            Event::Exists { names, reply } => self.waiters.existing.push((names, reply)),
            Event::Finished { reply } => self.waiters.finished.push(reply),
            Event::Stop { reply, gracefully } => self.waiters.ending.ask(reply, gracefully),
        }
    }

    /// Handles a source's answer to a pull.
    fn take_answer(&mut self, source: &Arc<str>, ticket: u64, result: Result<Arrival>, at: Instant) {
        self.measures.hear_answer(&self.sources, source, &result);
        let (manual, limit, now) = (
            self.clock.is_collecting(),
            self.sources.budget.limit(&self.setup.settings),
            self.clock.now(&self.setup.settings),
        );
        if let Some(source) = current(&mut self.sources, source) {
            source.answer(ticket, result, manual, limit, &self.setup.settings, now);
        }
        if self.sources.rows_wait(&HeldBack::new()) {
            self.measures.rows_wait_since(at);
        }
    }

    /// Does everything that is due.
    fn work(&mut self) {
        self.take_waiting();
        self.steps().take_steps();
        self.starts().take_past_pieces();
        take_differences(&mut self.outputs.successors);
        loop {
            self.retry_deferred();
            self.starts().start_queries();
            if !self.steps().bring_back() {
                break;
            }
        }
        self.changes().finish_successors();
        self.steps().intake().apply_pieces();
        self.changes().share_parts();
        if self.durability.holds_back() {
            return self.stand_by();
        }
        if self.clock.system.has_leapt() {
            self.clock.miss_batches(&mut self.queries, &mut self.durability, &self.setup.settings);
        }
        self.advance_clock();
        let begun = Instant::now();
        for ran in 0..EPOCHS_MAX {
            let long = self.setup.settings.clock == ClockKind::System && begun.elapsed() > EPOCHS_TIME;
            if !self.schedule().epoch_is_due() || (ran > 0 && long) {
                break;
            }
            self.run_epoch();
            self.memory.keep_within(&mut self.queries, &mut self.tables, &self.setup.settings);
            self.waiters.answer_observations(
                &mut self.clock,
                &self.queries,
                &self.tables,
                &self.sources,
                &self.setup.settings,
            );
            self.advance_clock();
        }
        self.memory.keep_within(&mut self.queries, &mut self.tables, &self.setup.settings);
        self.sources.pull(&self.waiters, &self.durability, &self.setup.settings, &self.clock);
        self.steps().departures().let_leave();
        self.hand_out();
        self.durability.fail_checkpoints();
        self.take_checkpoint();
        self.admission().retry_waiting();
        // Reads and steps that the checkpoint delayed.
        self.answer_reads();
        self.steps().begin_steps();
        // Events that waited for tables to take in changes.
        self.retry_deferred();
    }

    /// Does the same while no epoch may be decided.
    fn stand_by(&mut self) {
        self.memory.keep_within(&mut self.queries, &mut self.tables, &self.setup.settings);
        if self.durability.is_recovering() {
            self.starts().arrive_again();
            self.steps().go_on_rebuilding();
            self.outputs.skip_delivered();
            self.outputs.trim_logs(&self.queries);
            return self.answer_waiters();
        }
        self.hand_out();
        self.durability.fail_checkpoints();
        self.admission().retry_waiting();
    }

    /// Delivers all results so far to readers, sinks and waiting statements.
    fn hand_out(&mut self) {
        self.answer_reads();
        self.steps().begin_steps();
        self.answer_reads();
        self.outputs.deliver_sinks(&self.durability, false);
        self.outputs.expire_subscriptions(&self.clock);
        self.delivery().deliver_subscriptions();
        self.outputs.transactions.expire(&self.outputs.logs, &self.setup.settings, self.clock.epoch);
        self.outputs.trim_logs(&self.queries);
        let states = || state_sizes(&self.queries);
        self.measures.look(&self.setup.settings, &self.sources, &self.watermarks, states);
        self.measures.progress = self.read_view().progress();
        self.setup.publish_progress(&self.measures.progress);
        self.answer_waiters();
        self.measures.hear_deliveries(&mut self.outputs);
    }
}

fn next_event(
    durability: &mut Durability,
    queries: &Queries,
    inbox: &Receiver<Event>,
    wake_at: Option<Instant>,
) -> Result<Event, RecvTimeoutError> {
    if let Ok(event) = inbox.try_recv() {
        return Ok(event);
    }
    let wait = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
    if wait.is_none_or(|wait| !wait.is_zero()) {
        note_stepped(durability, queries);
    }
    match wait {
        None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(wait) => inbox.recv_timeout(wait),
    }
}

/// The empty change.
static NOTHING: Delta = Delta { chunks: Vec::new() };

/// Returns the object that sent an event. A dropped object may still send events, and another may have its name by now.
/// Each object has its own copy of its name.
fn current<'a, T>(objects: &'a mut BTreeMap<Arc<str>, T>, name: &Arc<str>) -> Option<&'a mut T> {
    let (key, _) = objects.get_key_value(name)?;
    if Arc::ptr_eq(key, name) { objects.get_mut(name) } else { None }
}
