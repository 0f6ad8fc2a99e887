//! A source without end whose rows follow from their number.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream::connect::{Arrival, Limit, More, Result, Source};
use millstream::delta::{Position, Span};

/// Rows of some numbers.
pub trait Rows: Send + 'static {
    /// Their columns.
    fn schema(&self) -> &SchemaRef;
    /// Those of these numbers.
    fn rows(&self, numbers: Range<u64>) -> Result<RecordBatch>;
}

/// As many of them a pull as asked for.
#[derive(Debug)]
pub struct Generated<R> {
    rows: R,
    next: u64,
}

impl<R: Rows> Generated<R> {
    /// From the first on.
    pub fn new(rows: R) -> Generated<R> {
        Generated { rows, next: 0 }
    }

    fn read(&self, numbers: Range<u64>, more: More) -> Result<Arrival> {
        let spans = vec![Span { split: "rows".into(), from: numbers.start, to: numbers.end, done: false }];
        Ok(Arrival { rows: vec![self.rows.rows(numbers)?], spans, ..Arrival::nothing(more) })
    }
}

/// A number from a number, as splitmix64 does it.
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
    fn replayable(&self) -> bool {
        true
    }
    fn bounded(&self) -> bool {
        false
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
    async fn acknowledge(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }
}
