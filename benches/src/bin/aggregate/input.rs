//! Writes the Parquet file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_benches::Result;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Rows of a row group.
const GROUP_ROWS: usize = 500_000;

/// Returns the file's columns.
pub fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![column("k"), column("v")]))
}

/// Writes random keys below `keys` and random values, from a seed.
pub fn write(path: &Path, rows: usize, keys: i64) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema(), Some(properties))?;
    let mut random = SmallRng::seed_from_u64(1);
    for start in (0..rows).step_by(GROUP_ROWS) {
        let count = GROUP_ROWS.min(rows - start);
        let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
        let ids = column((0..count).map(|_| random.random_range(0..keys)).collect());
        let values = column((0..count).map(|_| random.random_range(-1_000_000..1_000_000)).collect());
        writer.write(&RecordBatch::try_new(schema(), vec![ids, values])?)?;
    }
    writer.close()?;
    Ok(())
}
