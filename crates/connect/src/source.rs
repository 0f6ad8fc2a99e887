//! The trait of sources.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{SchemaRef, TimeUnit};
use async_trait::async_trait;
use millstream_delta::{Position, Span};

use crate::formats::framing::BadRecord;
use crate::{Error, Health, Options, Result};

/// The parameters of a new source.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The source's name in the catalog, for messages.
    pub name: String,
    /// The declared columns; `None` if the statement has none, and the source infers them.
    pub columns: Option<SchemaRef>,
    /// Column numbers of the PRIMARY KEY; empty if none is declared.
    pub key: Vec<usize>,
    /// The `WITH` options.
    pub options: Options,
    /// Maximum length of a record; a longer one is a bad row.
    pub max_record_bytes: usize,
    /// The unit of times in columns that are not declared, if the source has no unit of its own.
    pub timestamp_unit: TimeUnit,
    /// The slot for problems that no method returns.
    pub health: Health,
}

/// The metadata key of a field that, with the value `true`, excludes the column from `*`.
pub const HIDDEN: &str = "millstream.hidden";

/// The size limit of one pull. A source stops at the first record that reaches either bound, so that even
/// one long record gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Maximum number of rows.
    pub rows: usize,
    /// Approximate maximum of decoded bytes.
    pub bytes: usize,
}

/// The availability of further rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More rows are available now.
    Now,
    /// Nothing for the moment: wait with [`Source::ready`].
    Later,
    /// The source has ended.
    Never,
}

/// A record that could not be decoded. Bad rows are data: the engine counts and keeps them, and
/// `bad_rows('source')` returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The split of the record.
    pub split: Arc<str>,
    /// The start of the record in the split, in the source's units.
    pub offset: u64,
    /// The value found and the value expected.
    pub reason: String,
    /// The record's bytes, cut at [`BadRow::BYTES_MAX`].
    pub bytes: Vec<u8>,
}

impl BadRow {
    /// Creates the bad row of a record of `split`.
    pub(crate) fn of(split: &Arc<str>, bad: BadRecord) -> BadRow {
        BadRow { split: split.clone(), offset: bad.offset, reason: bad.reason, bytes: bad.bytes }
    }

    /// Maximum bytes kept of a bad record.
    pub const BYTES_MAX: usize = 64 * 1024;
}

/// The result of one pull.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Rows of the source's schema, each batch within the limit. A change feed has one column more.
    pub rows: Vec<RecordBatch>,
    /// The spans that were read: reading them again returns the same rows and bad rows.
    pub spans: Vec<Span>,
    /// Records that could not be decoded.
    pub bad_rows: Vec<BadRow>,
    /// The availability of further rows.
    pub more: More,
    /// The split of each batch in `rows`; empty if all belong to the last of the `spans`.
    pub splits: Vec<Arc<str>>,
}

impl Arrival {
    /// Creates an empty arrival.
    pub fn nothing(more: More) -> Arrival {
        Arrival { rows: Vec::new(), spans: Vec::new(), bad_rows: Vec::new(), more, splits: Vec::new() }
    }

    /// Returns the split of a batch of the rows, if the arrival has one.
    pub fn split_of(&self, batch: usize) -> Option<&Arc<str>> {
        self.splits.get(batch).or_else(|| self.spans.last().map(|span| &span.split))
    }
}

/// The order in which a source reads its splits, which determines its partitions for watermarks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// One after the other: all splits together are one partition.
    #[default]
    InTurn,
    /// Several at a time: each split is a partition. These exist from the start, others from their first
    /// span on.
    SideBySide(Vec<Arc<str>>),
}

/// A place that a user moves a source to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jump {
    /// The splits whose names match this glob, from their beginning.
    Again(String),
    /// A place in the connector's words, as its option `start` takes them.
    To(String),
}

/// The target of INSERT INTO a source.
#[async_trait]
pub trait Inlet: Send + Sync {
    /// Accepts the rows of one statement, with the source's visible columns. Returns when they are
    /// accepted, possibly after waiting for room.
    async fn insert(&self, rows: RecordBatch) -> Result<()>;
}

/// The properties of a source, which the engine asks for once. By default nothing special can be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProperties {
    /// True if the source ends by itself.
    pub bounded: bool,
    /// True if [`Source::replay`] reads old spans again, byte for byte.
    pub replayable: bool,
    /// True if the rows are upserts and deletes by [`SourceSpec::key`], in order. Batches then have a
    /// [`crate::deleted_field`] after the columns of the schema.
    pub brings_changes: bool,
    /// True if [`Source::want`] has an effect.
    pub prunes_columns: bool,
    /// True if the source needs calls of [`Source::acknowledge`].
    pub reliable: bool,
    /// True if an epoch reads at most one arrival, and all of it, however many rows it has.
    pub one_arrival_a_batch: bool,
    /// The number of receivers read side by side; a rate limit applies to each.
    pub partitions: usize,
    /// The order in which the source reads its splits.
    pub reading: Reading,
    /// The number of a BIGINT column that has each row's position in its split, whichever columns are wanted. So a row is
    /// found again if a replay lacks rows before it.
    pub position_column: Option<usize>,
}

impl Default for SourceProperties {
    fn default() -> SourceProperties {
        SourceProperties {
            bounded: false,
            replayable: false,
            brings_changes: false,
            prunes_columns: false,
            reliable: false,
            one_arrival_a_batch: false,
            partitions: 1,
            reading: Reading::InTurn,
            position_column: None,
        }
    }
}

/// Rows from outside, pulled in bounded pieces.
///
/// The simplest source implements [`Source::schema`], [`Source::next`] and [`Source::ready`]; one that continues
/// after a restart also [`Source::seek`]. Everything else has a default, and [`Source::properties`] says which of the
/// rest the engine may use.
///
/// All methods are cancel-safe: a future dropped before it is ready has consumed nothing.
///
/// After [`crate::Error::External`] the engine retries, with growing pauses; any other error is final. A
/// source that retries by itself, with threads and connections of its own, reports problems in
/// [`SourceSpec::health`].
///
/// A **reliable** source has a sender that keeps rows until they are acknowledged. After a failure it may
/// return rows again under their old spans: the engine drops an arrival whose spans were all read before.
/// An arrival never mixes such spans with new ones.
#[async_trait]
pub trait Source: Send {
    /// Returns the schema of the rows, which never changes.
    fn schema(&self) -> &SchemaRef;
    /// Returns the available rows, within `limit`, without waiting for more.
    async fn next(&mut self, limit: Limit) -> Result<Arrival>;
    /// Waits until `next` may return something; called after [`More::Later`].
    async fn ready(&mut self) -> Result<()>;
    /// Continues after `after`. Called before the first `next`, if the source was read before. A start from a checkpoint
    /// calls it twice if the source is [`replayable`](SourceProperties::replayable): with the checkpoint's position
    /// before it replays later spans, and with the position after these. The last call counts. By default the sender
    /// knows where to continue.
    async fn seek(&mut self, _after: &Position) -> Result<()> {
        Ok(())
    }
    /// Returns the properties, which never change.
    fn properties(&self) -> SourceProperties {
        SourceProperties::default()
    }
    /// Reads `span`, or its first part, again, within `limit`. The arrival's only span is the part that was
    /// read; after [`More::Now`], call again with the rest. Doesn't affect `next`. Called only if the source is
    /// [`replayable`](SourceProperties::replayable).
    async fn replay(&mut self, _span: &Span, _limit: Limit) -> Result<Arrival> {
        Err(Error::Bug("a source that can't be replayed was to be replayed".into()))
    }
    /// Makes [`Source::next`] continue at another place, under spans of other splits. Returns the number of splits that
    /// this concerns.
    async fn jump(&mut self, to: &Jump) -> Result<usize> {
        Err(Error::Invalid(match to {
            Jump::Again(_) => {
                "a source of this connector has nothing that could be read again by name".into()
            }
            Jump::To(_) => "a source of this connector has no places at which it could continue".into(),
        }))
    }
    /// Sets the columns that must be valid in later results of [`Source::next`] and [`Source::replay`]. The
    /// others may hold any values of their types. The rows, the bad rows and the spans stay the same. Not
    /// called after a future of `next` was dropped before it was ready.
    async fn want(&mut self, _columns: &[bool]) -> Result<()> {
        Ok(())
    }
    /// Reports that all rows up to `through` are durable (in memory: their epoch is done), so the source
    /// can acknowledge them to its sender. Called in order, but not for every epoch, and only if the source is
    /// [`reliable`](SourceProperties::reliable).
    async fn acknowledge(&mut self, _through: &Position) -> Result<()> {
        Ok(())
    }
    /// Returns the target of INSERT INTO this source; `None` if it accepts none.
    fn inlet(&self) -> Option<Arc<dyn Inlet>> {
        None
    }
}
