//! All that can happen to the loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use millstream_connect::{Arrival, Source};
use millstream_delta::{Cut, Epoch, Timestamp};
use millstream_durable::{
    Checkpoint, Checkpoints, Delivered, Entry, Journal, Notes, Recorded, Report, Sequence, Standing,
};
use millstream_flow::{Explained, Flow, Wanted};
use millstream_sql::{BatchQuery, Dml, Result};
use millstream_state::RowsSnapshot;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::Record;
use crate::catalog::Object;
use crate::changes::{Following, Opened};
use crate::past::Past;
use crate::run::{Backfill, Correction, Handover, LogPlace, Parted, Published, Reservation, Since, Written};
use crate::settings::{Keeping, Settings};
use crate::transaction::{Begun, Found, Write};

/// Where an answer goes. Whoever asked may have gone away: sending never fails.
#[derive(Debug)]
pub(crate) struct Reply<T>(oneshot::Sender<Result<T>>);

impl<T> Reply<T> {
    /// A reply and the place to wait for it.
    pub(crate) fn new() -> (Reply<T>, oneshot::Receiver<Result<T>>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Whether whoever asked has gone away.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Answers.
    pub(crate) fn send(self, answer: Result<T>) {
        let _ = self.0.send(answer);
    }
}

/// A change of the catalog.
pub(crate) enum Change {
    /// A new object; a source comes opened, and a query that was backfilled with that.
    Create { object: Arc<Object>, source: Option<Box<dyn Source>>, backfill: Option<Handover> },
    /// An object as it is from now on.
    Alter { object: Arc<Object> },
    /// An object is called otherwise from now on.
    Rename { from: Arc<str>, to: Arc<str> },
    /// A table has columns behind those that it had, where its rows have these values.
    Widen { object: Arc<Object>, added: Vec<ScalarValue> },
    /// Objects to remove, those that read others first.
    Drop { names: Vec<Arc<str>> },
}

/// Another query for a relation that is there.
pub(crate) struct Replacing {
    /// The version of the catalog that it was planned against.
    pub(crate) base: u64,
    /// The relation as it is to be; `ddl` makes it where there is none.
    pub(crate) object: Arc<Object>,
    /// Whether of what can't be read again only that counts which is kept, or comes from now on.
    pub(crate) from_now: bool,
    /// What the journal is told.
    pub(crate) entry: Entry,
    /// What the user should know; none: the catalog is another one by now.
    pub(crate) reply: Reply<Option<Vec<String>>>,
}

/// A change of a table's rows.
pub(crate) enum Modification {
    /// INSERT, UPDATE, DELETE of few rows that are found by their key: the loop evaluates it.
    Statement(Box<Dml>),
    /// The same, evaluated outside of the loop.
    Evaluated(Box<Evaluated>),
    /// Rows to insert.
    Insert { table: Arc<str>, rows: Vec<RecordBatch> },
    /// Rows to delete, each once.
    Delete { table: Arc<str>, rows: RecordBatch },
}

impl Modification {
    /// The table, or the source, whose rows it changes.
    pub(crate) fn table(&self) -> &str {
        match self {
            Modification::Statement(dml) => &dml.table,
            Modification::Evaluated(evaluated) => &evaluated.dml.table,
            Modification::Insert { table, .. } | Modification::Delete { table, .. } => table,
        }
    }

    /// The most rows that it may let go and come; none where that isn't known before it is evaluated.
    pub(crate) fn num_rows_max(&self) -> Option<usize> {
        let count = |rows: &[RecordBatch]| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        match self {
            Modification::Statement(_) => None,
            Modification::Evaluated(evaluated) => {
                let updated = evaluated.updated.as_deref().map_or(0, count);
                Some(2 * (count(&evaluated.rows) + updated))
            }
            Modification::Insert { rows, .. } => Some(count(rows)),
            Modification::Delete { rows, .. } => Some(rows.num_rows()),
        }
    }
}

/// The rows that an INSERT, UPDATE or DELETE changes.
pub(crate) struct Evaluated {
    pub(crate) dml: Dml,
    /// What its query gave.
    pub(crate) rows: Vec<RecordBatch>,
    /// What the query of ON CONFLICT DO UPDATE gave; none where the loop evaluates that, or there is none.
    pub(crate) updated: Option<Vec<RecordBatch>>,
    /// The tables that were read, with their versions then.
    pub(crate) read: Vec<TableVersion>,
    /// The reservation under which they were read, where there was one.
    pub(crate) reservation: Option<u64>,
}

/// A table and how often it had changed.
#[derive(Clone, Debug)]
pub(crate) struct TableVersion {
    /// The loop's own copy of the name, by which it knows a table that was dropped and made again.
    pub(crate) name: Arc<str>,
    pub(crate) version: u64,
}

/// Relations as a statement that changes rows reads them.
pub(crate) struct Staged {
    pub(crate) relations: Vec<Content>,
    /// Of those that are tables, which versions.
    pub(crate) versions: Vec<TableVersion>,
}

/// The rows of a relation at one moment.
#[derive(Debug)]
pub(crate) enum Content {
    Batches(Vec<RecordBatch>),
    /// Shared with the loop; whoever reads them puts them together.
    Snapshot(RowsSnapshot),
}

impl Content {
    /// How many rows there are.
    pub(crate) fn num_rows(&self) -> usize {
        match self {
            Content::Batches(batches) => batches.iter().map(RecordBatch::num_rows).sum(),
            Content::Snapshot(rows) => rows.num_rows(),
        }
    }

    pub(crate) fn batches(self) -> Result<Vec<RecordBatch>> {
        match self {
            Content::Batches(batches) => Ok(batches),
            Content::Snapshot(rows) => rows.batches().map_err(crate::error::arrow),
        }
    }
}

/// How far a manual clock moves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Advance {
    /// By as many batches.
    Batches(u64),
    /// To a time.
    To(Timestamp),
}

/// A relation that is read.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: Arc<str>,
    /// Which rows are wanted, of all where it is empty; others may be given too.
    pub(crate) wanted: Wanted,
}

/// The content of relations after one epoch.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The rows of each relation that was asked for, in that order.
    pub(crate) relations: Vec<Content>,
}

/// An object as SHOW shows it.
#[derive(Clone, Debug)]
pub(crate) struct ObjectStatus {
    pub(crate) name: Arc<str>,
    pub(crate) status: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) rows: Option<u64>,
    pub(crate) bad_rows: Option<u64>,
    pub(crate) epoch: Option<u64>,
    pub(crate) state_bytes: Option<u64>,
    pub(crate) errors: Option<u64>,
    pub(crate) on_error: Option<&'static str>,
}

/// What a subscriber follows.
pub(crate) enum Followed {
    /// What the engine keeps: a table or a materialized view.
    Relation(Arc<str>),
    /// What a durable subscription keeps.
    Durable(Arc<str>),
    /// A query of the subscriber's own, which ends with it, and whether its windows are put out when they close.
    Query(Box<LogicalPlan>, bool),
    /// The same, run once per batch.
    Batches(Box<BatchQuery>),
}

/// What a subscriber asks for.
pub(crate) struct Request {
    pub(crate) followed: Followed,
    pub(crate) following: Following,
}

/// What EXPLAIN is about.
pub(crate) enum Explaining {
    /// A query that isn't maintained, with its options, and whether its windows are put out when they close.
    Plan(Box<LogicalPlan>, Keeping, bool),
    /// A query that would run once per batch.
    Batches(Box<BatchQuery>),
    /// A materialized view, a stream or a sink.
    Object(Arc<str>),
}

/// A query that is to run once, outside of the loop.
pub(crate) struct Compiled {
    pub(crate) flow: Flow,
    /// What each of its relations holds.
    pub(crate) inputs: Vec<Vec<RecordBatch>>,
    pub(crate) cut: Cut,
}

/// A materialized view with its inputs, as of one epoch.
pub(crate) struct Pinned {
    pub(crate) epoch: Epoch,
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    /// What is maintained.
    pub(crate) rows: Vec<RecordBatch>,
    /// Whether its operators forget keys that are idle.
    pub(crate) forgets: bool,
    /// How far its windows have closed, where they do.
    pub(crate) windows: Option<Windows>,
    /// By name, what it is computed of.
    pub(crate) inputs: Vec<(Arc<str>, PinnedInput)>,
}

/// What is needed to make the windows of a view again that late rows are put into, as of one epoch.
pub(crate) struct PinnedLate {
    /// The view's operators, as though nothing had come.
    pub(crate) flow: Flow,
    pub(crate) cut: Cut,
    /// One for each of the flow's relations.
    pub(crate) inputs: Vec<PinnedInput>,
    /// What is maintained.
    pub(crate) rows: Vec<RecordBatch>,
    /// The late rows that are put in, and the others.
    pub(crate) parted: Parted,
    /// The column by which windows are told apart, and below which value they are closed, as a count of its unit.
    pub(crate) shown: (usize, Option<i64>),
    /// Whether the result only ever gains rows.
    pub(crate) appends: bool,
    /// How often late rows had been put in.
    pub(crate) times_put: u64,
}

/// How far the windows of a view have closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// How many rows came later.
    pub(crate) late: u64,
    /// Whether they are put out when they close.
    pub(crate) on_close: bool,
    /// The column by which they can be told apart, where one is shown, and below which value they are closed, as a count
    /// of its unit.
    pub(crate) shown: Option<(usize, Option<i64>)>,
}

/// An input of a view, as of one epoch.
pub(crate) enum PinnedInput {
    /// Rows that are kept.
    Rows(Vec<RecordBatch>),
    /// What a source has brought.
    Past(Box<Past>),
}

/// A step of doing again what a journal holds.
pub(crate) enum Recovery {
    /// The start notes what it does; before that it has loaded a checkpoint, or none.
    Notes {
        /// Where it is noted.
        notes: Box<Notes>,
        /// The entry of the checkpoint that was loaded, if there was one.
        checkpoint: Sequence,
    },
    /// An entry is done again next.
    Entry {
        /// Its number.
        entry: Sequence,
        /// Whether there is none after it.
        last: bool,
    },
    /// The engine was first opened at this time.
    Opened(Timestamp),
    /// Batches up to this time were not run.
    Skipped(Timestamp),
    /// What follows was done after this epoch, at this time.
    Standing(Standing),
    /// An epoch was decided.
    Epoch(Box<Recorded>),
    /// A query had come to the present.
    Arrived(String),
    /// Statements were done under these names.
    Done(Vec<String>),
    /// The reader of a durable subscription had all up to an epoch.
    Advanced(String, Epoch),
    /// Sinks had published all up to these epochs.
    Delivered(Vec<Delivered>),
    /// The objects are there: what they kept is this.
    Load(Box<Checkpoint>),
    /// That was all: it goes on.
    Live(Box<Live>),
}

/// What an engine goes on with after its start.
pub(crate) struct Live {
    /// Where it writes what it decides.
    pub(crate) journal: Journal,
    /// Where its checkpoints are.
    pub(crate) checkpoints: Checkpoints,
    /// The entry that the newest one is of.
    pub(crate) last: Sequence,
}

/// What a statement that is evaluated outside of the loop asks it for.
pub(crate) enum Apart {
    /// Begin to take in outside of the loop what the inputs of a new query hold, if the catalog is still the one that
    /// `base` names; none where the loop does that as well.
    Backfill { base: u64, object: Arc<Object>, reply: Reply<Option<Box<Backfill>>> },
    /// Say what has come in the logs of the relations that a backfill reads.
    BackfillSince { number: u64, names: Vec<Arc<str>>, places: Vec<LogPlace>, reply: Reply<Since> },
    /// Read relations as a statement that changes rows does: tables with what no epoch has taken in yet.
    ReadStaged { relations: Vec<Asked>, reply: Reply<Staged> },
    /// Let no other statement change some tables until the reservation is dropped.
    Reserve { tables: Vec<Arc<str>>, reply: Reply<Reservation> },
    /// A reservation was dropped.
    Unreserve { number: u64 },
}

/// The closed list of what the loop reacts to.
pub(crate) enum Event {
    /// Change the catalog, all or nothing, if it is still the one that `base` names. `Ok(false)`: it isn't, plan
    /// again. `entry` tells the journal of it.
    Change { base: u64, changes: Vec<Change>, entry: Box<Entry>, reply: Reply<Option<Vec<String>>> },
    /// Give a relation another query; answers when that has taken the place of the old one.
    Replace(Box<Replacing>),
    /// Say what would become of a relation if it had another query, and of its operators.
    ExplainReplace { object: Arc<Object>, from_now: bool, reply: Reply<Vec<(String, String)>> },
    /// Change rows; answers with the number of rows when their epoch is done, and remembers that under a name.
    Modify { modification: Modification, once: Option<String>, reply: Reply<u64> },
    /// Take a checkpoint; answers when it is on the disk.
    Checkpoint { reply: Reply<()> },
    /// A checkpoint after this entry is on the disk, or can't be written: how long the loop stood still for it, how long
    /// it took, and what was written.
    Checkpointed { through: Sequence, stopped: Duration, took: Duration, written: Result<Written> },
    /// Say whether a statement was done under a name.
    WasDone { name: String, reply: Reply<bool> },
    /// Do again what a journal holds.
    Recover { step: Recovery, reply: Reply<()> },
    /// What the journal says.
    Journal(Report),
    /// Hand out what a transaction sees that begins now.
    Begin { reply: Reply<Begun> },
    /// Say which rows of a table have some keys now, for each batch of keys.
    LookUp { table: Arc<str>, keys: Vec<Vec<ArrayRef>>, reply: Reply<Vec<Found>> },
    /// Read relations as a transaction sees them.
    ReadAt { transaction: u64, relations: Vec<Asked>, stamped: bool, reply: Reply<Snapshot> },
    /// Read rows of a table whose content is of this version; none if it is another by now, or they are not found by
    /// their key.
    ReadTable { table: Arc<str>, wanted: Wanted, version: u64, reply: Reply<Option<Vec<RecordBatch>>> },
    /// Take all that a transaction has changed, or nothing; answers when the epoch is done.
    Commit { writes: Vec<Write>, once: Option<String>, reply: Reply<u64> },
    /// A transaction has ended.
    Release { transaction: u64 },
    /// Follow the changes of a relation, if the catalog is still the one that `base` names.
    Subscribe { base: u64, request: Request, reply: Reply<Option<Opened>> },
    /// A subscriber has room again for what waits.
    Room,
    /// A query that is behind has been stepped.
    Stepped,
    /// The reader of a durable subscription has all up to an epoch.
    AdvanceSubscription { name: Arc<str>, through: Epoch, reply: Reply<()> },
    /// A subscriber has gone.
    Unsubscribe { subscription: u64 },
    /// What a statement asks for that is evaluated outside of the loop.
    Apart(Apart),
    /// Read relations; `stamped`: with the columns of the batch, where rows have one.
    Read { relations: Vec<Asked>, stamped: bool, reply: Reply<Snapshot> },
    /// Say which relations give the rows that are wanted by a key, and its columns: `(a, b)`.
    FoundByKey { relations: Vec<Asked>, reply: Reply<Vec<(Arc<str>, String)>> },
    /// Say how a query runs, or would.
    Explain { what: Explaining, reply: Reply<Vec<Explained>> },
    /// Say what holds the output of a query back: what each line is about, and what is said of it.
    ExplainWhy { name: String, reply: Reply<Vec<(String, String)>> },
    /// Compile a query, to be run once outside.
    Compile { plan: Box<LogicalPlan>, reply: Reply<Compiled> },
    /// Say what a query does over its next epochs.
    Observe { name: Arc<str>, epochs: u64, time: Duration, reply: Reply<Vec<Explained>> },
    /// Hand out a view with its inputs, to be compared outside.
    Pin { view: Arc<str>, reply: Reply<Pinned> },
    /// Hand out what is needed to put late rows into their windows.
    PinLate { view: Arc<str>, rows: Vec<RecordBatch>, reply: Reply<PinnedLate> },
    /// Take in what that changes; answers with the number of late rows when the epoch is done.
    Correct { correction: Box<Correction>, reply: Reply<u64> },
    /// Describe all objects.
    Status { reply: Reply<Vec<ObjectStatus>> },
    /// Change a setting.
    Set { name: String, value: String, reply: Reply<()> },
    /// Read the settings and the time.
    Settings { reply: Reply<(Settings, Timestamp)> },
    /// Move a manual clock.
    Advance { advance: Advance, reply: Reply<()> },
    /// Answer when all that was written before is taken in.
    Flush { reply: Reply<()> },
    /// Start no epoch and read no source until told otherwise.
    Hold(bool),
    /// Answer when every source has ended and everything is taken in and delivered.
    Finished { reply: Reply<()> },
    /// Run a recorded epoch again.
    Replay { record: Box<Record>, reply: Reply<()> },
    /// A source's answer to a pull.
    Arrived { source: Arc<str>, ticket: u64, result: Result<Arrival>, at: Instant },
    /// Let a source read again what `pattern` names; answers with how many parts that are.
    ReadAgain { source: Arc<str>, pattern: String, reply: Reply<usize> },
    /// A source's answer to that.
    ReadsAgain { source: Arc<str>, result: Result<usize>, reply: Reply<usize> },
    /// A source's answer to a replay.
    Replayed { source: Arc<str>, result: Result<Arrival> },
    /// A piece of what a new query reads of a source's past, or `None` at its end. The permit is given back when
    /// the piece has been taken in.
    CaughtUp {
        query: Arc<str>,
        source: Arc<str>,
        piece: Option<Result<Vec<RecordBatch>>>,
        permit: Option<OwnedSemaphorePermit>,
    },
    /// A sink has said what it held when it was opened.
    SinkRecovered { sink: Arc<str>, held: Epoch },
    /// A sink has published what it was handed, up to epoch `through`.
    Delivered { sink: Arc<str>, published: Published },
    /// A sink failed and tries again, or for good.
    SinkFailed { sink: Arc<str>, reason: String, attempts: u32, lasting: bool },
    /// Let an object stand still, or all that can, or go on; answers with what was left out, and why.
    Pause { name: Option<String>, pause: bool, reply: Reply<Vec<String>> },
    /// Finish the epoch, let sinks finish, end; gracefully: take in what sources have brought first.
    Stop { reply: Option<Reply<()>>, gracefully: bool },
}
