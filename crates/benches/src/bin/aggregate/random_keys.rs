//! A source that first brings each key once, and then keys at random.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream::connect::{
    Arrival, Connector, Error, Limit, More, OptionDoc, Result, Sink, SinkSpec, Source, SourceSpec,
};
use millstream::delta::{Position, Span};

use crate::input;

/// `connector = 'random_keys'`: (k, v), as many rows a pull as asked for.
#[derive(Debug)]
pub struct RandomKeys;

impl Connector for RandomKeys {
    fn name(&self) -> &'static str {
        "random_keys"
    }
    fn summary(&self) -> &'static str {
        "Rows without end, of a number of keys."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        &[OptionDoc { name: "keys", default: None, doc: "How many keys there are." }]
    }
    fn sink_options(&self) -> &'static [OptionDoc] {
        &[]
    }
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let keys = spec.options.parse("keys", "a number")?.unwrap_or(1);
        Ok(Box::new(RandomKeysSource { schema: input::schema(), keys, next: 0 }))
    }
    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        Err(Error::Invalid(format!("'{}': connector 'random_keys' has no sink", spec.name)))
    }
}

struct RandomKeysSource {
    schema: SchemaRef,
    keys: u64,
    next: u64,
}

/// A number from a number, as splitmix64 does it.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl RandomKeysSource {
    fn read(&self, from: u64, to: u64, more: More) -> Result<Arrival> {
        let key = |n: u64| if n < self.keys { n } else { mixed(n) % self.keys };
        // Keys that are spread over all integers.
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((from..to).map(|n| mixed(key(n)) as i64)));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values((from..to).map(|n| (n % 1000) as i64)));
        let rows = RecordBatch::try_new(self.schema.clone(), vec![keys, values])
            .map_err(|error| Error::Bug(format!("rows don't fit their schema: {error}")))?;
        let spans = vec![Span { split: "rows".into(), from, to, done: false }];
        Ok(Arrival { rows: vec![rows], spans, bad_rows: Vec::new(), more, splits: Vec::new() })
    }
}

#[async_trait]
impl Source for RandomKeysSource {
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
        self.read(from, self.next, More::Now)
    }
    async fn ready(&mut self) -> Result<()> {
        Ok(())
    }
    async fn replay(&mut self, span: &Span, limit: Limit) -> Result<Arrival> {
        let to = span.to.min(span.from + limit.rows as u64);
        self.read(span.from, to, if to < span.to { More::Now } else { More::Later })
    }
    async fn acknowledge(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }
}
