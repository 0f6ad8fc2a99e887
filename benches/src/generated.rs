//! An unbounded source that computes rows from their numbers.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream::connect::{Arrival, Limit, More, Result, Source, SourceProperties};
use millstream::delta::{Position, Span};

/// A generator of rows by number.
pub trait Rows: Send + 'static {
    /// Returns the schema of the rows.
    fn schema(&self) -> &SchemaRef;
    /// Returns the rows with these numbers.
    fn rows(&self, numbers: Range<u64>) -> Result<RecordBatch>;
}

/// A source that returns as many rows a pull as requested.
#[derive(Debug)]
pub struct Generated<R> {
    rows: R,
    next: u64,
}

impl<R: Rows> Generated<R> {
    /// Creates a source that starts with row 0.
    pub fn new(rows: R) -> Generated<R> {
        Generated { rows, next: 0 }
    }

    fn read(&self, numbers: Range<u64>, more: More) -> Result<Arrival> {
        let spans = vec![Span { split: "rows".into(), from: numbers.start, to: numbers.end, done: false }];
        Ok(Arrival { rows: vec![self.rows.rows(numbers)?], spans, ..Arrival::nothing(more) })
    }
}

/// Returns a pseudorandom number from a number, as in splitmix64.
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[async_trait]
impl<R: Rows> Source for Generated<R> {
    fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, ..SourceProperties::default() }
    }
    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.next = after.splits.values().map(|progress| progress.through).max().unwrap_or(0);
        Ok(())
    }
    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let from = self.next;
        self.next += limit.rows as u64;
        self.read(from..self.next, More::Now)
    }
    async fn ready(&mut self) -> Result<()> {
        Ok(())
    }
    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let to = span.to.min(span.from + limit.rows as u64);
        self.read(span.from..to, if to < span.to { More::Now } else { More::Later })
    }
}
