//! A query that is behind as part of a checkpoint: what it keeps as of the epoch that it has come to, and what waits.
//!
//! A checkpoint doesn't wait until such queries are at the present, which they may never be; no step begins while it is
//! due, so it waits for the end of one. A start brings them to the present: first all that go together to the epoch at
//! which they are to meet, then epoch by epoch. What they showed outside after the checkpoint was as of one of these
//! epochs, so that a sink goes on from where it stood.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream_delta::{Delta, Epoch};
use millstream_durable::{Entry, Recorded};
use millstream_sql::{Error, Result};
use millstream_state::Tables;

use super::{Behind, compacted};
use crate::run::Loop;
use crate::run::query::{RunningQuery, Status};
use crate::run::saving::number;

impl Behind {
    /// What is kept of it; the epochs that wait are added to `entries`.
    pub(crate) fn save(&self, to: &mut Tables, entries: &mut Vec<Entry>) {
        to.put_number("through", self.through.0 as i64);
        to.put_number("handed", self.handed.0 as i64);
        to.put_number("waiting", entries.len() as i64);
        for (cut, inputs) in self.waiting.values() {
            let changes = inputs.iter().enumerate().filter(|(_, delta)| !delta.is_empty());
            let changes = changes.map(|(input, delta)| (Arc::from(input.to_string()), delta.clone()));
            let (cut, changes) = (cut.clone(), changes.collect());
            let nothing = (Vec::new(), Vec::new(), Vec::new());
            let (brought, done, delivered) = nothing;
            entries.push(Entry::Epoch(Box::new(Recorded { cut, changes, brought, done, delivered })));
        }
        to.put_number("waiting_to", entries.len() as i64);
    }

    /// One of `inputs` inputs as it was saved, if it was behind.
    pub(crate) fn load(from: &mut Tables, entries: &[Entry], inputs: usize) -> Result<Option<Behind>> {
        let Some(through) = from.take_number_if("through") else { return Ok(None) };
        let mut behind = Behind::new(Epoch(through as u64));
        behind.handed = Epoch(number(from, "handed")? as u64);
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
            behind.wait(&recorded.cut, &deltas.iter().collect::<Vec<_>>());
        }
        Ok(Some(behind))
    }
}

impl RunningQuery {
    /// Whether a thread steps it, so that what it keeps isn't here.
    pub(crate) fn is_away(&self) -> bool {
        self.behind().is_some_and(Behind::is_away)
    }
}

impl Loop {
    /// Brings to the present what was behind when a checkpoint was taken.
    pub(in crate::run) fn bring_loaded(&mut self) {
        let behind: Vec<usize> =
            (0..self.queries.len()).filter(|place| self.queries[*place].behind().is_some()).collect();
        for place in &behind {
            // Those that go together are brought with the first of them.
            let group = self.going_with(*place);
            if group.first() == Some(place) {
                self.bring_group(&group);
            }
        }
        for place in behind {
            if self.queries[place].behind().is_some() {
                self.queries[place].status = Status::Running;
                self.share_or_suspend(place);
            }
        }
    }

    fn bring_group(&mut self, group: &BTreeSet<usize>) {
        let mut next = Some(self.meeting_of(group));
        while let Some(epoch) = next {
            for place in group {
                self.step_here(*place, epoch);
                self.suspend_after(*place);
            }
            let waiting = group.iter().filter_map(|place| self.queries[*place].behind());
            let waiting = waiting.filter_map(|behind| behind.waiting.range(epoch.next()..).next());
            next = waiting.map(|(epoch, _)| *epoch).min();
        }
        group.iter().for_each(|place| self.step_here(*place, self.epoch));
    }

    /// Lets a query that is behind take in all that waits up to an epoch.
    pub(super) fn step_here(&mut self, place: usize, through: Epoch) {
        self.queries[place].unread = self.is_unread(place);
        let query = &mut self.queries[place];
        let Some(behind) = query.behind_mut().filter(|behind| behind.through < through) else { return };
        behind.through = through;
        if let Some((cut, inputs)) = behind.take(through) {
            let inputs: Vec<Delta> = inputs.into_iter().map(compacted).collect();
            let delta = query.step(&cut, &inputs.iter().collect::<Vec<_>>());
            self.hand_on(place, &cut, delta);
        }
    }
}
