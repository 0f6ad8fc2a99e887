//! A source that has a few rows at every pull.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream::connect::{
    Arrival, Connector, Error, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source, SourceSpec,
};
use millstream::delta::{Position, Span};

/// `connector = 'ten_rows'`: (k, v), as many rows a pull as asked for.
#[derive(Debug)]
pub struct TenRows;

/// Rows `from..from + rows` of the endless sequence: three keys, values from 0 to 9.
pub fn batch(from: u64, rows: usize) -> Result<RecordBatch> {
    let numbers = from..from + rows as u64;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| (n % 3) as i64)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(|n| (n % 10) as i64)));
    RecordBatch::try_new(schema(), vec![keys, values])
        .map_err(|error| Error::Bug(format!("rows don't fit their schema: {error}")))
}

/// How many of `rows` rows pass the bench's filter `v > 2`, where `rows` is a multiple of ten.
pub fn passing(rows: usize) -> usize {
    rows / 10 * 7 + (rows % 10).saturating_sub(3)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

impl Connector for TenRows {
    fn name(&self) -> &'static str {
        "ten_rows"
    }
    fn summary(&self) -> &'static str {
        "Rows without end."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        // A connector says by its options that it has a source.
        &[OptionDoc { name: "label", default: Some("none"), doc: "Means nothing." }]
    }
    fn sink_options(&self) -> &'static [OptionDoc] {
        &[]
    }
    fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(TenRowsSource { schema: schema(), next: 0 }))
    }
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Err(Error::Invalid(format!("'{}': connector 'ten_rows' has no sink", spec.name)))
    }
}

struct TenRowsSource {
    schema: SchemaRef,
    next: u64,
}

impl TenRowsSource {
    fn read(from: u64, to: u64, more: More) -> Result<Arrival> {
        let rows = vec![batch(from, (to - from) as usize)?];
        let spans = vec![Span { split: "rows".into(), from, to, done: false }];
        Ok(Arrival { rows, spans, bad_rows: Vec::new(), more, splits: Vec::new() })
    }
}

#[async_trait]
impl Source for TenRowsSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
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
        TenRowsSource::read(from, self.next, More::Now)
    }
    async fn ready(&mut self) -> Result<()> {
        Ok(())
    }
    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let to = span.to.min(span.from + limit.rows as u64);
        TenRowsSource::read(span.from, to, if to < span.to { More::Now } else { More::Later })
    }
    async fn acknowledge(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }
}
