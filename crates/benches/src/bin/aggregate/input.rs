//! The Parquet file, and how DataFusion reads it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use millstream_benches::Result;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Rows of a row group.
const GROUP_ROWS: usize = 500_000;
/// Rows of a batch that DataFusion gets.
const BATCH_ROWS: usize = 8192;

/// The file's columns.
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

/// The file in as many partitions as asked for, each every so-many-th row group.
pub fn partitions(path: &Path, count: usize) -> Result<Vec<Arc<dyn PartitionStream>>> {
    let groups = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.metadata().num_row_groups();
    let partition = |first: usize| -> Arc<dyn PartitionStream> {
        let groups = (first..groups).step_by(count).collect();
        Arc::new(Groups { path: path.into(), groups, schema: schema() })
    };
    Ok((0..count).map(partition).collect())
}

/// Some row groups of the file.
#[derive(Debug)]
struct Groups {
    path: PathBuf,
    groups: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Groups {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let reader = || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&self.path)?)?;
            builder
                .with_row_groups(self.groups.clone())
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(Into::into)
        };
        let batches: Box<dyn Iterator<Item = _> + Send> = match reader() {
            Ok(reader) => Box::new(reader.map(|batch| batch.map_err(DataFusionError::from))),
            Err(error) => {
                let error: Box<dyn std::error::Error + Send + Sync> = error;
                Box::new(std::iter::once(Err(DataFusionError::External(error))))
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}
