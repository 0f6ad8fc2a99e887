//! A source that returns a few rows at every pull.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream::connect::{Connector, Error, OptionDoc, Result, Source, SourceSpec};
use millstream_benches::generated::{Generated, Rows};

/// `connector = 'ten_rows'`: rows (k, v), as many a pull as requested.
#[derive(Debug)]
pub struct TenRows;

/// Returns rows `from..from + rows` of the endless sequence: three keys, values from 0 to 9.
pub fn batch(from: u64, rows: usize) -> Result<RecordBatch> {
    let numbers = from..from + rows as u64;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| (n % 3) as i64)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(|n| (n % 10) as i64)));
    RecordBatch::try_new(schema(), vec![keys, values])
        .map_err(|error| Error::Bug(format!("rows don't fit their schema: {error}")))
}

/// Returns how many of `rows` rows pass the bench's filter `v > 2`, where `rows` is a multiple of ten.
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
        // A connector with source options has a source.
        &[OptionDoc { name: "label", default: Some("none"), doc: "Means nothing." }]
    }
    fn source(&self, _: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(Generated::new(Numbers { schema: schema() })))
    }
}

struct Numbers {
    schema: SchemaRef,
}

impl Rows for Numbers {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self, numbers: Range<u64>) -> Result<RecordBatch> {
        batch(numbers.start, (numbers.end - numbers.start) as usize)
    }
}
