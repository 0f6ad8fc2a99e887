//! Backfill on threads of its own.
//!
//! The pieces wait with the query. A thread takes in one of them, in parts as large as is quick, and the loop takes
//! over the change. When no piece is left, the changes since the pin are taken in likewise, until few remain; the loop
//! takes in these when the query becomes current. At the end, sources that are faster than the query wait for it. If a
//! query is dropped, or its statement is cancelled, its thread ends, at the latest after the present part.
//!
//! Deliberately absent: recovery, which takes in each piece at once, or leaves it for when the engine is live.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use millstream_delta::{Chunk, Cut, Delta, Epoch, Timestamp};
use millstream_flow::{Change, Cost, Flow, Interrupt};
use millstream_sql::{Error, Result};
use tokio::sync::OwnedSemaphorePermit;

use crate::jobs::Job;
use crate::run::QueryStarts;
use crate::run::backfill::{LOOP_ROWS_DEAR_MAX, LOOP_ROWS_MAX, REST_ROWS_MAX, ROUNDS_MAX};
use crate::run::catch_up::{next_since, put_out_past};
use crate::run::crash_notes::may_step;
use crate::run::durable::Durability;
use crate::run::execution::Execution;
use crate::run::lagging::{Done, GivenUp, together};
use crate::run::log::STATEMENTS_BYTES_MAX;
use crate::run::outputs::Outputs;
use crate::run::own_flow::{self, OwnFlow, Told};
use crate::run::queries::Queries;
use crate::run::query::{RunningQuery, Status};
use crate::run::query_replacement::Successor;
use crate::run::rename::Names;
use crate::run::tasks::Tasks;
use crate::run::waiters::Waiters;
use crate::settings::{ClockKind, Settings};
use crate::statement_memory::{self, AllStatements};

/// Rows of the first part of a piece. Later parts are as large as is quick, up to the maximum.
const PART_ROWS_START: usize = 256;
const PART_ROWS_MAX: usize = 64 * 1024;

/// A part that takes less time may be followed by a larger one. A part that takes more is followed by a smaller one.
const PART_SHORT: Duration = Duration::from_millis(10);
const PART_LONG: Duration = Duration::from_millis(50);

/// Most epochs that are taken out of the logs at once, if they are stepped one by one.
const EPOCHS_AT_ONCE: usize = 1024;

/// The number of rounds of changes since the pin before sources must wait. If sources are faster than the query, it
/// would never become current.
const OPEN_ROUNDS_MAX: usize = 4;

/// The time for which a query waits for the reader of its backfill's output, before that reader lags too far.
const READER_TIME: Duration = Duration::from_secs(60);

/// The number of rows to take in at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartRows(usize);

impl Default for PartRows {
    fn default() -> PartRows {
        PartRows(PART_ROWS_START)
    }
}

impl PartRows {
    /// Returns the number of rows that a part can quickly take in, by experience so far.
    pub(crate) fn get(self) -> usize {
        self.0
    }

    /// Adapts to the duration of a part.
    pub(crate) fn took(&mut self, time: Duration) {
        self.0 = match time {
            time if time < PART_SHORT => (self.0 * 2).min(PART_ROWS_MAX),
            time if time > PART_LONG => (self.0 / 2).max(1),
            _ => self.0,
        };
    }
}

/// The input that a query has yet to take in.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    waiting: VecDeque<Piece>,
    /// The changes since the pin that have left the logs, with the time of their last epoch, and their size in bytes.
    since: VecDeque<(Timestamp, Vec<Delta>)>,
    pub(super) since_bytes: usize,
    /// The piece that a thread is taking in.
    step: Option<Step>,
    /// The batch time of the last piece taken in.
    now: Timestamp,
    /// The number of times that changes since the pin were taken in.
    rounds: usize,
    /// The relations renamed while a thread had the operators.
    renamed: Vec<(Arc<str>, Arc<str>)>,
    /// True if that piece is the state of the old query.
    pub(super) inherits: bool,
}

/// The input of one step.
#[derive(Debug)]
struct Piece {
    inputs: Vec<Delta>,
    /// Its batch time.
    now: Timestamp,
    /// Lets the source's reader continue.
    _permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Step {
    cut: Cut,
    done: Receiver<Done>,
    _given_up: GivenUp,
}

/// The memory of a query in backfill, counted as its statement's.
#[derive(Debug)]
pub(in crate::run) struct BeginningMemory {
    pub(in crate::run) pool: Arc<dyn MemoryPool>,
    state: MemoryReservation,
}

impl BeginningMemory {
    pub(in crate::run) fn begin(all: &AllStatements, settings: &Settings) -> BeginningMemory {
        let (pool, state) = statement_memory::of_new_query(all, settings);
        BeginningMemory { pool, state }
    }
}

impl Pieces {
    /// Returns the pieces of a query that begins with this content.
    pub(super) fn beginning_with(content: Vec<Delta>, now: Timestamp) -> Pieces {
        let first = Piece { inputs: content, now, _permit: None };
        Pieces { waiting: VecDeque::from([first]), ..Pieces::default() }
    }

    /// Returns the pieces of a successor that begins with the old query's state, which a thread takes over.
    pub(super) fn inheriting(cut: Cut, done: Receiver<Done>, _given_up: GivenUp) -> Pieces {
        let (now, step) = (cut.now, Step { cut, done, _given_up });
        Pieces { step: Some(step), now, inherits: true, ..Pieces::default() }
    }

    pub(super) fn push(
        &mut self,
        (input, rows): (usize, Delta),
        (inputs, now): (usize, Timestamp),
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let mut all = vec![Delta::default(); inputs];
        if let Some(all) = all.get_mut(input) {
            *all = rows;
        }
        self.waiting.push_back(Piece { inputs: all, now, _permit: permit });
    }

    /// True if no piece is left, and no thread has the operators.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.since.is_empty() && self.step.is_none()
    }

    /// True if sources are so fast that they must wait for it: otherwise it would never become current.
    pub(super) fn is_overtaken(&self) -> bool {
        self.rounds >= OPEN_ROUNDS_MAX
    }

    pub(super) fn is_away(&self) -> bool {
        self.step.is_some()
    }

    /// Remembers renamed relations while a thread has the operators.
    pub(super) fn rename(&mut self, names: &Names) {
        if self.is_away() {
            self.renamed.extend(names.iter().map(|(from, to)| (from.clone(), to.clone())));
        }
    }

    fn num_rows(&self) -> usize {
        let since = self.since.iter().map(|(_, inputs)| inputs);
        let inputs = self.waiting.iter().map(|piece| &piece.inputs).chain(since);
        inputs.flatten().map(Delta::num_rows).sum()
    }

    fn done(&mut self) -> Option<(Cut, Result<Done>)> {
        let done = match self.step.as_ref()?.done.try_recv() {
            Ok(done) => Ok(done),
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(Error::bug("the thread that stepped the query panicked")),
        };
        self.inherits = false;
        self.step.take().map(|step| (step.cut, done))
    }
}

impl QueryStarts<'_> {
    /// Takes over the pieces that threads have taken in, and makes queries current that have no pieces left.
    pub(in crate::run) fn take_past_pieces(&mut self) {
        for place in 0..self.queries.len() {
            let done = self.queries[place].status.pieces_mut().and_then(Pieces::done);
            if let Some((cut, done)) = done {
                self.take_past_piece(place, cut, done);
            }
        }
        if !self.durability.is_recovering() {
            self.take_since();
        }
    }

    fn take_past_piece(&mut self, place: usize, cut: Cut, done: Result<Done>) {
        // Sinks identify epochs by their numbers, and later epochs may have ended meanwhile.
        let puts_out = matches!(&done, Ok(Done { change: Ok(change), .. }) if !change.rows.is_empty());
        let is_shown = puts_out && !self.durability.is_on() && !self.queries[place].result.shows_at_once();
        let cut = if is_shown { self.clock.piece_cut(self.queries, &self.setup.settings) } else { cut };
        let query = &mut self.queries[place];
        let renamed = query.status.pieces_mut().map(|pieces| std::mem::take(&mut pieces.renamed));
        query.last_step.begin();
        let taken = done.and_then(|done| {
            query.flow.take_back(done.flow, done.told);
            query.flow.note_panic(done.panic);
            if let Some(flow) = query.flow.here_mut() {
                renamed.into_iter().flatten().for_each(|(from, to)| flow.rename_relation(&from, &to));
            }
            if let Some(result) = done.result {
                query.result.rows.take_back(result);
            }
            query.take_up(&cut, done.change?, false)
        });
        let counted = taken.and_then(|delta| {
            count_past(self.queries, self.waiters, &self.outputs.successors, place).map(|()| delta)
        });
        match counted {
            Ok(delta) => put_out_past(self.queries, self.outputs, place, &cut, delta),
            Err(reason) => {
                self.queries[place].suspend(reason, cut.epoch);
                self.queries.readers_left();
            }
        }
    }

    /// Takes the changes since the pin out of the logs if they are many. Makes the queries current that have taken in
    /// all but a few.
    fn take_since(&mut self) {
        let mut arriving = Vec::new();
        for place in 0..self.queries.len() {
            let rest_max = rows_at_once(&self.queries[place].flow, REST_ROWS_MAX);
            let Status::CatchingUp(catch_up) = &self.queries[place].status else { continue };
            let (bytes, rounds) = (catch_up.pieces.since_bytes, catch_up.pieces.rounds);
            let (has_read, has_content) = (catch_up.has_read(), catch_up.has_content);
            let (rows, is_much) = self.outputs.logs.rows_for(&self.queries[place]);
            let moves = if has_read { rows > rest_max && rounds < ROUNDS_MAX } else { is_much };
            // A query that takes the kept content last doesn't need changes from before that.
            if moves && has_content && bytes < STATEMENTS_BYTES_MAX {
                let is_additive = self.queries[place].flow.is_additive();
                let mut since = std::iter::from_fn(|| next_since(self.queries, self.outputs, place));
                let epochs: Vec<(Cut, Vec<Delta>)> = match is_additive {
                    true => together(since).into_iter().collect(),
                    false => since.by_ref().take(EPOCHS_AT_ONCE).collect(),
                };
                let Some(pieces) = self.queries[place].status.pieces_mut() else { continue };
                pieces.rounds += usize::from(has_read);
                for (cut, inputs) in epochs {
                    pieces.since_bytes += inputs.iter().map(Delta::memory_bytes).sum::<usize>();
                    pieces.since.push_back((cut.now, inputs));
                }
            } else if has_read && !self.queries[place].role.is_successor() {
                arriving.push(self.queries[place].name.clone());
            }
        }
        for name in arriving {
            // A query that becomes current may start others, so each is looked up again.
            if let Some(place) = self.queries.iter().position(|query| Arc::ptr_eq(&query.name, &name)) {
                self.arrive_durably(place);
            }
        }
    }
}

/// Makes threads take in waiting pieces.
pub(in crate::run) fn begin_past_pieces(
    queries: &mut Queries,
    outputs: &Outputs,
    durability: &mut Durability,
    settings: &Settings,
    tasks: &Tasks,
    waiters: &Waiters,
    epoch: Epoch,
) {
    if durability.is_recovering() {
        return;
    }
    for place in 0..queries.len() {
        if let Err(reason) = begin_past_piece(queries, outputs, durability, settings, tasks, waiters, place) {
            queries[place].suspend(reason, epoch);
        }
    }
}

fn begin_past_piece(
    queries: &mut Queries,
    outputs: &Outputs,
    durability: &mut Durability,
    settings: &Settings,
    tasks: &Tasks,
    waiters: &Waiters,
    place: usize,
) -> Result<()> {
    let query = &queries[place];
    let has_time =
        || matches!(&query.status, Status::CatchingUp(catch_up) if catch_up.begun.elapsed() < READER_TIME);
    if query.role.is_temporary() && has_time() && outputs.own_reader_has_much(settings, &query.name) {
        return Ok(());
    }
    let query = &mut queries[place];
    let Status::CatchingUp(catch_up) = &mut query.status else { return Ok(()) };
    let (has_all, entry) = (catch_up.reading.is_empty(), catch_up.entry);
    let pieces = &mut catch_up.pieces;
    if pieces.is_away() {
        return Ok(());
    }
    let mut piece = pieces.waiting.pop_front();
    if piece.is_none() && has_all {
        let since = pieces.since.pop_front();
        let bytes = since.iter().flat_map(|(_, inputs)| inputs).map(Delta::memory_bytes).sum();
        pieces.since_bytes = pieces.since_bytes.saturating_sub(bytes);
        piece = since.map(|(now, inputs)| Piece { inputs, now, _permit: None });
    }
    let Some(Piece { inputs, now, _permit: permit }) = piece else { return Ok(()) };
    let cut = Cut { now: now.max(pieces.now), ..catch_up.pinned.clone() };
    pieces.now = cut.now;
    // Rows that already have the columns of their batch keep them.
    let stamped = query.feeds.iter().zip(&inputs).map(|(feed, delta)| feed.stamp(delta, (&cut).into()));
    let inputs = stamped.map(|delta| delta.map(Cow::into_owned)).collect::<Result<_>>()?;
    if let Some(entry) = entry {
        durability.crash_notes.note_piece(entry, &query.name);
    }
    query.result.hide_backfill();
    let read = query.needs_changes();
    query.flow.tell_little();
    let Some(flow) = query.flow.lend() else {
        return Err(Error::bug("the operators of a new query are gone"));
    };
    let given_up = GivenUp::default();
    let memory = query.status.memory();
    let watched = Watched {
        given_up: given_up.interrupt(),
        memory,
        job: statement_creating(queries, waiters, &outputs.successors, place),
    };
    let of = cut.clone();
    let done = tasks.on_a_thread(given_up.ends(move || {
        let _permit = permit;
        take_in(flow, &of, inputs, read, &watched)
    }))?;
    if let Some(pieces) = queries[place].status.pieces_mut() {
        pieces.step = Some(Step { cut, done, _given_up: given_up });
    }
    Ok(())
}

/// Takes in the pieces that wait since a start, on the loop.
pub(in crate::run) fn take_waiting_pieces(
    queries: &mut Queries,
    outputs: &mut Outputs,
    durability: &mut Durability,
    place: usize,
) {
    while let Some(piece) = queries[place].status.pieces_mut().and_then(|pieces| pieces.waiting.pop_front()) {
        let pinned = queries[place].status.pinned(queries[place].progress.epoch());
        if !may_step(queries, durability, place, pinned.epoch) {
            return;
        }
        take_piece_here(queries, outputs, place, &pinned, &piece.inputs);
    }
}

/// Takes in the content of a query's inputs at its creation, on the loop.
pub(super) fn take_piece_here(
    queries: &mut Queries,
    outputs: &mut Outputs,
    place: usize,
    cut: &Cut,
    inputs: &[Delta],
) {
    let query = &mut queries[place];
    query.result.set_unread(false);
    let delta = query.step_stamped(cut, Ok(inputs.iter().map(Cow::Borrowed).collect()));
    put_out_past(queries, outputs, place, cut, delta);
}

/// Counts the rows that are left as those of the statement that creates the query. Fails if the query's state
/// exceeds the statement's memory limit.
fn count_past(
    queries: &mut Queries,
    waiters: &Waiters,
    successors: &[Successor],
    place: usize,
) -> Result<()> {
    let job = statement_creating(queries, waiters, successors, place);
    let query = &mut queries[place];
    let state = query.state_bytes();
    let Status::CatchingUp(catch_up) = &mut query.status else { return Ok(()) };
    if let Some(job) = job.filter(|_| catch_up.reading.is_empty()) {
        let done = job.rows_done.load(Ordering::Relaxed);
        job.rows_total.store(done + catch_up.pieces.num_rows() as u64, Ordering::Relaxed);
    }
    let bytes = state + catch_up.held.as_ref().map_or(0, Delta::memory_bytes);
    catch_up.memory.as_ref().map_or(Ok(()), |memory| Ok(memory.state.try_resize(bytes)?))
}

/// Returns the statement that waits for a query in backfill.
pub(super) fn statement_creating(
    queries: &[RunningQuery],
    waiters: &Waiters,
    successors: &[Successor],
    place: usize,
) -> Option<Arc<Job>> {
    let name = &queries[place].name;
    let successor = || successors.iter().find_map(|successor| successor.job_of(name));
    waiters.job_of(name).or_else(successor)
}

/// True if a query takes in this initial content outside of the loop. A restart decides the same.
pub(in crate::run) fn begins_apart(
    queries: &[RunningQuery],
    execution: &Execution,
    settings: &Settings,
    place: usize,
    content: &[Delta],
) -> bool {
    let rows: usize = content.iter().map(Delta::num_rows).sum();
    let query = &queries[place];
    match execution.options.apart.is_some() {
        true => rows > 0,
        false => settings.clock == ClockKind::System && rows > rows_at_once(&query.flow, LOOP_ROWS_MAX),
    }
}

/// True if more rows wait for a paused query in the logs of its inputs than the loop takes in at once.
pub(in crate::run) fn has_many_to_resume(queries: &[RunningQuery], outputs: &Outputs, place: usize) -> bool {
    let query = &queries[place];
    outputs.logs.rows_for(query).0 > rows_at_once(&query.flow, LOOP_ROWS_MAX)
}

/// The owner of a piece that a thread takes in.
pub(super) struct Watched {
    /// Raised if the query is cancelled.
    pub(super) given_up: Interrupt,
    pub(super) memory: Option<Arc<BeginningMemory>>,
    pub(super) job: Option<Arc<Job>>,
}

impl Watched {
    /// Counts a part of so many rows, after which the query keeps so many bytes. Fails if that is beyond the limit.
    pub(super) fn count(&self, rows: usize, bytes: usize) -> Result<()> {
        if let Some(job) = &self.job {
            job.rows_done.fetch_add(rows as u64, Ordering::Relaxed);
        }
        let Some(memory) = &self.memory else { return Ok(()) };
        if let Some(job) = &self.job {
            job.counts_memory(&memory.pool);
        }
        Ok(memory.state.try_resize(bytes.max(memory.state.size()))?)
    }
}

/// Takes in a piece on a thread, unless the query is cancelled.
fn take_in(mut flow: Flow, cut: &Cut, inputs: Vec<Delta>, read: bool, watched: &Watched) -> Done {
    let begun = Instant::now();
    let rows = inputs.iter().map(Delta::num_rows).sum();
    // An update stays in one part. A step that costs the same at any size isn't split either.
    let is_whole =
        flow.cost() >= Cost::Few || !flow.is_additive() || !inputs.iter().all(Delta::is_append_only);
    let mut parts = Parts::of(inputs);
    let (mut size, mut all, mut panic) = (PartRows::default(), Ok(Change::default()), None);
    while let Some(part) = parts.next(if is_whole { None } else { Some(size.get()) }) {
        let begun = Instant::now();
        let (change, panicked) = own_flow::step(&mut flow, cut, &part.iter().collect::<Vec<_>>(), read);
        size.took(begun.elapsed());
        panic = panicked;
        let rows = part.iter().map(Delta::num_rows).sum();
        let counted = change.and_then(|change| watched.count(rows, flow.state_bytes()).map(|()| change));
        all = all.and_then(|all| counted.map(|change| in_all(all, change)));
        if all.is_err() || watched.given_up.is_raised() {
            break;
        }
    }
    // After a panic the operators are inconsistent.
    let told = if all.is_ok() { Told::little_of(&flow) } else { Told::default() };
    Done { flow, told, change: all, result: None, batches: None, panic, took: begun.elapsed(), rows }
}

fn in_all(mut all: Change, change: Change) -> Change {
    all.rows.append(change.rows);
    all.errors.append(change.errors);
    all.failing.extend(change.failing);
    all.left_out += change.left_out;
    all.late.extend(change.late);
    all
}

/// The parts of a piece: one input after the other.
struct Parts {
    left: Vec<VecDeque<Chunk>>,
    /// False until the first part, which exists even if the piece is empty.
    begun: bool,
}

impl Parts {
    fn of(inputs: Vec<Delta>) -> Parts {
        Parts { left: inputs.into_iter().map(|delta| delta.chunks.into()).collect(), begun: false }
    }

    /// Returns the next part: so many rows at most, or all.
    fn next(&mut self, rows_max: Option<usize>) -> Option<Vec<Delta>> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        let mut part = vec![Delta::default(); self.left.len()];
        let mut room = rows_max.unwrap_or(usize::MAX);
        for (part, left) in part.iter_mut().zip(&mut self.left) {
            while room > 0
                && let Some(chunk) = left.pop_front()
            {
                let count = chunk.rows.num_rows();
                if count > room {
                    left.push_front(chunk.slice(room, count - room));
                }
                part.push(chunk.slice(0, room.min(count)));
                room -= room.min(count);
            }
        }
        (is_first || part.iter().any(|delta| !delta.is_empty())).then_some(part)
    }
}

/// Returns the number of rows that a query may take in while others wait for the loop.
fn rows_at_once(flow: &OwnFlow, rows_max: usize) -> usize {
    if flow.cost() > Cost::Delta { LOOP_ROWS_DEAR_MAX.min(rows_max) } else { rows_max }
}
