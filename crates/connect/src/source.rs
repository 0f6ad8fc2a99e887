//! The contract of a source.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Position, Span};

use crate::formats::framing::BadRecord;
use crate::{Error, Health, Options, Result};

/// What a source is opened with.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The source's name in the catalog, for messages.
    pub name: String,
    /// The declared columns; `None` where the statement has none, and the source finds its own.
    pub columns: Option<SchemaRef>,
    /// The places of the PRIMARY KEY in the declared columns; empty where none is declared.
    pub key: Vec<usize>,
    /// The `WITH` options.
    pub options: Options,
    /// A record longer than this is a bad row.
    pub max_record_bytes: usize,
    /// Where the source tells what is wrong with it, beside what its methods return.
    pub health: Health,
}

/// The key of a field's metadata that marks, with the value `true`, a column which `*` leaves out.
pub const HIDDEN: &str = "millstream.hidden";

/// How much one pull may bring. A source stops at the first record that reaches either bound, so one long
/// record always comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Rows at most.
    pub rows: usize,
    /// Decoded bytes, about.
    pub bytes: usize,
}

/// Whether another pull will bring more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More is there now.
    Now,
    /// Nothing more for the moment: wait with [`Source::ready`].
    Later,
    /// The source has ended.
    Never,
}

/// A record that could not be decoded. It is data: counted, kept aside, shown by `bad_rows('source')`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The split it came from.
    pub split: Arc<str>,
    /// Where in the split it begins, in the source's units.
    pub offset: u64,
    /// What was found and what was expected.
    pub reason: String,
    /// The record's bytes, cut at [`BadRow::BYTES_MAX`].
    pub bytes: Vec<u8>,
}

impl BadRow {
    /// A record of a split that is no row.
    pub(crate) fn of(split: &Arc<str>, bad: BadRecord) -> BadRow {
        BadRow { split: split.clone(), offset: bad.offset, reason: bad.reason, bytes: bad.bytes }
    }

    /// How many bytes of a bad record are kept.
    pub const BYTES_MAX: usize = 64 * 1024;
}

/// What one pull brought.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Rows of the source's schema, each batch within the limit; of a source of changes with one column more.
    pub rows: Vec<RecordBatch>,
    /// What was read to get them: reading these spans again brings the same rows and bad rows.
    pub spans: Vec<Span>,
    /// Records that could not be decoded.
    pub bad_rows: Vec<BadRow>,
    /// Whether another pull will bring more.
    pub more: More,
    /// The split of each of the `rows`; empty where all are of the last of the `spans`.
    pub splits: Vec<Arc<str>>,
}

impl Arrival {
    /// Nothing, so far.
    pub fn nothing(more: More) -> Arrival {
        Arrival { rows: Vec::new(), spans: Vec::new(), bad_rows: Vec::new(), more, splits: Vec::new() }
    }

    /// Which split a batch of the rows is of, where the arrival says so.
    pub fn split_of(&self, batch: usize) -> Option<&Arc<str>> {
        self.splits.get(batch).or_else(|| self.spans.last().map(|span| &span.split))
    }
}

/// How a source reads its splits: what each of them says of how far event time has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// One after the other, so that all of them are one partition to watermarks.
    #[default]
    InTurn,
    /// Several at a time: each is a partition. These are there from the beginning, the others from their first span on.
    SideBySide(Vec<Arc<str>>),
}

/// Where rows are put in from inside: what INSERT INTO a source writes to.
#[async_trait]
pub trait Inlet: Send + Sync {
    /// Takes the rows of one statement, of the source's visible columns; returns when they are accepted, which may
    /// mean to wait until there is room.
    async fn insert(&self, rows: RecordBatch) -> Result<()>;
}

/// Rows from outside, pulled in bounded pieces.
///
/// All methods are cancel-safe: a future that is dropped before it is ready has taken nothing.
///
/// A source that fails with [`crate::Error::External`] is asked again, after pauses that grow; with any other error
/// it has failed for good. One that sees to itself, with threads and connections of its own, says in
/// [`SourceSpec::health`] what is wrong meanwhile.
///
/// A **reliable** source has a sender that keeps rows until they are acknowledged. After a failure it may bring rows
/// again, under the spans that they had: an arrival all of whose spans were taken before is dropped. An arrival never
/// mixes such spans with new ones.
#[async_trait]
pub trait Source: Send {
    /// The schema of the rows, fixed from the opening on.
    fn schema(&self) -> &SchemaRef;
    /// Whether [`Source::replay`] works: what was read once can be read again, byte for byte.
    fn replayable(&self) -> bool;
    /// Whether what it brings are changes by [`SourceSpec::key`]: a row comes, takes the place of the one with its key,
    /// or goes, in their order. Its batches then have a [`crate::deleted_field`] behind the columns of its schema.
    fn brings_changes(&self) -> bool {
        false
    }
    /// Whether it heeds [`Source::want`].
    fn leaves_out(&self) -> bool {
        false
    }
    /// Says which columns of the schema are looked at in what [`Source::next`] and [`Source::replay`] bring from now on:
    /// the others may hold anything of their types. Which rows there are, which of them are bad, and their spans stay
    /// the same. Not after a future of `next` was dropped before it was ready.
    async fn want(&mut self, _columns: &[bool]) -> Result<()> {
        Ok(())
    }
    /// Whether it ends by itself.
    fn bounded(&self) -> bool;
    /// Continues after `after`; called once, before the first `next`, when the source was read before.
    async fn seek(&mut self, after: &Position) -> Result<()>;
    /// Takes what is there now, within `limit`, without waiting for more to come.
    async fn next(&mut self, limit: Limit) -> Result<Arrival>;
    /// Waits until `next` may bring something; called after [`More::Later`].
    async fn ready(&mut self) -> Result<()>;
    /// Reads (a first part of) `span` again, within `limit`; the arrival's only span says how far it got
    /// ([`More::Now`]: call again with the rest). Does not move what `next` takes. Only where
    /// [`Source::replayable`] holds.
    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival>;
    /// Forgets that the splits which `pattern` names were read, so that [`Source::next`] brings all of them again, under
    /// spans of other splits; says how many these are.
    async fn read_again(&mut self, _pattern: &str) -> Result<usize> {
        Err(Error::Invalid("a source of this connector has nothing that could be read again by name".into()))
    }
    /// Whether it wants to hear by [`Source::acknowledge`] how far it is durable.
    fn reliable(&self) -> bool {
        false
    }
    /// All up to `through` is durable (in memory: its epoch is done): a reliable source answers its sender now. It
    /// is called in order, but not for every epoch; only where [`Source::reliable`] holds.
    async fn acknowledge(&mut self, through: &Position) -> Result<()>;
    /// Whether an epoch takes one arrival at most, and all of it, however many rows that are.
    fn one_arrival_a_batch(&self) -> bool {
        false
    }
    /// How many receivers it reads from side by side; a rate limit counts for each.
    fn partitions(&self) -> usize {
        1
    }
    /// How it reads its splits.
    fn reading(&self) -> Reading {
        Reading::InTurn
    }
    /// Where INSERT INTO this source puts rows; `None` where it takes none.
    fn inlet(&self) -> Option<Arc<dyn Inlet>> {
        None
    }
}
