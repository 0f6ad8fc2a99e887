//! Durability: the loop journals its decisions, and keeps a promise only once its entries are durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millstream_delta::{Cut, Delta, Epoch};
use millstream_durable::protocol::{End, Ledger};
use millstream_durable::{
    Brought, Delivered, Digested, Entry, Journal, Recorded, Report, Sequence, Standing,
};
use millstream_sql::{Error, Result};

use super::checkpoint::Taking;
use super::crash_notes::CrashNotes;
use super::ddl_log::{DdlChanges, DdlLog};
use super::rename::Names;
use crate::catalog::move_key;
use crate::event::{Live, Reply};
use crate::run::Restoration;
use crate::run::clock::Clock;
use crate::sequences::Sequences;
use crate::settings::Settings;

/// Most bytes that may wait to be written; beyond these, no epoch is decided.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A function that is called when an entry is durable, or never will be.
type Promise = Box<dyn FnOnce(Result<()>) + Send>;

/// The way in which an engine keeps its decisions.
#[derive(Default)]
enum Keeping {
    /// In memory only.
    #[default]
    Nothing,
    /// In a journal; the statements of a checkpoint are repeated, before its state is loaded.
    Loading,
    /// In a journal that is being replayed.
    Recovering,
    /// In a journal.
    Journal(Journal),
}

/// The reason why nothing is written any more.
#[derive(Clone, Debug)]
enum Failure {
    /// The content of the disk is unknown.
    Disk(String),
    /// Another process has taken over the data directory.
    Lost(String),
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Failure::Disk(reason) | Failure::Lost(reason) => reason,
        }
    }

    /// Returns the error for a request that changes something.
    fn refusal(&self) -> Error {
        let error = Error::external(format!("the engine no longer accepts input, since {}", self.reason()));
        error.hint(match self {
            Failure::Disk(_) => "Fix the disk and restart the engine: it recovers from what is on disk.",
            Failure::Lost(_) => "This engine stops. Connect to the other one.",
        })
    }

    /// Returns the error for a promise that can't be kept.
    fn broken_promise(&self) -> Error {
        match self {
            Failure::Disk(reason) => {
                Error::external(format!("it is unknown whether this change is durable: {reason}"))
                    .hint("The engine no longer accepts input. Restart it: it recovers from what is on disk.")
            }
            Failure::Lost(reason) => {
                Error::external(format!("this change was not made durable, since {reason}"))
                    .hint("This engine stops. Connect to the other one.")
            }
        }
    }
}

/// The journal, and the promises that wait for it.
#[derive(Default)]
pub(crate) struct Durability {
    keeping: Keeping,
    /// True if queries that begin in the replayed entry take in the content of their inputs at once.
    pub(super) begins_at_once: bool,
    promised: VecDeque<(Sequence, Promise)>,
    /// The durable entries and epochs.
    ledger: Ledger,
    /// The last entry that the journal reported as durable.
    written: Sequence,
    /// The reason why nothing can be written for now.
    waits: Option<String>,
    /// The reason why nothing is written any more.
    failed: Option<Failure>,
    /// The deliveries of sinks since the last entry that records them.
    delivered: BTreeMap<Arc<str>, (Epoch, Vec<Digested>)>,
    /// The idempotency names of executed statements.
    named: NamedStatements,
    /// The entries that created the present objects and settings.
    ddl_log: DdlLog,
    pub(super) checkpoints: Taking,
    pub(super) crash_notes: CrashNotes,
}

/// The idempotency names of executed statements.
#[derive(Debug, Default)]
struct NamedStatements {
    /// The names since the last entry that records them.
    new: Vec<String>,
    all: BTreeSet<String>,
}

impl Durability {
    /// Returns the state of an engine that replays its journal first.
    pub(super) fn recovering() -> Durability {
        Durability { keeping: Keeping::Loading, ..Durability::default() }
    }

    /// Returns true if the engine survives a crash.
    pub(super) fn is_on(&self) -> bool {
        !matches!(self.keeping, Keeping::Nothing)
    }

    /// Returns true if the journal is being replayed.
    pub(super) fn is_recovering(&self) -> bool {
        matches!(self.keeping, Keeping::Loading | Keeping::Recovering)
    }

    /// Returns the reason why nothing is written any more, if so.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.as_ref().map(Failure::reason)
    }

    /// Returns true if another process has taken over the data directory. The engine then ends.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.failed, Some(Failure::Lost(_)))
    }

    /// Returns a sentence about the present trouble.
    pub(super) fn trouble(&self) -> Option<String> {
        match (&self.failed, &self.waits) {
            (Some(Failure::Disk(reason)), _) => {
                Some(format!("the engine no longer accepts input, since {reason}: restart the engine"))
            }
            (Some(Failure::Lost(reason)), _) => Some(format!("this engine stops, since {reason}")),
            (None, Some(reason)) => Some(format!("{reason}: retrying")),
            (None, None) => None,
        }
    }

    /// Returns true if no epoch may be decided now.
    pub(super) fn holds_back(&self) -> bool {
        let waiting = match &self.keeping {
            Keeping::Nothing => return false,
            Keeping::Loading | Keeping::Recovering => return true,
            Keeping::Journal(journal) => journal.waiting_bytes(),
        };
        !self.ledger.may_decide() || waiting > WAITING_BYTES_MAX
    }

    /// Returns true if an epoch may be delivered outside.
    pub(super) fn may_deliver(&self, epoch: Epoch) -> bool {
        match self.keeping {
            Keeping::Nothing => true,
            Keeping::Loading | Keeping::Recovering => false,
            Keeping::Journal(_) => self.ledger.may_deliver(epoch),
        }
    }

    /// Returns the newest epoch up to this one that may be delivered outside.
    pub(super) fn deliverable(&self, epoch: Epoch) -> Epoch {
        match self.keeping {
            Keeping::Nothing => epoch,
            Keeping::Loading | Keeping::Recovering => Epoch::default(),
            Keeping::Journal(_) => epoch.min(self.ledger.durable()),
        }
    }

    /// Returns true if a statement of this name was executed.
    pub(super) fn was_done(&self, name: &str) -> bool {
        self.named.all.contains(name)
    }

    /// Remembers the name of an executed statement, from the next entry on.
    pub(super) fn record_idempotency_key(&mut self, name: Option<String>) {
        if self.is_on() {
            self.named.all.extend(name.clone());
            self.named.new.extend(name);
        }
    }

    /// The same for statements of a replayed entry.
    pub(super) fn were_done(&mut self, names: Vec<String>) {
        self.named.all.extend(names);
    }

    /// Renames sinks in the deliveries.
    pub(super) fn rename_delivered(&mut self, names: &Names) {
        names.iter().for_each(|(from, to)| move_key(&mut self.delivered, from, to));
    }

    /// Appends an entry. `epoch` is the newest epoch.
    pub(super) fn append(&mut self, entry: Entry, epoch: Epoch) {
        if let Keeping::Journal(journal) = &mut self.keeping {
            let sequence = journal.append(entry);
            self.ledger.append(sequence, epoch);
        }
    }

    /// Returns true if bytes wait to be written.
    pub(super) fn is_writing(&self) -> bool {
        matches!(&self.keeping, Keeping::Journal(journal) if journal.waiting_bytes() > 0)
    }

    pub(super) fn last(&self) -> Option<Sequence> {
        if let Keeping::Journal(journal) = &self.keeping { Some(journal.last()) } else { None }
    }

    /// Returns the last entry that is known to be durable.
    pub(super) fn written(&self) -> Sequence {
        self.written
    }

    /// Returns the entries that a checkpoint holds, and the names of executed statements.
    pub(super) fn catalog_entries(&self) -> (Vec<Entry>, Vec<String>) {
        (self.ddl_log.entries(), self.named.all.iter().cloned().collect())
    }

    /// Returns the steps that created the present objects.
    pub(super) fn ddl_log(&self) -> &DdlLog {
        &self.ddl_log
    }

    /// Removes the part of the journal that no start needs.
    pub(super) fn forget(&self, through: Sequence) {
        if let Keeping::Journal(journal) = &self.keeping {
            journal.forget(through);
        }
    }

    /// Returns true if an entry is durable.
    pub(super) fn has(&self, entry: Option<Sequence>) -> bool {
        entry.is_none_or(|entry| self.ledger.has(entry))
    }

    /// Calls `promise` once everything journalled so far is durable; at once if nothing waits.
    pub(super) fn when_durable(&mut self, promise: impl FnOnce(Result<()>) + Send + 'static) {
        match (&self.failed, &self.keeping) {
            (Some(failure), _) => promise(Err(failure.broken_promise())),
            (None, Keeping::Journal(journal)) if !self.ledger.has_all() => {
                self.promised.push_back((journal.last(), Box::new(promise)));
            }
            (None, _) => promise(Ok(())),
        }
    }

    fn are_durable(&mut self, through: Sequence) {
        self.waits = None;
        self.written = through;
        self.ledger.are_durable(through);
        let ledger = &self.ledger;
        while let Some((_, promise)) = self.promised.pop_front_if(|(entry, _)| ledger.has(*entry)) {
            promise(Ok(()));
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.ledger.end(match failure {
            Failure::Disk(_) => End::Failed,
            Failure::Lost(_) => End::Lost,
        });
        for (_, promise) in self.promised.drain(..) {
            promise(Err(failure.broken_promise()));
        }
        self.failed.get_or_insert(failure);
    }

    /// Sets the time between two writes of the journal.
    pub(super) fn set_interval(&self, interval: Option<Duration>) {
        if let Keeping::Journal(journal) = &self.keeping {
            journal.set_interval(interval);
        }
    }

    /// Takes the deliveries of sinks and the names of statements since the last entry that records them.
    fn changes(&mut self) -> (Vec<Delivered>, Vec<String>) {
        let delivered = std::mem::take(&mut self.delivered).into_iter();
        let delivered = delivered.map(|(sink, (through, digests))| Delivered { sink, through, digests });
        (delivered.collect(), std::mem::take(&mut self.named.new))
    }
}

impl Restoration<'_> {
    /// Ends the recovery. From here on decisions are journalled.
    pub(super) fn go_live(&mut self, live: Live) {
        let Live { journal, checkpoints, last } = live;
        self.durability.checkpoints.start(checkpoints, last);
        self.clock.fixed_time = None;
        self.durability.ledger = Ledger::after(self.clock.epoch);
        self.durability.written = journal.last();
        self.durability.keeping = Keeping::Journal(journal);
        self.durability.set_interval(self.setup.settings.durability.journal_interval);
        for source in self.sources.values_mut() {
            source.go_on();
        }
        let epoch = self.clock.epoch;
        self.outputs.sinks.values_mut().for_each(|sink| sink.go_on(epoch));
        self.outputs.check_sinks(self.durability);
        self.clock.catch_up();
        self.clock.system.begin_after(self.clock.last());
        self.durability.crash_notes.go_live(self.durability.last().unwrap_or_default());
        let opened = Entry::Opened {
            version: env!("CARGO_PKG_VERSION").into(),
            at: self.clock.now(&self.setup.settings),
        };
        self.durability.append(opened, self.clock.epoch);
        self.clock.miss_batches(self.queries, self.durability, &self.setup.settings);
    }
}

impl Durability {
    /// Returns an error if nothing is accepted any more because nothing can be written.
    pub(super) fn check_journal(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |failure| Err(failure.refusal()))
    }

    /// Remembers a delivery of a sink.
    pub(super) fn note_delivered(&mut self, sink: &Arc<str>, through: Epoch, digests: Vec<Digested>) {
        if self.is_on() {
            let changes = self.delivered.entry(sink.clone()).or_default();
            changes.0 = through;
            changes.1.extend(digests);
        }
    }

    /// Handles a report of the journal.
    pub(super) fn journal_reports(&mut self, report: Report) {
        match report {
            Report::Durable(through) => self.are_durable(through),
            Report::Waits(reason) => {
                // It is reported at each attempt.
                if self.waits.as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "the journal can't be written, retrying");
                }
                self.waits = Some(reason);
            }
            Report::Failed(reason) => {
                tracing::error!(%reason, "the journal failed");
                self.fail(Failure::Disk(reason));
            }
            Report::Lost(reason) => {
                tracing::error!(%reason, "another process has taken over the journal");
                self.fail(Failure::Lost(reason));
            }
        }
    }
}

/// Returns true while the statements of a checkpoint are repeated: no object has rows yet.
pub(super) fn is_loading(durability: &Durability) -> bool {
    matches!(durability.keeping, Keeping::Loading)
}

/// Ends the load of the checkpoint, if there was one: from here on, the journal is replayed.
pub(super) fn end_loading(durability: &mut Durability) {
    durability.keeping = Keeping::Recovering;
}

/// Ends the journal with the last deliveries of sinks.
pub(super) fn end_journal(durability: &mut Durability, epoch: Epoch) {
    let (delivered, _) = durability.changes();
    durability.append(Entry::Closed { delivered }, epoch);
    durability.note_end();
    durability.keeping = Keeping::Nothing;
}

/// Journals a decided epoch.
pub(super) fn journal_epoch(
    durability: &mut Durability,
    epoch: Epoch,
    cut: &Cut,
    changes: &[(Arc<str>, Delta)],
    brought: Vec<Brought>,
) {
    if !matches!(durability.keeping, Keeping::Journal(_)) {
        return;
    }
    let (delivered, done) = durability.changes();
    let recorded = Recorded { cut: cut.clone(), changes: changes.to_vec(), brought, done, delivered };
    durability.append(Entry::Epoch(Box::new(recorded)), epoch);
    durability.step_carefully();
}

/// Journals the sequences that moved on.
pub(super) fn journal_sequences(sequences: &Sequences, durability: &mut Durability, epoch: Epoch) {
    for value in sequences.take_unsaved() {
        durability.append(Entry::Sequence(value), epoch);
    }
}

/// Journals the sequences that moved on. Answers once their numbers survive a crash.
pub(super) fn save_sequences(
    sequences: &Sequences,
    durability: &mut Durability,
    epoch: Epoch,
    reply: Reply<()>,
) {
    if let Err(error) = durability.check_journal() {
        return reply.send(Err(error));
    }
    journal_sequences(sequences, durability, epoch);
    durability.when_durable(move |done| reply.send(done));
}

/// Remembers and journals a setting or a pause.
pub(super) fn journal_state(durability: &mut Durability, epoch: Epoch, entry: Entry) {
    durability.ddl_log.state(entry.clone());
    if durability.is_on() {
        durability.append(entry, epoch);
    }
}

/// Remembers the objects that a group of changes created, with their entry in the journal.
pub(super) fn note_ddl(durability: &mut Durability, standing: Standing, ddl: DdlChanges, entry: &Entry) {
    durability.ddl_log.change(ddl, entry, standing);
}

/// Gives a group of changes an epoch of its own, by which sinks identify its output, and journals it.
pub(super) fn begin_change(
    clock: &mut Clock,
    durability: &mut Durability,
    settings: &Settings,
    mut entry: Entry,
    ddl: DdlChanges,
    begins_apart: bool,
) {
    if !durability.is_on() || durability.is_recovering() {
        let standing = clock.standing(settings);
        return note_ddl(durability, standing, ddl, &entry);
    }
    clock.epoch = clock.epoch.next();
    let standing = Standing { begins_apart, ..clock.standing(settings) };
    match &mut entry {
        Entry::Changed { standing: at, done, .. } => {
            *at = standing;
            durability.were_done(done.clone());
        }
        Entry::TableMade { standing: at, .. } => *at = standing,
        _ => {}
    }
    clock.fixed_time = Some(standing.now);
    let standing = clock.standing(settings);
    note_ddl(durability, standing, ddl, &entry);
    durability.append(entry, clock.epoch);
}
