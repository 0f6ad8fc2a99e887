//! A source that first returns each key once, and then random keys.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use millstream::connect::{Connector, Error, OptionDoc, Result, Source, SourceSpec};
use millstream_benches::generated::{Generated, Rows, mixed};

use crate::input;

/// `connector = 'random_keys'`: rows (k, v), as many a pull as requested.
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
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let keys = spec.options.parse("keys", "a number")?.unwrap_or(1);
        Ok(Box::new(Generated::new(Keys { schema: input::schema(), keys })))
    }
}

struct Keys {
    schema: SchemaRef,
    keys: u64,
}

impl Rows for Keys {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self, numbers: Range<u64>) -> Result<RecordBatch> {
        let key = |n: u64| if n < self.keys { n } else { mixed(n) % self.keys };
        // The keys are spread over all integers.
        let keys = Int64Array::from_iter_values(numbers.clone().map(|n| mixed(key(n)) as i64));
        let values = Int64Array::from_iter_values(numbers.map(|n| (n % 1000) as i64));
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values)];
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| Error::Bug(format!("rows don't fit their schema: {error}")))
    }
}
