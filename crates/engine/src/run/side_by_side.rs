//! Stepping queries that don't read one another at the same time.
//!
//! One thread steps each query, and the loop takes up their outputs in the order of the queries. So no result depends
//! on the number of threads.

use std::ops::Range;

use millstream_delta::{Cut, Delta};
use millstream_flow::Cost;

use super::dead_letters::takes_from;
use super::deltas::Deltas;
use super::execution::Execution;
use super::query::RunningQuery;
use crate::run::QuerySteps;
use crate::settings::Settings;

impl QuerySteps<'_> {
    /// Steps these queries and adds their changes; returns the number of changed rows. Steps that may take long run on
    /// threads of their own; a query lags if its step is not done in time.
    pub(super) fn step_side_by_side(&mut self, places: Range<usize>, cut: &Cut, deltas: &mut Deltas) -> u64 {
        for place in places.clone() {
            self.queries.suspend_with_inputs(place, cut.epoch);
            let is_unread = self.outputs.is_unread(self.queries, self.waiters, place);
            self.queries[place].result.set_unread(is_unread);
        }
        let running: Vec<usize> =
            places.clone().filter(|place| self.queries[*place].status.is_running()).collect();
        let mut lent = Vec::new();
        for place in running.iter().copied() {
            let inputs = self.queries[place].inputs(|name| deltas.get(name));
            if let Some(leaving) = self.flow_control().leaving_over(place, cut, &inputs) {
                lent.extend(self.departures().lend_long_step(place, cut, &inputs, leaving));
            }
        }
        let is_here = |query: &&mut RunningQuery| query.flow.here().is_some();
        let queries: Vec<&mut RunningQuery> = self.queries[places].iter_mut().filter(is_here).collect();
        let mut outputs = self.setup.execution.driver.threads().spread(queries, |query| {
            let (delta, changed) = step(query, cut, deltas);
            (query.name.clone(), delta, changed)
        });
        for step in lent {
            let place = step.place;
            if let Some(delta) = self.queries.await_long_step(cut, step) {
                let query = &self.queries[place];
                outputs.push((query.name.clone(), delta, query.last_step.changed()));
            }
        }
        let mut rows = 0;
        for (name, delta, changed) in outputs {
            rows += changed;
            if !delta.is_empty() {
                deltas.entry(name).or_default().append(delta);
            }
        }
        for place in
            running.into_iter().filter(|place| self.queries[*place].status.is_suspended()).collect::<Vec<_>>()
        {
            // None of the queries stepped together reads another.
            let inputs: Vec<Delta> =
                self.queries[place].inputs(|name| deltas.get(name)).into_iter().cloned().collect();
            let delta = self.rebuild(place, cut, &inputs.iter().collect::<Vec<_>>());
            rows += self.queries[place].last_step.changed();
            if !delta.is_empty() {
                deltas.entry(self.queries[place].name.clone()).or_default().append(delta);
            }
        }
        rows
    }
}

/// Returns the number of queries, from a place on, that may be stepped side by side in this epoch. None of them
/// reads another, and several have many rows.
pub(super) fn count_side_by_side(
    queries: &[RunningQuery],
    execution: &Execution,
    settings: &Settings,
    place: usize,
    cut: &Cut,
    deltas: &Deltas,
) -> usize {
    let changed: usize = deltas.values().map(Delta::num_rows).sum();
    let many = execution.driver.threads().piece_rows();
    if settings.parallelism < 2 || changed < many {
        return 1;
    }
    let (mut together, mut busy) = (0, 0);
    for query in &queries[place..] {
        let (queries, at) = (queries, place + together);
        let rows = query.inputs(|name| deltas.get(name)).iter().map(|delta| delta.num_rows()).sum::<usize>();
        let plain = query.status.is_running() && !query.is_per_batch() && query.into.is_none();
        // A query that pairs many rows, closes many windows or shares rows leaves the loop alone.
        let is_dear = query.flow.cost() == Cost::Pairs || query.flow.is_due(cut);
        let is_alone = query.may_take_long(rows, cut);
        let plain = plain && !(is_alone && (is_dear || !query.flow.shared().is_empty()));
        if !plain || (place..at).any(|before| takes_from(queries, at, before)) {
            break;
        }
        busy += usize::from(rows >= many || query.flow.is_due(cut));
        together += 1;
    }
    if busy > 1 { together } else { 1 }
}

fn step(query: &mut RunningQuery, cut: &Cut, deltas: &Deltas) -> (Delta, u64) {
    let inputs = query.inputs(|name| deltas.get(name));
    if !query.status.is_running() || (inputs.iter().all(|delta| delta.is_empty()) && !query.flow.is_due(cut))
    {
        return (Delta::default(), 0);
    }
    let delta = query.step(cut, &inputs);
    (delta, query.last_step.changed())
}
