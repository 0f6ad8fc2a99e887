//! Checkpoints: the loop collects the state between two epochs, and a thread writes it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use millstream_delta::{Epoch, Timestamp, spawn_detached};
use millstream_durable::{Checkpoint, Checkpoints, Sequence, Size};
use millstream_sql::{Error, Result};

use super::Loop;
use super::durable::Durability;
use super::query::RunningQuery;
use super::saving::{is_unsettled, is_unsettled_here};
use super::sources::Sources;
use super::system::{Cell, Lines, NULL};
use super::tables::BaseTables;
use crate::error;
use crate::event::{Event, Reply};
use crate::run::flow_control::FlowControl;
use crate::settings::{ClockKind, Settings};

/// The number of checkpoints that are kept. If the newest is damaged, a start uses the one before it.
const KEPT: usize = 2;

/// Writing checkpoints takes at most one part in so many of the time.
const SHARE: u32 = 10;

/// Most checkpoints listed in `millstream.checkpoints`.
const TOLD_MAX: usize = 100;

/// A checkpoint since the engine was started, taken or failed.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) through: Sequence,
    pub(crate) epoch: Epoch,
    pub(crate) at: Timestamp,
    /// The time for which the loop stopped.
    pub(crate) stopped: Duration,
    /// The time until it was on disk.
    pub(crate) took: Duration,
    /// Its size, or the reason why it failed.
    pub(crate) written: Result<Size>,
}

#[derive(Debug, Default)]
pub(super) struct Taking {
    store: Option<Checkpoints>,
    /// The entry of the newest checkpoint, or of the start.
    last: Sequence,
    /// The time at which the newest one began.
    begun: Option<Instant>,
    /// True if one is being written.
    writing: bool,
    /// The newest epoch at that beginning.
    epoch: Epoch,
    /// The duration of the newest one.
    took: Duration,
    /// The requests for one that has not begun yet.
    wanted: Vec<Reply<()>>,
    /// The requests for the one that is being written.
    waiting: Vec<Reply<()>>,
    /// True if the engine ends after the next one.
    pub(super) ends: bool,
    pub(super) told: VecDeque<Taken>,
}

impl Taking {
    fn can_be_taken(&self) -> Result<()> {
        match self.store {
            Some(_) => Ok(()),
            None => Err(Error::invalid("there are no checkpoints without a data directory")
                .hint("Start with --data DIR.")),
        }
    }

    /// Starts with the checkpoints of a directory, the newest of which is of entry `last`.
    pub(super) fn start(&mut self, store: Checkpoints, last: Sequence) {
        self.store = Some(store);
        self.last = last;
        self.begun = Some(Instant::now());
    }

    /// Returns when the next one is due, provided that something has changed since.
    fn due(&self, interval: Duration) -> Option<Instant> {
        Some(self.begun? + interval.max(self.took * SHARE))
    }
}

/// The input of the thread that writes a checkpoint.
struct Writing {
    store: Checkpoints,
    checkpoint: Checkpoint,
    /// Receives a message once the journal holds all entries up to the checkpoint's.
    durable: Receiver<Result<()>>,
}

/// A checkpoint that a thread has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    size: Size,
    /// The entry up to which no checkpoint needs the journal.
    covered: Option<Sequence>,
}

impl Writing {
    fn write(self) -> Result<Written> {
        let Writing { store, checkpoint, durable } = self;
        let draft = store.draft(&checkpoint).map_err(error::durable)?;
        // The loop copies chunks of rows that it changes while the checkpoint refers to them.
        drop(checkpoint);
        durable.recv().unwrap_or_else(|_| Err(error::stopped()))?;
        let size = store.publish(draft).map_err(error::durable)?;
        let covered = store.retain(KEPT).unwrap_or_else(|error| {
            // They take room and do no harm. The next checkpoint tries again.
            tracing::warn!(%error, "obsolete checkpoints can't be removed");
            None
        });
        Ok(Written { size, covered })
    }
}

impl Loop {
    /// Begins a checkpoint if one is due.
    pub(super) fn take_checkpoint(&mut self) {
        let Some(store) =
            self.durability.checkpoints.store.clone().filter(|_| !self.durability.checkpoints.writing)
        else {
            return;
        };
        let Some(through) = self.durability.last() else { return };
        if through == self.durability.checkpoints.last {
            self.durability.checkpoints.wanted.drain(..).for_each(|reply| reply.send(Ok(())));
            return;
        }
        if !checkpoint_is_due(&self.durability, &self.setup.settings)
            || is_unsettled(&self.queries, &self.tables, &self.sources, &self.outputs, &self.waiters)
        {
            return;
        }
        let begun = Instant::now();
        (self.durability.checkpoints.begun, self.durability.checkpoints.epoch) =
            (Some(begun), self.clock.epoch);
        self.durability.checkpoints.waiting = std::mem::take(&mut self.durability.checkpoints.wanted);
        let checkpoint = match self.read_view().save(through) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                return self.durability.checkpointed(
                    self.clock.system.now(),
                    through,
                    begun.elapsed(),
                    Duration::ZERO,
                    Err(error),
                );
            }
        };
        let stopped = begun.elapsed();
        let (sender, durable) = channel();
        self.durability.when_durable(move |done| drop(sender.send(done)));
        let (writing, events) = (Writing { store, checkpoint, durable }, self.tasks.events.clone());
        let thread = std::thread::Builder::new().name("millstream-checkpoint".into());
        let thread = spawn_detached(thread, move || {
            let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writing.write()));
            let written = written.unwrap_or_else(|_| Err(Error::bug("writing a checkpoint panicked")));
            let _ = events.send(Event::Checkpointed { through, stopped, took: begun.elapsed(), written });
        });
        match thread {
            Ok(()) => self.durability.checkpoints.writing = true,
            Err(failed) => {
                let error = Error::external(format!("a thread can't be started: {failed}"));
                self.durability.checkpointed(
                    self.clock.system.now(),
                    through,
                    stopped,
                    Duration::ZERO,
                    Err(error),
                );
            }
        }
    }
}

impl FlowControl<'_> {
    /// Returns true if only queries that are stepped elsewhere block a checkpoint.
    pub(super) fn checkpoint_waits_for_steps(&self) -> bool {
        let news = self.durability.last().is_some_and(|last| last != self.durability.checkpoints.last);
        let can = news
            && self.durability.checkpoints.store.is_some()
            && !self.durability.checkpoints.writing
            && !self.durability.holds_back();
        can && checkpoint_is_due(self.durability, &self.setup.settings)
            && !is_unsettled_here(self.queries, self.tables, self.sources, self.outputs, self.waiters)
    }

    /// Returns when the next checkpoint is due, unless something blocks it: that wakes the loop when it ends.
    pub(super) fn checkpoint_wakes(&self) -> Option<Instant> {
        let due = checkpoint_is_due_at(self.durability, &self.setup.settings)
            .filter(|_| !self.durability.holds_back());
        due.filter(|due| {
            *due > Instant::now()
                || !is_unsettled(self.queries, self.tables, self.sources, self.outputs, self.waiters)
        })
    }
}

impl Durability {
    /// Requests a checkpoint that holds everything up to now; the reply waits for it.
    pub(super) fn request_checkpoint(&mut self, reply: Reply<()>) {
        match self.checkpoints.can_be_taken().and_then(|()| self.check_journal()) {
            Ok(()) => self.checkpoints.wanted.push(reply),
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Answers the requests that can't be fulfilled because the journal has failed.
    pub(super) fn fail_checkpoints(&mut self) {
        if !self.checkpoints.wanted.is_empty()
            && let Err(error) = self.check_journal()
        {
            self.checkpoints.wanted.drain(..).for_each(|reply| reply.send(Err(error.clone())));
        }
    }

    /// The rows of `millstream.checkpoints`.
    pub(super) fn checkpoint_lines(&self) -> Lines {
        let us = |time: Duration| Cell::from(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
        let line = |taken: &Taken| {
            let (bytes, named, reason) = match &taken.written {
                Ok(size) => (Cell::from(size.written), Cell::from(size.named), NULL),
                Err(error) => (NULL, NULL, Cell::from(error.message.as_str())),
            };
            vec![
                taken.through.0.into(),
                taken.epoch.0.into(),
                taken.at.into(),
                us(taken.stopped),
                us(taken.took),
                bytes,
                named,
                reason,
            ]
        };
        self.checkpoints.told.iter().map(line).collect()
    }

    /// Returns the reason why the newest checkpoint could not be written.
    pub(super) fn checkpoint_failure(&self) -> Option<&str> {
        let newest = self.checkpoints.told.back()?;
        newest.written.as_ref().err().map(|error| error.message.as_str())
    }

    /// Returns true if a checkpoint holds everything up to now, or can't.
    pub(super) fn is_checkpointed(&self) -> bool {
        if self.checkpoints.store.is_none() || self.failure().is_some() {
            return true;
        }
        let failed = self
            .checkpoints
            .told
            .back()
            .is_some_and(|told| told.written.is_err() && told.through == self.last_entry());
        !self.checkpoints.writing && (self.checkpoints.last == self.last_entry() || failed)
    }

    fn last_entry(&self) -> Sequence {
        self.last().unwrap_or_default()
    }

    /// Handles a checkpoint that was written or has failed.
    pub(super) fn checkpointed(
        &mut self,
        now: Timestamp,
        through: Sequence,
        stopped: Duration,
        took: Duration,
        written: Result<Written>,
    ) {
        self.checkpoints.writing = false;
        self.checkpoints.took = took;
        let mut result = written.clone().map(drop);
        match &written {
            Ok(written) => {
                self.checkpoints.last = through;
                self.crash_notes.trust();
                if let Some(covered) = written.covered {
                    self.forget(covered);
                }
            }
            Err(error) => {
                tracing::warn!(reason = %error, "a checkpoint can't be written: the journal is kept");
                result = Err(Error {
                    message: format!("the checkpoint can't be written: {}", error.message),
                    ..error.clone()
                });
            }
        }
        let written = written.map(|written| written.size);
        let told = Taken { through, epoch: self.checkpoints.epoch, at: now, stopped, took, written };
        self.checkpoints.told.push_back(told);
        if self.checkpoints.told.len() > TOLD_MAX {
            self.checkpoints.told.pop_front();
        }
        self.checkpoints.waiting.drain(..).for_each(|reply| reply.send(result.clone()));
    }

    /// True if a checkpoint is due, and statements block it that are being applied, or that wait for an epoch which
    /// comes by itself.
    pub(super) fn waits_for_statements(
        &self,
        queries: &[RunningQuery],
        tables: &BaseTables,
        sources: &Sources,
        settings: &Settings,
    ) -> bool {
        let waits = || {
            let comes = settings.clock == ClockKind::System;
            !tables.applied.is_empty() || (comes && sources.statements_wait(queries, tables))
        };
        let can = self.checkpoints.store.is_some() && !self.checkpoints.writing && !self.holds_back();
        let news = || self.last().is_some_and(|last| last != self.checkpoints.last);
        can && waits() && news() && checkpoint_is_due(self, settings)
    }
}

/// Returns true if a checkpoint should be taken now.
fn checkpoint_is_due(durability: &Durability, settings: &Settings) -> bool {
    let asked = !durability.checkpoints.wanted.is_empty() || durability.checkpoints.ends;
    let due = || checkpoint_is_due_at(durability, settings).is_some_and(|due| due <= Instant::now());
    (asked || due()) && durability.failure().is_none()
}

/// Returns when the next checkpoint is due, if something has changed since the last.
fn checkpoint_is_due_at(durability: &Durability, settings: &Settings) -> Option<Instant> {
    let interval = settings.durability.checkpoint_interval?;
    let news = durability.last().is_some_and(|last| last != durability.checkpoints.last);
    if news && !durability.checkpoints.writing { durability.checkpoints.due(interval) } else { None }
}
