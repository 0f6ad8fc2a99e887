//! Lagging queries in checkpoints: their state as of the epoch that they have reached, and the waiting changes.
//!
//! A checkpoint waits for the steps of such queries to end, not for the queries to become current, which may never
//! happen. A start makes those current whose changes others take, by way of every epoch at which their group can stop. Any
//! output after the checkpoint was as of one of these epochs, so a sink continues from its position.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Delta, Epoch, Timestamp};
use millstream_durable::{Entry, Sequence};
use millstream_sql::{Error, Result};
use millstream_state::Tables;

use super::groups::is_inside;
use super::{Lag, compacted};
use crate::run::QuerySteps;
use crate::run::batches::later_changes;
use crate::run::contents::Bases;
use crate::run::crash_notes::may_step;
use crate::run::into_table::IntoTable;
use crate::run::lagging::in_order::has_log;
use crate::run::query::{RunningQuery, Status};
use crate::run::saving::number;
use crate::run::sharing::Arranging;
use crate::run::sink::entry_of;

impl Lag {
    /// Saves it, and adds the waiting epochs to `entries`.
    pub(crate) fn save(&self, to: &mut Tables, entries: &mut Vec<Entry>) {
        to.put_number("through", self.through.0 as i64);
        to.put_number_if("in_order", self.is_in_order().then_some(1));
        put_ranges(to, "lump", self.lumps.iter().copied());
        put_ranges(to, "merged", self.waiting.merged());
        to.put_number_if("skipped", (!self.skipped.is_empty()).then_some(self.skipped.len() as i64));
        for (place, (after, time)) in self.skipped.iter().enumerate() {
            to.put_number(&format!("skipped{place}.after"), after.0 as i64);
            to.put_number(&format!("skipped{place}.to"), time.0);
        }
        to.put_number("waiting", entries.len() as i64);
        for (_, (cut, inputs)) in self.waiting.iter() {
            let changes = inputs.iter().enumerate().filter(|(_, delta)| !delta.is_empty());
            let changes = changes.map(|(input, delta)| (Arc::from(input.to_string()), delta.clone()));
            entries.push(entry_of(cut, changes.collect()));
        }
        to.put_number("waiting_to", entries.len() as i64);
    }

    /// Loads a query with `inputs` inputs, if it lagged.
    pub(crate) fn load(from: &mut Tables, entries: &[Entry], inputs: usize) -> Result<Option<Lag>> {
        let Some(through) = from.take_number_if("through") else { return Ok(None) };
        let in_order = from.take_number_if("in_order").is_some();
        let mut lag = Lag::new(Epoch(through as u64)).in_order(in_order);
        lag.lumps = take_ranges(from, "lump")?;
        lag.waiting.load_merged(take_ranges(from, "merged")?);
        for place in 0..from.take_number_if("skipped").unwrap_or(0) {
            let after = Epoch(number(from, &format!("skipped{place}.after"))? as u64);
            lag.skipped.insert(after, Timestamp(number(from, &format!("skipped{place}.to"))?));
        }
        let (first, end) = (number(from, "waiting")? as usize, number(from, "waiting_to")? as usize);
        let corrupt =
            || Error::new(crate::Kind::Corrupt, "a checkpoint lacks what waits for a query that is behind");
        for entry in entries.get(first..end).ok_or_else(corrupt)? {
            let Entry::Epoch(recorded) = entry else { return Err(corrupt()) };
            let mut deltas = vec![Delta::default(); inputs];
            for (input, delta) in &recorded.changes {
                let input = input.parse().ok().and_then(|input: usize| deltas.get_mut(input));
                *input.ok_or_else(corrupt)? = delta.clone();
            }
            lag.wait(&recorded.cut, &deltas.iter().collect::<Vec<_>>());
        }
        Ok(Some(lag))
    }
}

impl RunningQuery {
    /// True if a step of it is not over: a thread steps it, it is being rebuilt, or its table gets the changes in pieces.
    pub(crate) fn is_away(&self) -> bool {
        self.status.lag().is_some_and(Lag::is_away) || self.into.as_ref().is_some_and(IntoTable::is_bringing)
    }
}

/// Returns the same status as of an earlier epoch.
fn put_to(mut status: Status, epoch: Epoch) -> Status {
    if let Status::Lagging(lag) = &mut status {
        lag.through = epoch;
    }
    status
}

fn put_ranges(to: &mut Tables, name: &str, ranges: impl ExactSizeIterator<Item = (Epoch, Epoch)>) {
    to.put_number(&format!("{name}s"), ranges.len() as i64);
    for (place, (first, last)) in ranges.enumerate() {
        to.put_number(&format!("{name}{place}.from"), first.0 as i64);
        to.put_number(&format!("{name}{place}.to"), last.0 as i64);
    }
}

fn take_ranges(from: &mut Tables, name: &str) -> Result<Vec<(Epoch, Epoch)>> {
    let count = number(from, &format!("{name}s"))?;
    let mut end = |place, end: &str| -> Result<Epoch> {
        Ok(Epoch(number(from, &format!("{name}{place}.{end}"))? as u64))
    };
    (0..count).map(|place| Ok((end(place, "from")?, end(place, "to")?))).collect()
}

impl QuerySteps<'_> {
    /// Makes the queries current that lagged at a checkpoint, which was of this entry, unless they may lag at a start.
    pub(in crate::run) fn bring_loaded(&mut self, checkpoint: Sequence) {
        let lagging = self.queries.lagging_places();
        if lagging.is_empty() {
            return;
        }
        let lags = |place: &usize| {
            let group: Vec<usize> = self.queries.going_with(*place).into_iter().collect();
            self.flow_control().may_lag_at_start(&group)
        };
        let lagging: Vec<usize> = lagging.into_iter().filter(|place| !lags(place)).collect();
        // If the process dies in one of these steps, the crash notes name this entry.
        self.durability.crash_notes.begin_entry(checkpoint, false);
        for place in &lagging {
            // A group is brought along with its first query.
            let group = self.queries.going_with(*place);
            if group.first() == Some(place) {
                self.bring_group(&group);
            }
        }
        for place in lagging {
            // A query that is being rebuilt keeps its whole group from becoming current.
            let group = self.queries.going_with(place);
            let is_away = group.iter().any(|place| self.queries[*place].is_away());
            if self.queries[place].status.lag().is_some() && !is_away {
                self.queries[place].skip_missed(self.clock.epoch.next());
                self.queries[place].status = Status::Running;
                self.queries.share_or_suspend(
                    Bases::new(self.tables, self.sources),
                    self.clock.epoch,
                    place,
                    Arranging::Anew,
                );
            }
        }
    }

    /// Makes a group current. If a reader takes its changes, the group stops at every epoch at which all of it can.
    fn bring_group(&mut self, group: &BTreeSet<usize>) {
        let mut epochs = BTreeSet::from([self.clock.epoch]);
        let is_told = |place: &usize| {
            self.queries[*place].into.is_some() || has_log(self.queries, self.outputs, *place)
        };
        if group.iter().any(is_told) {
            let lag = || group.iter().filter_map(|place| self.queries[*place].status.lag());
            let lumps = self.queries.lumps_of(group);
            epochs.extend(lag().flat_map(|lag| lag.waiting.iter().map(|(epoch, _)| *epoch)));
            epochs.extend(lumps.iter().map(|(_, to)| *to));
            epochs.retain(|epoch| {
                !is_inside(&lumps, *epoch) && !lag().any(|lag| lag.waiting.have_merged(*epoch))
            });
        }
        for epoch in epochs {
            for place in group {
                self.step_here(*place, epoch);
                self.queries.suspend_after(*place, self.clock.epoch);
                if self.queries[*place].is_away() {
                    return;
                }
            }
        }
    }

    /// Steps a lagging query over all waiting changes up to an epoch.
    pub(super) fn step_here(&mut self, place: usize, through: Epoch) {
        let is_before = |query: &RunningQuery| {
            query.status.lag().is_some_and(|lag| lag.through < through) && !query.is_away()
        };
        while is_before(&self.queries[place]) {
            match self.queries[place].step_end(through) {
                Some(end) => self.take_step_here(place, end),
                None => self.queries[place].status.lag_mut().into_iter().for_each(|lag| lag.pass(through)),
            }
        }
    }

    fn take_step_here(&mut self, place: usize, through: Epoch) {
        let is_unread = self.outputs.is_unread(self.queries, self.waiters, place);
        self.queries[place].result.set_unread(is_unread);
        let Some(lag) = self.queries[place].status.lag_mut() else { return };
        let (from, in_order) = (std::mem::replace(&mut lag.through, through), lag.is_in_order());
        let own = lag.batches.remove(&through);
        let Some((cut, inputs)) = lag.waiting.take(through) else { return };
        self.queries[place].skip_missed(through);
        let later = later_changes(&self.queries[place]);
        if !may_step(self.queries, self.durability, place, through) {
            return;
        }
        let inputs: Vec<Delta> = if in_order { inputs } else { inputs.into_iter().map(compacted).collect() };
        let before = std::mem::replace(&mut self.queries[place].status, Status::Running);
        let of = own.as_ref().unwrap_or(&cut);
        let delta = self.queries.step_one(
            Bases::new(self.tables, self.sources),
            place,
            of,
            &inputs.iter().collect::<Vec<_>>(),
            &later,
        );
        if self.queries[place].status.is_suspended() {
            return self.fail_lagging(place, put_to(before, from), (through, cut, inputs));
        }
        self.queries[place].status = before;
        self.queries.note_lump(place, from, through);
        self.hand_on(place, &cut, delta);
    }
}
