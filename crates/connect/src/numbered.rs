//! Sources that generate rows by number: a number has the same row in every run.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_delta::{Position, Span};

use crate::pace::Pace;
use crate::{Arrival, Health, Limit, More, Result, Source, SourceProperties};

/// The only split.
pub(crate) const SPLIT: &str = "0";

/// A generator of rows.
pub(crate) trait Numbered: Send {
    /// Returns the schema of the rows.
    fn schema(&self) -> &SchemaRef;
    /// Returns the end of the numbers from `from` on that are within `limit`; at least one is.
    fn within(&self, from: u64, limit: Limit) -> u64;
    /// Returns the rows with the numbers `from..to`. A number may have none.
    fn rows(&self, from: u64, to: u64) -> Result<Vec<RecordBatch>>;
}

/// A source of generated rows.
pub(crate) struct NumberedSource<N> {
    rows: N,
    /// The end of the numbers, if there is one.
    end: Option<u64>,
    pace: Pace,
    next: u64,
    health: Health,
}

impl<N: Numbered> NumberedSource<N> {
    /// Creates a source of the rows with numbers below `end`, at a pace.
    pub fn new(rows: N, end: Option<u64>, pace: Pace, health: Health) -> NumberedSource<N> {
        end.into_iter().for_each(|end| health.ends(SPLIT, end));
        NumberedSource { rows, end, pace, next: 0, health }
    }

    fn arrival(&self, from: u64, to: u64, done: bool, more: More) -> Result<Arrival> {
        let spans = match from < to || done {
            true => vec![Span { split: SPLIT.into(), from, to, done }],
            false => vec![],
        };
        Ok(Arrival { rows: self.rows.rows(from, to)?, spans, bad_rows: vec![], more, splits: Vec::new() })
    }
}

#[async_trait]
impl<N: Numbered + Sync> Source for NumberedSource<N> {
    fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, bounded: self.end.is_some(), ..SourceProperties::default() }
    }

    async fn seek(&mut self, after: &Position) -> Result<()> {
        self.next = after.splits.get(SPLIT).map_or(0, |progress| progress.through);
        Ok(())
    }

    async fn next(&mut self, limit: Limit) -> Result<Arrival> {
        let due = self.pace.due(self.next, self.end.unwrap_or(u64::MAX));
        let to = due.min(self.rows.within(self.next, limit)).max(self.next);
        let done = self.end.is_some_and(|end| to >= end);
        if let Some(end) = self.end {
            self.health.has_read(to, end);
        }
        let more = match (done, to < due) {
            (true, _) => More::Never,
            (false, true) => More::Now,
            (false, false) => More::Later,
        };
        let arrival = self.arrival(self.next, to, done, more)?;
        self.next = to;
        Ok(arrival)
    }

    async fn ready(&mut self) -> Result<()> {
        self.pace.ready(self.next).await;
        Ok(())
    }

    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let to = span.to.min(self.rows.within(span.from, limit));
        let more = if to < span.to { More::Now } else { More::Never };
        let mut arrival = self.arrival(span.from, to, false, more)?;
        arrival.spans = vec![Span { to, done: span.done && to >= span.to, ..span.clone() }];
        Ok(arrival)
    }
}
