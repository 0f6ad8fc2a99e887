//! A Parquet file as a table of DataFusion, which is built without Parquet here.
//!
//! Decodes only the columns that a query needs. Each partition reads a share of the row groups.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

/// Rows of a batch, as in DataFusion.
const BATCH_ROWS: usize = 8192;

/// A file as a table.
#[derive(Debug)]
pub struct ParquetTable {
    path: PathBuf,
    schema: SchemaRef,
    groups: usize,
    partitions: usize,
}

impl ParquetTable {
    /// Opens the file at `path`. Its row groups are dealt out to `partitions` partitions in turn.
    pub fn open(path: &Path, partitions: usize) -> Result<ParquetTable> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(external)?;
        let (schema, groups) = (builder.schema().clone(), builder.metadata().num_row_groups());
        Ok(ParquetTable { path: path.into(), schema, groups, partitions })
    }
}

fn external(error: parquet::errors::ParquetError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[async_trait]
impl TableProvider for ParquetTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let part = |number: usize| -> Arc<dyn PartitionStream> {
            Arc::new(Part {
                path: self.path.clone(),
                schema: schema.clone(),
                columns: columns.clone(),
                groups: (number..self.groups).step_by(self.partitions).collect(),
            })
        };
        let parts = (0..self.partitions).map(part).collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema.clone(), parts, None, [], false, limit)?))
    }
}

/// Some row groups of a file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    schema: SchemaRef,
    columns: Vec<usize>,
    groups: Vec<usize>,
}

impl Part {
    fn reader(&self) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&self.path)?).map_err(external)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), self.columns.iter().copied());
        let builder = builder.with_projection(mask).with_row_groups(self.groups.clone());
        builder.with_batch_size(BATCH_ROWS).build().map_err(external)
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match self.reader() {
            Ok(reader) => Box::new(reader.map(|batch| batch.map_err(DataFusionError::from))),
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}
