//! The events that the loop handles.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use millstream_connect::{Arrival, Jump, Source};
use millstream_delta::{Cut, Epoch, Timestamp};
use millstream_durable::{
    Checkpoint, Checkpoints, Delivered, Entry, Journal, Notes, Recorded, Report, Sequence, SequenceValue,
    Standing,
};
use millstream_flow::{Explained, Flow, Wanted};
use millstream_sql::{BatchQuery, Dml, Result};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::Record;
use crate::catalog::Object;
use crate::changes::{Following, Opened};
use crate::content::Content;
use crate::jobs::{self, Job};
use crate::metrics::MetricValue;
use crate::run::{
    Backfill, Correction, Handover, Indexes, LogPlace, NewColumns, Parted, Reservation, RowsAnew, Since,
    SinkReport, TableWrite, Written,
};
use crate::settings::{Keeping, Settings};
use crate::source_history::SourceHistory;
use crate::system::{Excerpt, SystemTableDoc};
use crate::transaction::{Begun, Found};

/// The sender of a reply. Sending never fails, even if the requester has gone away.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Result<T>>,
    /// The statement that waits for the reply.
    job: Option<Weak<Job>>,
}

impl<T> Reply<T> {
    /// Creates a reply and the receiver to wait on.
    pub(crate) fn new() -> (Reply<T>, oneshot::Receiver<Result<T>>) {
        let (sender, receiver) = oneshot::channel();
        let job = jobs::current().as_ref().map(Arc::downgrade);
        (Reply { sender, job }, receiver)
    }

    /// Returns the statement that waits for the reply, while it runs.
    pub(crate) fn job(&self) -> Option<Arc<Job>> {
        self.job.as_ref()?.upgrade()
    }

    /// Returns true if the requester has gone away.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends the reply.
    pub(crate) fn send(self, answer: Result<T>) {
        let _ = self.sender.send(answer);
    }
}

/// A change of the catalog.
pub(crate) enum Change {
    /// Adds an object. A source is passed open, a backfilled query together with its backfill.
    Create { object: Arc<Object>, source: Option<Box<dyn Source>>, backfill: Option<Handover> },
    /// Replaces the definition of an object.
    Alter { object: Arc<Object> },
    /// Sets or removes the comment on an object, or on one of its columns.
    Comment { on: Arc<str>, column: Option<String>, text: Option<String> },
    /// Renames an object.
    Rename { from: Arc<str>, to: Arc<str> },
    /// Changes the columns and the constraints of a table.
    AlterTable(Box<AlteredTable>),
    /// Removes objects, dependent objects first.
    Drop { names: Vec<Arc<str>> },
}

/// A table with other columns or constraints.
pub(crate) struct AlteredTable {
    pub(crate) object: Arc<Object>,
    /// The values of the columns added at its end, for the existing rows.
    pub(crate) added: Vec<ScalarValue>,
    /// The proof that its rows meet the constraints, if there are new ones.
    pub(crate) verified: Option<VerifiedRows>,
    /// The change that no reader of the table survives, if there is one: "rename".
    pub(crate) affects_readers: Option<&'static str>,
    /// Its columns, if some were dropped.
    pub(crate) columns: Option<NewColumns>,
}

/// Rows of a table that meet new constraints.
pub(crate) struct VerifiedRows {
    /// The version of the table that had these rows.
    pub(crate) versions: Vec<TableVersion>,
    /// The new indexes, over these rows.
    pub(crate) indexes: Indexes,
    /// The rows, if they are stored anew: under a new primary key, or with other columns.
    pub(crate) anew: Option<RowsAnew>,
}

/// A request to replace the query of an existing relation.
pub(crate) struct Replacing {
    /// The version of the catalog that the query was planned against.
    pub(crate) base: u64,
    /// The new definition of the relation. Its `ddl` creates it where it doesn't exist.
    pub(crate) object: Arc<Object>,
    /// True if inputs that cannot be replayed contribute only their kept rows and later ones.
    pub(crate) from_now: bool,
    /// True for a plain view whose first columns have the plan of the present ones: its readers have that as a part.
    pub(crate) extends: bool,
    /// The journal entry.
    pub(crate) entry: Entry,
    /// Replies with notices for the user, or with `None` if the catalog has changed since.
    pub(crate) reply: Reply<Option<Vec<String>>>,
}

/// A change of a table's rows.
pub(crate) enum Modification {
    /// An INSERT, UPDATE or DELETE that finds few rows by key. The loop evaluates it.
    Statement(Box<Dml>),
    /// A statement that was evaluated outside the loop.
    Evaluated(Box<Evaluated>),
    /// Rows to insert.
    Insert { table: Arc<str>, rows: Vec<RecordBatch> },
    /// Rows to delete, each once.
    Delete { table: Arc<str>, rows: RecordBatch },
}

impl Modification {
    /// Returns the table or source whose rows change.
    pub(crate) fn table(&self) -> &str {
        match self {
            Modification::Statement(dml) => &dml.table,
            Modification::Evaluated(evaluated) => &evaluated.dml.table,
            Modification::Insert { table, .. } | Modification::Delete { table, .. } => table,
        }
    }

    /// Returns the maximum number of deleted and inserted rows, or `None` if it is unknown before evaluation.
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

/// The rows changed by an INSERT, UPDATE or DELETE.
pub(crate) struct Evaluated {
    pub(crate) dml: Dml,
    /// The result of the statement's query.
    pub(crate) rows: Vec<RecordBatch>,
    /// The result of the ON CONFLICT DO UPDATE query; `None` if there is none or the loop evaluates it.
    pub(crate) updated: Option<Vec<RecordBatch>>,
    /// The tables read, with their versions at that time.
    pub(crate) read: Vec<TableVersion>,
    /// The reservation that was held while reading, if any.
    pub(crate) reservation: Option<u64>,
}

/// A table and the number of changes it had seen.
#[derive(Clone, Debug)]
pub(crate) struct TableVersion {
    /// The loop's own copy of the name. It differs from that of a table that was dropped and recreated.
    pub(crate) name: Arc<str>,
    pub(crate) version: u64,
}

/// Relations as read by a statement that changes rows.
pub(crate) struct Staged {
    pub(crate) relations: Vec<Content>,
    /// The versions of the relations that are tables.
    pub(crate) versions: Vec<TableVersion>,
}

/// The distance that a manual clock moves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Advance {
    /// Moves by a number of batches.
    Batches(u64),
    /// Moves to a time.
    To(Timestamp),
}

/// A relation to read.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: Arc<str>,
    /// The rows wanted; empty means all. The answer may contain other rows too.
    pub(crate) wanted: Wanted,
}

/// The content of relations after one epoch.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The rows of each requested relation, in the order of the request.
    pub(crate) relations: Vec<Content>,
}

/// The status of an object, as SHOW displays it.
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

/// The object of a subscription.
pub(crate) enum Followed {
    /// A table or a materialized view.
    Relation(Arc<str>),
    /// A durable subscription.
    Durable(Arc<str>),
    /// The subscriber's own query, which ends with the subscription. The flag is true if windows emit when
    /// they close.
    Query(Box<LogicalPlan>, bool),
    /// The subscriber's own query FOR EACH BATCH.
    Batches(Box<BatchQuery>),
}

/// A request to subscribe.
pub(crate) struct Request {
    pub(crate) followed: Followed,
    pub(crate) following: Following,
}

/// The object of an EXPLAIN.
pub(crate) enum Explaining {
    /// A query that is not maintained, with its options. The flag is true if windows emit when they close.
    Plan(Box<LogicalPlan>, Keeping, bool),
    /// A query FOR EACH BATCH that does not run yet.
    Batches(Box<BatchQuery>),
    /// A materialized view, a stream or a sink.
    Object(Arc<str>),
}

/// A compiled query that runs once, outside the loop.
pub(crate) struct Compiled {
    pub(crate) flow: Flow,
    /// The rows of each input relation.
    pub(crate) inputs: Vec<Content>,
    pub(crate) cut: Cut,
}

/// A materialized view with its inputs, as of one epoch.
pub(crate) struct Pinned {
    pub(crate) epoch: Epoch,
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    /// The maintained result.
    pub(crate) rows: Content,
    /// True if its operators forget idle keys.
    pub(crate) forgets: bool,
    /// The state of its windows, if they close.
    pub(crate) windows: Option<Windows>,
    /// The inputs by name.
    pub(crate) inputs: Vec<(Arc<str>, PinnedInput)>,
}

/// The data for recomputing the windows of a view that late rows are put into, as of one epoch.
pub(crate) struct PinnedLate {
    /// The view's operators, without any state.
    pub(crate) flow: Flow,
    pub(crate) cut: Cut,
    /// The content of each of the flow's relations.
    pub(crate) inputs: Vec<PinnedInput>,
    /// The maintained result.
    pub(crate) rows: Content,
    /// The late rows, split into those to put in and the rest.
    pub(crate) parted: Parted,
    /// The column that identifies windows, and the value below which they are closed, as a count of its unit.
    pub(crate) shown: (usize, Option<i64>),
    /// True if the result is append-only.
    pub(crate) appends: bool,
    /// The number of times that late rows had been put in.
    pub(crate) times_put: u64,
}

/// The progress of a view's windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// The number of late rows.
    pub(crate) late: u64,
    /// True if windows emit when they close.
    pub(crate) on_close: bool,
    /// The column that identifies windows, if the result has one, and the value below which they are closed,
    /// as a count of its unit.
    pub(crate) shown: Option<(usize, Option<i64>)>,
}

/// An input of a view, as of one epoch.
pub(crate) enum PinnedInput {
    /// Kept rows.
    Rows(Content),
    /// The rows that a source has produced, read again.
    SourceHistory(Box<SourceHistory>),
}

/// A step of recovery.
pub(crate) enum Recovery {
    /// The start's crash notes, sent after the checkpoint was loaded, if there is one.
    Notes {
        /// The crash notes.
        notes: Box<Notes>,
        /// The entry of the loaded checkpoint, if there was one.
        checkpoint: Sequence,
    },
    /// The entry that is replayed next.
    Entry {
        /// Its number.
        entry: Sequence,
        /// True if it is the last entry.
        last: bool,
    },
    /// The time at which the engine was first opened.
    Opened(Timestamp),
    /// The time up to which batches were skipped.
    Skipped(Timestamp),
    /// The epoch and the time after which the following entries were made.
    Standing(Standing),
    /// An epoch.
    Epoch(Box<Recorded>),
    /// A query that became current.
    Arrived(String),
    /// The names under which statements were executed once.
    Done(Vec<String>),
    /// A durable subscription whose reader confirmed everything up to an epoch.
    Advanced(String, Epoch),
    /// A sequence that moved on, or was set.
    Sequence(SequenceValue),
    /// The epochs up to which sinks have published.
    Delivered(Vec<Delivered>),
    /// The state of the objects, which exist by now.
    Load(Box<Checkpoint>),
    /// The end of recovery: the engine runs normally from here on.
    Live(Box<Live>),
}

/// The durable resources of an engine after its start.
pub(crate) struct Live {
    /// The journal that the engine writes.
    pub(crate) journal: Journal,
    /// The place of its checkpoints.
    pub(crate) checkpoints: Checkpoints,
    /// The entry of the newest checkpoint.
    pub(crate) last: Sequence,
}

/// A request of a statement that is evaluated outside the loop.
pub(crate) enum Apart {
    /// Begins a backfill outside the loop, if the catalog still has version `base`. Replies with `None` if
    /// the loop runs the backfill itself.
    Backfill { base: u64, object: Arc<Object>, reply: Reply<Option<Box<Backfill>>> },
    /// Returns the new deltas in the logs of a backfill's inputs.
    BackfillSince { number: u64, names: Vec<Arc<str>>, places: Vec<LogPlace>, reply: Reply<Since> },
    /// Reads relations for a statement that changes rows: tables include changes that no epoch has taken in
    /// yet.
    ReadStaged { relations: Vec<Asked>, reservation: Option<u64>, reply: Reply<Staged> },
    /// Keeps other statements from changing these tables until the reservation is dropped.
    Reserve { tables: Vec<Arc<str>>, reply: Reply<Reservation> },
    /// Ends a reservation that was dropped.
    Unreserve { number: u64 },
}

/// A question that the loop answers from its present state.
pub(crate) enum Question {
    /// Explains the effect of replacing a relation's query, on the relation and on its operators.
    ExplainReplace { object: Arc<Object>, from_now: bool, extends: bool, reply: Reply<Vec<(String, String)>> },
    /// Asks if a statement was executed under this name.
    WasDone { name: String, reply: Reply<bool> },
    /// Looks up the current rows of a table by key, for each batch of keys.
    LookUp { table: Arc<str>, keys: Vec<ArrayRef>, reply: Reply<Found> },
    /// Reads rows of a table if it still has this version. Replies with `None` if it hasn't, or if the rows
    /// are not found by key.
    ReadTable { table: Arc<str>, wanted: Wanted, version: u64, reply: Reply<Option<Vec<RecordBatch>>> },
    /// Returns the relations whose wanted rows are found by key, with the key columns: `(a, b)`.
    FoundByKey { relations: Vec<Asked>, reply: Reply<Vec<(Arc<str>, String)>> },
    /// Explains how a query runs, or would run.
    Explain { what: Explaining, reply: Reply<Vec<Explained>> },
    /// Explains what holds back the output of a query; without a name, what makes the engine slow, late and large.
    /// Replies with pairs of a subject and an explanation.
    ExplainWhy { name: Option<String>, reply: Reply<Vec<(String, String)>> },
    /// Returns the present rows of system tables.
    SystemTables { tables: Vec<&'static SystemTableDoc>, excerpt: Excerpt, reply: Reply<Vec<RecordBatch>> },
    /// Returns the values of all metrics.
    Metrics { reply: Reply<Vec<MetricValue>> },
    /// Adds a sample of all metrics to the history.
    Sample { reply: Reply<()> },
    /// Returns the status of all objects.
    Status { reply: Reply<Vec<ObjectStatus>> },
    /// Returns the settings and the time.
    Settings { reply: Reply<(Settings, Timestamp)> },
    /// Replies with the paused queries in their order, if one has so many rows to take in that it would lag.
    Paused { reply: Reply<Vec<Arc<str>>> },
}

/// All events of the loop.
pub(crate) enum Event {
    /// Asks for the present state of the engine.
    Ask(Question),
    /// Changes the catalog, all or nothing, if it still has version `base`. Replies with `None` if it hasn't:
    /// plan again. `entry` goes to the journal.
    Change { base: u64, changes: Vec<Change>, entry: Box<Entry>, reply: Reply<Option<Vec<String>>> },
    /// Replaces the query of a relation. Replies when the successor has taken over.
    Replace(Box<Replacing>),
    /// Changes rows. Replies with the number of rows when their epoch is done. Remembers the `idempotency_key`.
    Modify { modification: Modification, idempotency_key: Option<String>, reply: Reply<u64> },
    /// Takes a checkpoint. Replies when it is on disk.
    Checkpoint { reply: Reply<()> },
    /// A checkpoint as of entry `through` was written or failed. `stopped` is how long it blocked the loop,
    /// `took` its total duration.
    Checkpointed { through: Sequence, stopped: Duration, took: Duration, written: Result<Written> },
    /// Runs a step of recovery.
    Recover { step: Recovery, reply: Reply<()> },
    /// A report of the journal.
    Journal(Report),
    /// Begins a transaction and returns its snapshot.
    Begin { reply: Reply<Begun> },
    /// Reads relations as of a transaction's snapshot.
    ReadAt { transaction: u64, relations: Vec<Asked>, stamped: bool, reply: Reply<Snapshot> },
    /// Commits all changes of a transaction, or none. Replies when the epoch is done.
    Commit { writes: Vec<TableWrite>, idempotency_key: Option<String>, reply: Reply<u64> },
    /// Ends a transaction.
    Release { transaction: u64 },
    /// Subscribes to the changes of a relation, if the catalog still has version `base`.
    Subscribe { base: u64, request: Request, reply: Reply<Option<Opened>> },
    /// A subscriber has room again for waiting changes. Only wakes the loop.
    Room,
    /// A lagging query was stepped, or may be. Only wakes the loop.
    Stepped,
    /// The reader of a durable subscription has confirmed everything up to an epoch.
    AdvanceSubscription { name: Arc<str>, through: Epoch, reply: Reply<()> },
    /// Journals the sequences that moved on. Replies when their numbers survive a crash.
    SaveSequences { reply: Reply<()> },
    /// A subscriber has gone away.
    Unsubscribe { subscription: u64 },
    /// A request of a statement that is evaluated outside the loop.
    Apart(Apart),
    /// Reads relations. If `stamped`, rows that belong to a batch include its columns.
    Read { relations: Vec<Asked>, stamped: bool, reply: Reply<Snapshot> },
    /// Compiles a query to run once, outside the loop.
    Compile { plan: Box<LogicalPlan>, reply: Reply<Compiled> },
    /// Observes a query over its next epochs.
    Observe { name: Arc<str>, epochs: u64, time: Duration, reply: Reply<Vec<Explained>> },
    /// Returns a view with its inputs, for a comparison outside the loop.
    Pin { view: Arc<str>, reply: Reply<Pinned> },
    /// Returns the data for putting late rows into their windows.
    PinLate { view: Arc<str>, rows: Vec<RecordBatch>, reply: Reply<PinnedLate> },
    /// Applies a correction. Replies with the number of late rows when the epoch is done.
    Correct { correction: Box<Correction>, reply: Reply<u64> },
    /// Changes a setting.
    Set { name: String, value: String, reply: Reply<()> },
    /// Moves a manual clock.
    Advance { advance: Advance, reply: Reply<()> },
    /// Replies when all earlier writes have been taken in.
    Flush { reply: Reply<()> },
    /// Replies with the version of the catalog once no statement may still undo the creation of these objects.
    Exists { names: Vec<Arc<str>>, reply: Reply<u64> },
    /// Holds (true) or releases (false) the loop: while held, it starts no epoch and reads no source.
    Hold(bool),
    /// Replies when every source has ended and everything is taken in and delivered.
    Finished { reply: Reply<()> },
    /// Runs a recorded epoch again.
    Replay { record: Box<Record>, reply: Reply<()> },
    /// A source's answer to a pull.
    Arrived { source: Arc<str>, ticket: u64, result: Result<Arrival>, at: Instant },
    /// Makes a source continue at another place. Replies with the number of its splits that this concerns.
    Jump { source: Arc<str>, to: Jump, reply: Reply<usize> },
    /// A source's answer to `Jump`.
    Jumped { source: Arc<str>, result: Result<usize>, reply: Reply<usize> },
    /// A source's answer to a replay.
    Replayed { source: Arc<str>, result: Result<Arrival> },
    /// Rows for a new query, read again from a source's history, or `None` at the end. The permit is released
    /// when the loop has taken the rows in.
    CaughtUp {
        query: Arc<str>,
        source: Arc<str>,
        piece: Option<Result<Vec<RecordBatch>>>,
        permit: Option<OwnedSemaphorePermit>,
    },
    /// A report of a sink's task.
    Sink { sink: Arc<str>, report: SinkReport },
    /// Pauses or resumes an object, or all that can be. Replies with the objects left out and the reasons. `replayed`: at
    /// a start, true if what sinks brought into tables was part of a later epoch.
    Pause { name: Option<String>, pause: bool, replayed: Option<bool>, reply: Reply<Vec<String>> },
    /// Finishes the epoch, lets the sinks finish and ends the engine. If `gracefully`, first takes in what
    /// sources have received.
    Stop { reply: Option<Reply<()>>, gracefully: bool },
}
