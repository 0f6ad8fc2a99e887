//! The rebuild of a query after a panic, apart from the loop. New operators take in, piece by piece, the content of its
//! inputs as of its result's epoch. After that it is an ordinary lagging query.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use millstream_delta::{Chunk, Cut, Delta, Epoch};
use millstream_sql::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Done, GivenUp, Lag, Step, Work, step};
use crate::run::QuerySteps;
use crate::run::catch_up::PIECES_MAX;
use crate::run::contents::{Bases, Results};
use crate::run::deltas::in_sum;
use crate::run::queries::{Queries, QueryGraph};
use crate::run::query::Status;
use crate::run::rebuild::{not_rebuilt, suspend_again};
use crate::run::source::RunningSource;

/// The progress of a rebuild.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// False until the contents of its inputs are taken.
    begun: bool,
    /// The sources that are being read again.
    reading: Vec<Arc<str>>,
    /// By input: rows of sources read again that wait for the query's next steps. Pieces omit them.
    since: Vec<Delta>,
    /// The input that is left, by piece and input. A piece of a source holds the permit of its reader.
    pieces: VecDeque<(Vec<Delta>, Option<OwnedSemaphorePermit>)>,
    permits: Option<Arc<Semaphore>>,
}

impl Drop for Rebuild {
    /// Ends the readers of the sources: nobody waits for their rows.
    fn drop(&mut self) {
        if let Some(permits) = &self.permits {
            permits.close();
        }
    }
}

impl Lag {
    /// Puts back the input of a failed step, and begins a rebuild.
    pub(super) fn put_back(&mut self, through: Epoch, cut: Cut, inputs: Vec<Delta>) {
        self.waiting.put_back([self.through.next(), through], cut, inputs);
        self.rebuild = Some(Rebuild::default());
    }
}

impl QuerySteps<'_> {
    /// Handles a failed step of a lagging query over these inputs, which suspended it. After a panic, rebuilds it
    /// instead if that is possible.
    pub(super) fn fail_lagging(
        &mut self,
        place: usize,
        before: Status,
        (through, cut, inputs): (Epoch, Cut, Vec<Delta>),
    ) {
        let Some((reason, broken)) = self.queries.take_panic(place) else { return };
        let fresh = self.flow_control().rebuilt_operators(place, broken.as_ref(), true);
        match (fresh, before) {
            (Ok(fresh), Status::Lagging(mut lag)) => {
                self.queries[place].flow = fresh.flow;
                self.queries.note_rebuilt(place, through, &reason);
                lag.put_back(through, cut, inputs);
                self.queries[place].status = Status::Lagging(lag);
            }
            (Err(why), _) => {
                let reason = not_rebuilt(self.queries, place, reason, &why);
                self.queries[place].suspend(reason, through);
            }
            (Ok(_), _) => self.queries[place].suspend(reason, through),
        }
    }

    /// Steps all queries that are being rebuilt over their next pieces.
    pub(in crate::run) fn go_on_rebuilding(&mut self) {
        for place in 0..self.queries.len() {
            let Some(lag) = self.queries[place].status.lag() else { continue };
            if lag.rebuild.is_some()
                && lag.step.is_none()
                && let Err(reason) = self.rebuild_on(place)
            {
                suspend_again(self.queries, place, reason, self.clock.epoch);
                self.queries.suspend_after(place, self.clock.epoch);
            }
        }
    }

    fn rebuild_on(&mut self, place: usize) -> Result<()> {
        let rebuild = self.queries[place].status.lag().and_then(|lag| lag.rebuild.as_ref());
        if rebuild.is_some_and(|rebuild| !rebuild.begun) {
            let is_here = |name: &Arc<str>| !Results(self.queries).is_away(name);
            // While an epoch is replayed, rows that it took from sources do not wait for the query yet.
            if self.waiters.replay.is_some() || !self.queries[place].reads().all(is_here) {
                return Ok(());
            }
            self.begin_rebuild(place)?;
        }
        let standing = self.clock.standing_cut(&self.setup.settings, self.watermarks.current());
        let query = &mut self.queries[place];
        let Status::Lagging(lag) = &mut query.status else { return Ok(()) };
        let Some(rebuild) = &mut lag.rebuild else { return Ok(()) };
        let Some((inputs, permit)) = rebuild.pieces.pop_front() else {
            if rebuild.reading.is_empty() {
                let lost = rebuild.since.iter().any(|delta| !delta.is_empty());
                lag.rebuild = None;
                return if lost { Err(lost_rows()) } else { Ok(()) };
            }
            return Ok(());
        };
        let Some(flow) = query.flow.lend() else { return Ok(()) };
        let (through, cut) = (lag.through, Cut { epoch: lag.through, positions: Vec::new(), ..standing });
        let of = cut.clone();
        let given_up = GivenUp::default();
        let done = self.tasks.on_a_thread(given_up.ends(move || {
            let _permit = permit;
            step(flow, &of, inputs, false)
        }))?;
        if let Some(lag) = self.queries[place].status.lag_mut() {
            let begun = Instant::now();
            lag.step = Some(Step { through, begun, cut, done, work: Work::Rebuild, _given_up: given_up });
        }
        Ok(())
    }

    /// Takes the contents of the inputs that are kept, and begins to read the other sources again.
    fn begin_rebuild(&mut self, place: usize) -> Result<()> {
        let query = &self.queries[place];
        let Some(lag) = query.status.lag() else { return Ok(()) };
        let relations: Vec<Arc<str>> = query.reads().cloned().collect();
        let mut waiting = vec![Delta::default(); relations.len()];
        for (_, (_, inputs)) in lag.waiting.iter() {
            waiting.iter_mut().zip(inputs).for_each(|(all, delta)| all.append(delta.clone()));
        }
        let contents = Bases::new(self.tables, self.sources)
            .contents(self.queries)
            .contents_before(place, &waiting.iter().collect::<Vec<_>>())?;
        let again: Vec<bool> =
            relations.iter().map(|name| self.sources.is_read_again(self.tables, name)).collect();
        let since = waiting.into_iter().zip(&again);
        let since =
            since.map(|(delta, again)| if *again { in_sum(delta) } else { Delta::default() }).collect();
        let has_past = |name: &&Arc<str>| {
            self.sources.is_read_again(self.tables, name)
                && self.sources.get(*name).is_some_and(RunningSource::has_past)
        };
        let reading: Vec<Arc<str>> = relations.iter().filter(has_past).cloned().collect();
        let permits = Arc::new(Semaphore::new(PIECES_MAX));
        let name = query.name.clone();
        if let Some(lag) = self.queries[place].status.lag_mut() {
            lag.rebuild = Some(Rebuild {
                begun: true,
                reading: reading.clone(),
                since,
                pieces: VecDeque::from([(contents, None)]),
                permits: Some(permits.clone()),
            });
        }
        reading.iter().try_for_each(|source| {
            // The waiting rows have these columns.
            let wanted = self.sources.get(source).map(RunningSource::wanted_columns);
            self.read_past(&name, source, permits.clone(), wanted)
        })
    }
}

impl QueryGraph {
    /// Makes a query, the first of these, leave the loop for a rebuild, and its readers with it.
    pub(in crate::run) fn rebuild_apart(&mut self, leaving: &[usize], cut: &Cut, inputs: &[&Delta]) {
        let before = cut.epoch.previous();
        let Some((first, rest)) = leaving.split_first() else { return };
        let mut lag = Lag::new(before).in_order(self.queries.is_stepped_in_order(*first));
        lag.put_back(cut.epoch, cut.clone(), inputs.iter().map(|delta| (*delta).clone()).collect());
        self.queries[*first].status = Status::Lagging(Box::new(lag));
        // Within the epoch, the queries stepped earlier have already changed shared arrangements.
        rest.iter().for_each(|place| self.leave_before(*place, before));
    }
}

/// Takes a piece of a source that is read again for a rebuild.
pub(in crate::run) fn rebuild_piece(
    queries: &mut Queries,
    epoch: Epoch,
    place: usize,
    source: &str,
    piece: Option<Result<Vec<RecordBatch>>>,
    permit: Option<OwnedSemaphorePermit>,
) {
    let query = &mut queries[place];
    let input = query.reads().position(|name| name.as_ref() == source);
    let count = query.feeds.len();
    let (Some(input), Some(rebuild)) = (input, query.status.lag_mut().and_then(|lag| lag.rebuild.as_mut()))
    else {
        return;
    };
    match piece {
        Some(Ok(rows)) => {
            let (come, since) = without(rows, std::mem::take(&mut rebuild.since[input]));
            rebuild.since[input] = since;
            let mut inputs = vec![Delta::default(); count];
            inputs[input] = come;
            rebuild.pieces.push_back((inputs, permit));
        }
        None => rebuild.reading.retain(|reading| reading.as_ref() != source),
        Some(Err(reason)) => {
            suspend_again(queries, place, reason, epoch);
            queries.suspend_after(place, epoch);
        }
    }
}

/// Takes over a piece that a thread has stepped. Readers already have its changes.
pub(super) fn rebuilt_some(queries: &mut Queries, epoch: Epoch, place: usize, done: Result<Done>) {
    let stepped = done.and_then(|done| {
        let flow = &mut queries[place].flow;
        flow.take_back(done.flow, done.told);
        flow.note_panic(done.panic);
        done.change.map(drop)
    });
    if let Err(reason) = stepped {
        suspend_again(queries, place, reason, epoch);
    }
}

/// Returns rows without those that wait, and the rest of the latter.
fn without(rows: Vec<RecordBatch>, since: Delta) -> (Delta, Delta) {
    let mut all = Delta::from_iter(rows);
    if since.is_empty() {
        return (all, since);
    }
    all.append(since.negated());
    let (mut come, mut left) = (Delta::default(), Delta::default());
    for chunk in in_sum(all).chunks {
        for (to, sign) in [(&mut come, 1), (&mut left, -1)] {
            to.chunks.extend(part_of(&chunk, sign));
        }
    }
    (come, left.negated())
}

/// Returns the rows of a chunk whose weights have a sign.
fn part_of(chunk: &Chunk, sign: i64) -> Option<Chunk> {
    let weights = chunk.weights_or_ones();
    let wanted = weights.iter().map(|weight| weight.map(|weight| weight.signum() == sign)).collect();
    let rows = arrow::compute::filter_record_batch(&chunk.rows, &wanted).ok()?;
    let weights = arrow::compute::filter(&weights, &wanted).ok()?;
    let weights = arrow::array::AsArray::as_primitive(&weights).clone();
    (rows.num_rows() > 0).then_some(Chunk { rows, weights: Some(weights) })
}

fn lost_rows() -> Error {
    Error::external("a source no longer has all rows that were read from it")
}
