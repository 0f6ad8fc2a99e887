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
//! Deliberately absent: queries whose late rows others read, and queries FOR EACH BATCH that are recomputed over sources
//! with a key or over a relation AS OF a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_delta::{Closes, Cut, Delta, Epoch};
use millstream_flow::{Change, Flow};
use millstream_sql::{Error, Result};

use super::{Behind, Done, compacted, step_for};
use crate::catalog::{ALL_LATE_ROWS, late_rows_name};
use crate::content::Content;
use crate::run::Loop;
use crate::run::batches::step::Lent;
use crate::run::feed::Feed;
use crate::run::own_flow::Told;
use crate::run::queries::Queries;
use crate::run::query::RunningQuery;

/// The time for which the loop may step a query that must become current.
const LEFT_TIME: Duration = Duration::from_millis(200);

/// The approximate size in bytes of a waiting epoch without changes.
const CUT_BYTES: usize = 512;

impl Behind {
    /// Sets if it is stepped one epoch after the other.
    pub(in crate::run) fn in_order(self, in_order: bool) -> Behind {
        Behind { in_order, ..self }
    }

    /// True if epochs are stepped one by one, and those without changes wait as well.
    pub(in crate::run) fn is_in_order(&self) -> bool {
        self.in_order
    }

    /// True if the loop can take in the waiting epochs: in sum, or in order if they are so few that nobody waits long.
    pub(super) fn is_little_left(&self) -> bool {
        let has_rows = |(_, inputs): &&(Cut, Vec<Delta>)| inputs.iter().any(|delta| !delta.is_empty());
        let left = self.waiting.values().filter(has_rows).count();
        !self.in_order || self.took.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX)) < LEFT_TIME
    }

    /// Returns the approximate size in bytes of a waiting epoch besides its rows.
    pub(super) fn cut_bytes(&self) -> usize {
        if self.in_order { CUT_BYTES } else { 0 }
    }

    /// Returns the sum of all waiting changes by input, of which there are `inputs`.
    pub(in crate::run) fn waiting_changes(&self, inputs: usize) -> Vec<Delta> {
        let mut all = vec![Delta::default(); inputs];
        for (_, waiting) in self.waiting.values() {
            all.iter_mut().zip(waiting).for_each(|(all, delta)| all.append(delta.clone()));
        }
        all
    }

    /// Moves it to a later epoch, up to which no waiting epoch changes anything.
    pub(super) fn pass(&mut self, through: Epoch) {
        drop(self.take(through));
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

    /// True if some batches wait from a time when the query was paused. No checkpoint has them.
    pub(in crate::run) fn has_paused_batches(&self) -> bool {
        !self.batches.is_empty()
    }

    /// Returns the part of an epoch's cut that it keeps.
    pub(super) fn kept_of(&self, cut: &Cut) -> Cut {
        match self.in_order {
            // Operators don't read positions and marks.
            true => {
                Cut { positions: Vec::new(), marks: Vec::new(), watermarks: cut.watermarks.clone(), ..*cut }
            }
            false => cut.clone(),
        }
    }
}

impl RunningQuery {
    /// Returns the epoch, no later than `through`, with which the next step ends. A step takes in all waiting epochs,
    /// or in order the first that changes something. None: no epoch up to `through` changes anything.
    pub(super) fn step_end(&self, through: Epoch) -> Option<Epoch> {
        let behind = self.behind()?;
        if !behind.in_order {
            return behind.waits_up_to(through).then_some(through);
        }
        let has_work = |(epoch, (cut, inputs)): &(&Epoch, &(Cut, Vec<Delta>))| {
            let ends_batch = self.is_per_batch() && cut.closes != Closes::None;
            ends_batch
                || inputs.iter().any(|delta| !delta.is_empty())
                || behind.batches.contains_key(epoch)
                || self.flow.is_due(cut)
        };
        behind.waiting.range(..=through).find(has_work).map(|(epoch, _)| *epoch)
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
        let result = if lent.is_none() { self.kept.lend() } else { None };
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

impl Loop {
    /// True if other queries read the late rows of a query.
    pub(super) fn has_late_rows_read(&self, query: &RunningQuery) -> bool {
        query.late().is_some() && self.queries.iter().any(|reader| self.takes_late_rows(reader, query))
    }

    /// Returns the queries whose late rows a relation contains.
    pub(in crate::run) fn late_for(&self, relation: &str) -> impl Iterator<Item = &Arc<str>> {
        let has = move |query: &&RunningQuery| {
            query.late().is_some()
                && (relation == ALL_LATE_ROWS || relation == late_rows_name(self.shown_name(query)))
        };
        self.queries.iter().filter(has).map(|query| &query.name)
    }
}

impl Queries {
    /// True if a query must be stepped in order while it lags: for itself, or for a query that reads it.
    pub(in crate::run) fn is_stepped_in_order(&self, place: usize) -> bool {
        let mut names = BTreeSet::from([&self.all[place].name]);
        let mut readers = self.all[place + 1..].iter().filter(|query| {
            let reads = query.reads().any(|name| names.contains(name));
            if reads {
                names.insert(&query.name);
            }
            reads
        });
        !self.all[place].may_be_behind() || readers.any(|query| !query.may_be_behind())
    }
}
