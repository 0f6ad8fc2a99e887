//! What the loop does so that it survives a crash: it journals what it decides, and keeps promises only once the journal
//! says that what they rest on is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millstream_delta::{Cut, Delta, Epoch, Timestamp};
use millstream_durable::protocol::{End, Ledger};
use millstream_durable::{
    Brought, Delivered, Digested, Entry, Journal, Recorded, Report, Sequence, Standing,
};
use millstream_sql::{Error, Result};

use super::Loop;
use super::made::{Made, News};
use super::rename::Names;
use crate::catalog::move_key;
use crate::event::Live;

/// How many bytes may wait to be written before no more epochs are decided.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What is done when an entry is durable, or never will be.
type Promise = Box<dyn FnOnce(Result<()>) + Send>;

/// How an engine keeps what it decides.
#[derive(Default)]
enum Keeping {
    /// It doesn't: it lives in memory.
    #[default]
    Nothing,
    /// What the journal holds is being done again.
    Recovering,
    /// It journals.
    Journal(Journal),
}

/// Why nothing is written any more.
#[derive(Clone, Debug)]
enum Failure {
    /// Nobody knows what is there.
    Disk(String),
    /// Another process goes on from what is there.
    Lost(String),
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Failure::Disk(reason) | Failure::Lost(reason) => reason,
        }
    }

    /// What someone hears who wants something to be changed.
    fn refusal(&self) -> Error {
        let error = Error::external(format!("nothing more is taken in, since {}", self.reason()));
        error.hint(match self {
            Failure::Disk(_) => "Mend the disk and restart the engine: it goes on from what is there.",
            Failure::Lost(_) => "This engine ends. Ask the other one.",
        })
    }

    /// What someone hears who was promised something.
    fn broken_promise(&self) -> Error {
        match self {
            Failure::Disk(reason) => Error::external(format!("nobody knows whether this survives: {reason}"))
                .hint("Nothing more is taken in. Restart the engine: it goes on from what is there."),
            Failure::Lost(reason) => Error::external(format!("this was not kept, since {reason}"))
                .hint("This engine ends. Ask the other one."),
        }
    }
}

/// What is journalled, and what waits for that.
#[derive(Default)]
pub(crate) struct Durability {
    keeping: Keeping,
    /// The time, while something is done that the journal gives a time of its own.
    pub(super) at: Option<Timestamp>,
    /// Whether queries that begin in the entry that is done again take in at once what their inputs hold.
    pub(super) begins_at_once: bool,
    promised: VecDeque<(Sequence, Promise)>,
    /// What is durable.
    ledger: Ledger,
    /// The last entry that the journal says is durable.
    written: Sequence,
    /// Why nothing can be written for now.
    waits: Option<String>,
    /// Why nothing is written any more.
    failed: Option<Failure>,
    /// What sinks have published since the last entry that told it.
    delivered: BTreeMap<Arc<str>, (Epoch, Vec<Digested>)>,
    /// The names under which statements were done since then.
    doing: Vec<String>,
    /// All such names.
    done: BTreeSet<String>,
    /// What made the objects that are there, and set what is set.
    made: Made,
}

impl Durability {
    /// Of an engine whose journal is read first.
    pub(super) fn recovering() -> Durability {
        Durability { keeping: Keeping::Recovering, ..Durability::default() }
    }

    /// Whether the engine survives a crash.
    pub(super) fn is_on(&self) -> bool {
        !matches!(self.keeping, Keeping::Nothing)
    }

    /// Whether what the journal holds is being done again.
    pub(super) fn is_recovering(&self) -> bool {
        matches!(self.keeping, Keeping::Recovering)
    }

    /// Why nothing is written any more, where that is so.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failed.as_ref().map(Failure::reason)
    }

    /// Whether another process has what this engine kept: then it ends.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.failed, Some(Failure::Lost(_)))
    }

    /// What is wrong, in a sentence.
    pub(super) fn trouble(&self) -> Option<String> {
        match (&self.failed, &self.waits) {
            (Some(Failure::Disk(reason)), _) => {
                Some(format!("nothing more is taken in, since {reason}: restart the engine"))
            }
            (Some(Failure::Lost(reason)), _) => Some(format!("this engine ends, since {reason}")),
            (None, Some(reason)) => Some(format!("{reason}: it is tried again")),
            (None, None) => None,
        }
    }

    /// Whether no epoch may be decided now.
    pub(super) fn holds_back(&self) -> bool {
        let waiting = match &self.keeping {
            Keeping::Nothing => return false,
            Keeping::Recovering => return true,
            Keeping::Journal(journal) => journal.waiting_bytes(),
        };
        !self.ledger.may_decide() || waiting > WAITING_BYTES_MAX
    }

    /// Whether an epoch may be shown outside.
    pub(super) fn may_deliver(&self, epoch: Epoch) -> bool {
        match self.keeping {
            Keeping::Nothing => true,
            Keeping::Recovering => false,
            Keeping::Journal(_) => self.ledger.may_deliver(epoch),
        }
    }

    /// The newest epoch up to this one that may be shown outside.
    pub(super) fn deliverable(&self, epoch: Epoch) -> Epoch {
        match self.keeping {
            Keeping::Nothing => epoch,
            Keeping::Recovering => Epoch::default(),
            Keeping::Journal(_) => epoch.min(self.ledger.durable()),
        }
    }

    /// Whether a statement was done under a name.
    pub(super) fn was_done(&self, name: &str) -> bool {
        self.done.contains(name)
    }

    /// Remembers that a statement was done under a name, from the next entry on.
    pub(super) fn do_once(&mut self, name: Option<String>) {
        if self.is_on() {
            self.done.extend(name.clone());
            self.doing.extend(name);
        }
    }

    /// The same of statements whose entry is read.
    pub(super) fn were_done(&mut self, names: Vec<String>) {
        self.done.extend(names);
    }

    /// Sinks are called otherwise from now on.
    pub(super) fn rename_delivered(&mut self, names: &Names) {
        names.iter().for_each(|(from, to)| move_key(&mut self.delivered, from, to));
    }

    /// Adds an entry, `epoch` being the newest one by now.
    fn append(&mut self, entry: Entry, epoch: Epoch) {
        if let Keeping::Journal(journal) = &mut self.keeping {
            let sequence = journal.append(entry);
            self.ledger.append(sequence, epoch);
        }
    }

    /// Whether something waits to be written.
    pub(super) fn is_writing(&self) -> bool {
        matches!(&self.keeping, Keeping::Journal(journal) if journal.waiting_bytes() > 0)
    }

    /// The number of the newest entry.
    pub(super) fn last(&self) -> Option<Sequence> {
        if let Keeping::Journal(journal) = &self.keeping { Some(journal.last()) } else { None }
    }

    /// The last entry that is known to be durable.
    pub(super) fn written(&self) -> Sequence {
        self.written
    }

    /// The entries that a checkpoint holds, and the names under which statements were done.
    pub(super) fn made(&self) -> (Vec<Entry>, Vec<String>) {
        (self.made.entries(), self.done.iter().cloned().collect())
    }

    /// The steps that made what is there.
    pub(super) fn steps(&self) -> &Made {
        &self.made
    }

    /// Removes what of the journal nobody reads any more.
    pub(super) fn forget(&self, through: Sequence) {
        if let Keeping::Journal(journal) = &self.keeping {
            journal.forget(through);
        }
    }

    /// Whether an entry is durable.
    pub(super) fn has(&self, entry: Option<Sequence>) -> bool {
        entry.is_none_or(|entry| self.ledger.has(entry))
    }

    /// Does something once all that was journalled so far is durable: at once where nothing is.
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

    /// How much time lies between two writes of the journal.
    fn set_interval(&self, interval: Option<Duration>) {
        if let Keeping::Journal(journal) = &self.keeping {
            journal.set_interval(interval);
        }
    }

    /// What sinks have published, and which statements were done, since the last entry that told it.
    fn news(&mut self) -> (Vec<Delivered>, Vec<String>) {
        let delivered = std::mem::take(&mut self.delivered).into_iter();
        let delivered = delivered.map(|(sink, (through, digests))| Delivered { sink, through, digests });
        (delivered.collect(), std::mem::take(&mut self.doing))
    }
}

impl Loop {
    /// Fails where nothing is taken in any more, since nothing can be written.
    pub(super) fn check_journal(&self) -> Result<()> {
        self.durability.failed.as_ref().map_or(Ok(()), |failure| Err(failure.refusal()))
    }

    /// The last epoch and the time now; queries that begin may do so apart.
    pub(super) fn standing(&self) -> Standing {
        Standing { epoch: self.epoch, now: self.now(), begins_apart: true }
    }

    /// Remembers what a group of changes made, by the entry that the journal has of it.
    pub(super) fn note_made(&mut self, news: News, entry: &Entry) {
        let standing = self.standing();
        self.durability.made.change(news, entry, standing);
    }

    /// Remembers, and journals, what is set or paused.
    pub(super) fn journal_state(&mut self, entry: Entry) {
        self.durability.made.state(entry.clone());
        if self.durability.is_on() {
            self.journal(entry);
        }
    }

    /// Journals something that is done between two epochs.
    pub(super) fn journal(&mut self, entry: Entry) {
        self.durability.append(entry, self.epoch);
    }

    /// Journals an epoch that is decided.
    pub(super) fn journal_epoch(&mut self, cut: &Cut, changes: &[(Arc<str>, Delta)], brought: Vec<Brought>) {
        if !matches!(self.durability.keeping, Keeping::Journal(_)) {
            return;
        }
        let (delivered, done) = self.durability.news();
        let recorded = Recorded { cut: cut.clone(), changes: changes.to_vec(), brought, done, delivered };
        self.journal(Entry::Epoch(Box::new(recorded)));
        self.step_carefully();
    }

    /// Remembers what a sink has published.
    pub(super) fn note_delivered(&mut self, sink: &Arc<str>, through: Epoch, digests: Vec<Digested>) {
        if self.durability.is_on() {
            let news = self.durability.delivered.entry(sink.clone()).or_default();
            news.0 = through;
            news.1.extend(digests);
        }
    }

    /// What the journal says.
    pub(super) fn journal_reports(&mut self, report: Report) {
        match report {
            Report::Durable(through) => self.durability.are_durable(through),
            Report::Waits(reason) => {
                tracing::warn!(%reason, "the journal waits");
                self.durability.waits = Some(reason);
            }
            Report::Failed(reason) => {
                tracing::error!(%reason, "the journal failed");
                self.durability.fail(Failure::Disk(reason));
            }
            Report::Lost(reason) => {
                tracing::error!(%reason, "the journal is another process's");
                self.durability.fail(Failure::Lost(reason));
            }
        }
    }

    /// Writes the journal at the pace that is set.
    pub(super) fn pace_journal(&self) {
        self.durability.set_interval(self.settings.journal_interval);
    }

    /// Ends the recovery: from here on what is decided is journalled.
    pub(super) fn go_live(&mut self, live: Live) {
        let Live { journal, checkpoints, last } = live;
        self.taking.start(checkpoints, last);
        self.durability.at = None;
        self.durability.ledger = Ledger::after(self.epoch);
        self.durability.written = journal.last();
        self.durability.keeping = Keeping::Journal(journal);
        self.pace_journal();
        for source in self.sources.values_mut() {
            source.go_on();
        }
        let epoch = self.epoch;
        self.sinks.values_mut().for_each(|sink| sink.go_on(epoch));
        self.check_sinks();
        self.clock.catch_up();
        self.machine.begin_after(self.clock.last());
        self.doing.go_live(self.durability.last().unwrap_or_default());
        let opened = Entry::Opened { version: env!("CARGO_PKG_VERSION").into(), at: self.now() };
        self.journal(opened);
        self.miss_batches();
        // What had read all of the past before the crash, but was not noted to have come to the present.
        self.arrive_all();
        self.stage_all_again();
    }

    /// Ends the journal, with what sinks have published last.
    pub(super) fn end_journal(&mut self) {
        let (delivered, _) = self.durability.news();
        self.journal(Entry::Closed { delivered });
        self.note_end();
        self.durability.keeping = Keeping::Nothing;
    }
}
