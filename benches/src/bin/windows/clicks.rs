//! A source of rows with increasing times, a share of which are late.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream::connect::{Connector, Error, OptionDoc, Result, Source, SourceSpec};
use millstream_benches::generated::{Generated, Rows, mixed};

/// Lateness of late rows.
const LATE_US: i64 = 300_000_000;

/// `connector = 'clicks'`: rows (k, v, ts), as many a pull as requested.
#[derive(Debug)]
pub struct Clicks;

/// Returns the statement that creates a source `s` of them.
pub fn source(keys: usize, rows_per_second: usize, late_percent: usize) -> String {
    format!(
        "CREATE SOURCE s (k BIGINT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds') \
         WITH (connector = 'clicks', keys = {keys}, rows_per_second = {rows_per_second}, late_percent = {late_percent})"
    )
}

const OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "keys", default: None, doc: "How many keys there are." },
    OptionDoc { name: "rows_per_second", default: None, doc: "How many rows a second of their time has." },
    OptionDoc {
        name: "late_percent",
        default: None,
        doc: "How many of a hundred rows are five minutes late.",
    },
];

impl Connector for Clicks {
    fn name(&self) -> &'static str {
        "clicks"
    }
    fn summary(&self) -> &'static str {
        "Rows without end, whose times go on."
    }
    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let number = |name: &str| Ok(spec.options.parse(name, "a number")?.unwrap_or(1));
        Ok(Box::new(Generated::new(Times {
            schema: schema(),
            keys: number("keys")?,
            rows_per_second: number("rows_per_second")?,
            late_percent: number("late_percent")?,
        })))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

struct Times {
    schema: SchemaRef,
    keys: u64,
    rows_per_second: u64,
    late_percent: u64,
}

impl Rows for Times {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self, numbers: Range<u64>) -> Result<RecordBatch> {
        let time = |n: u64| {
            let time = (n as i128 * 1_000_000 / i128::from(self.rows_per_second)) as i64;
            if mixed(n) % 100 < self.late_percent { time - LATE_US } else { time }
        };
        let keys = Int64Array::from_iter_values(numbers.clone().map(|n| (mixed(n + 7) % self.keys) as i64));
        let values = Int64Array::from_iter_values(numbers.clone().map(|n| (n % 1000) as i64));
        let times = TimestampMicrosecondArray::from_iter_values(numbers.map(time));
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values), Arc::new(times)];
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| Error::Bug(format!("rows don't fit their schema: {error}")))
    }
}
