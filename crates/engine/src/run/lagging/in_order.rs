//! Lagging queries whose answer depends on how their input is split into epochs. They are stepped one epoch after the
//! other, each with its own cut, as on the loop.
//!
//! These queries read event time, forget keys or closed windows, or keep the batch of each row. Their lagging inputs,
//! direct or indirect, are stepped in order as well, so that no changes are summed up. Epochs without changes wait too,
//! since a watermark or the time may close a window.
//!
//! A query FOR EACH BATCH that is recomputed over tables and queries reads their content as of the end of each batch. A
//! step gets the present content, and takes away the changes of the epochs that still wait. It begins once no thread
//! has the content.
//!
//! Late rows belong to the epoch of the step that found them. Queries that read the late rows of a lagging query lag
//! with it.
//!
//! Deliberately absent: queries whose late rows are part of `millstream.late_rows` while that relation has a log. They
//! would add epochs out of order.

use std::time::{Duration, Instant};

use millstream_delta::{Closes, Cut, Delta, Epoch, Timestamp};
use millstream_flow::{Change, Flow};
use millstream_sql::{Error, Result};

use super::{Done, Lag, compacted, step_for};
use crate::content::Content;
use crate::run::batches::step::Lent;
use crate::run::dead_letters::{late_relations, takes_from};
use crate::run::feed::Feed;
use crate::run::outputs::Outputs;
use crate::run::own_flow::Told;
use crate::run::queries::Queries;
use crate::run::query::RunningQuery;

/// The time for which the loop may step a query that must become current.
const LEFT_TIME: Duration = Duration::from_millis(200);

impl Lag {
    /// Sets if it is stepped one epoch after the other.
    pub(in crate::run) fn in_order(self, in_order: bool) -> Lag {
        let mut lag = self;
        lag.waiting.set_in_order(in_order);
        lag
    }

    /// True if epochs are stepped one by one, and those without changes wait as well.
    pub(in crate::run) fn is_in_order(&self) -> bool {
        self.waiting.are_in_order()
    }

    /// True if the loop can take in the waiting epochs: in sum, or in order if they are so few that nobody waits long.
    pub(super) fn is_little_left(&self) -> bool {
        let left = u32::try_from(self.waiting.changing()).unwrap_or(u32::MAX);
        !self.is_in_order() || self.took.saturating_mul(left) < LEFT_TIME
    }

    /// Returns all waiting changes by input, of which there are `inputs`.
    pub(in crate::run) fn waiting_changes(&self, inputs: usize) -> Vec<Delta> {
        self.waiting.changes(inputs)
    }

    /// Returns the batch time of the first epoch that waits.
    pub(in crate::run) fn next_time(&self) -> Option<Timestamp> {
        self.waiting.first_time()
    }

    /// Moves it to a later epoch, up to which no waiting epoch changes anything.
    pub(super) fn pass(&mut self, through: Epoch) {
        drop(self.waiting.take(through));
        self.through = self.through.max(through);
    }

    /// True if no epoch waits, and no thread steps it.
    pub(in crate::run) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_away()
    }

    /// Runs the waiting epoch as this batch, from a time when the query was paused.
    pub(in crate::run) fn runs_as(&mut self, epoch: Epoch, batch: Cut) {
        self.batches.insert(epoch, batch);
    }

    /// Skips the batches up to a time after an epoch.
    pub(in crate::run) fn skip_batches(&mut self, after: Epoch, to: Timestamp) {
        self.skipped.insert(after, to);
    }

    /// Returns the time up to which batches are skipped after all waiting epochs.
    pub(in crate::run) fn skipped_to(&self) -> Option<Timestamp> {
        self.skipped.values().max().copied()
    }

    /// True if some batches wait from a time when the query was paused. No checkpoint has them.
    pub(in crate::run) fn has_paused_batches(&self) -> bool {
        !self.batches.is_empty()
    }
}

impl RunningQuery {
    /// Returns the epoch, no later than `through`, with which the next step ends. A step takes in all waiting epochs,
    /// or in order the first that changes something. None: no epoch up to `through` changes anything.
    pub(super) fn step_end(&self, through: Epoch) -> Option<Epoch> {
        let lag = self.status.lag()?;
        if !lag.is_in_order() {
            return lag.waiting.have_up_to(through).then_some(through);
        }
        let has_work = |(epoch, (cut, inputs)): &(&Epoch, &(Cut, Vec<Delta>))| {
            let ends_batch = self.is_per_batch() && cut.closes != Closes::None;
            ends_batch
                || inputs.iter().any(|delta| !delta.is_empty())
                || lag.batches.contains_key(epoch)
                || self.flow.is_due(cut)
        };
        lag.waiting.up_to(through).find(has_work).map(|(epoch, _)| *epoch)
    }

    /// Skips the batches that were missed between the steps so far and the step that ends with an epoch.
    pub(super) fn skip_missed(&mut self, end: Epoch) {
        let Some(lag) = self.status.lag_mut() else { return };
        let later = lag.skipped.split_off(&end);
        let missed = std::mem::replace(&mut lag.skipped, later);
        if let Some(batches) = &mut self.batches {
            missed.into_values().for_each(|to| batches.skip_to(to));
        }
    }

    /// Returns a thread's step of the query, over an epoch or a sum of several, with all that it needs; `contents` if it
    /// is recomputed over them.
    pub(in crate::run) fn lend_step(
        &mut self,
        cut: &Cut,
        (inputs, contents): (&[Delta], Vec<Content>),
        in_order: bool,
        tell: fn(&Flow) -> Told,
    ) -> Result<impl FnOnce() -> Done + Send + use<>> {
        let stamped = |(feed, delta): (&Feed, &Delta)| Ok(feed.stamp(delta, cut.into())?.into_owned());
        let lent = self.lend_batches();
        let inputs: Vec<Delta> = match &lent {
            // Their windows add these columns when a batch ends.
            Some(_) => inputs.to_vec(),
            None => self.feeds.iter().zip(inputs).map(stamped).collect::<Result<_>>()?,
        };
        let (read, cut) = (self.needs_changes(), cut.clone());
        let lost = || Error::bug("the operators of the query are being stepped elsewhere");
        let flow = self.flow.lend().ok_or_else(lost)?;
        let result = if lent.is_none() { self.result.rows.lend() } else { None };
        Ok(move || match lent {
            Some(lent) => step_batches(flow, lent, &cut, (&inputs, contents), tell),
            None if in_order => step_for(flow, &cut, inputs, read, tell).kept_in(result),
            None => {
                step_for(flow, &cut, inputs.into_iter().map(compacted).collect(), read, tell).kept_in(result)
            }
        })
    }
}

/// Steps a query FOR EACH BATCH on a thread.
fn step_batches(
    mut flow: Flow,
    lent: Lent,
    cut: &Cut,
    (inputs, contents): (&[Delta], Vec<Content>),
    tell: fn(&Flow) -> Told,
) -> Done {
    let begun = Instant::now();
    let rows = inputs.iter().map(Delta::num_rows).sum();
    let (stepped, panic) = lent.step(&mut flow, cut, &inputs.iter().collect::<Vec<_>>(), contents);
    let took = begun.elapsed();
    let told = if stepped.is_ok() { tell(&flow) } else { Told::default() };
    let (batches, change) = match stepped {
        Ok(stepped) => (Some(stepped), Ok(Change::default())),
        Err(reason) => (None, Err(reason)),
    };
    Done { flow, told, change, result: None, batches, panic, took, rows }
}

impl Queries {
    /// True if a query must be stepped in order while it lags: for itself, for a query that reads it, or for the history.
    pub(in crate::run) fn is_stepped_in_order(&self, place: usize) -> bool {
        let mut found = vec![place];
        for later in place + 1..self.all.len() {
            if found.iter().any(|of| takes_from(self, later, *of)) {
                found.push(later);
            }
        }
        self.keep_every_epoch || found.iter().any(|place| !self.all[*place].may_lag())
    }
}

/// True if a reader takes the changes of a query's result, or its late rows, from a log.
pub(super) fn has_log(queries: &[RunningQuery], outputs: &Outputs, place: usize) -> bool {
    outputs.is_read(queries, &queries[place].name)
        || late_relations(queries, place).any(|name| outputs.is_read(queries, &name))
}
