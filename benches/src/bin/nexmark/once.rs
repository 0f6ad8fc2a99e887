//! The yardstick: DataFusion computes an answer once, over the same Parquet files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_benches::parquet_table::ParquetTable;
use millstream_benches::{Result, yardstick};

use crate::queries::Query;
use crate::{PARTITIONS, SIDE_INPUT};

/// Runs a query over the files of `folder`. Returns the compared aggregate of its rows.
pub async fn counted(folder: &Path, query: &Query) -> Result<i64> {
    let config = SessionConfig::new().with_target_partitions(PARTITIONS);
    let context = SessionContext::new_with_config(config);
    for table in query.tables() {
        let table_file = ParquetTable::open(&folder.join(format!("{table}.parquet")), PARTITIONS)?;
        context.register_table(table, Arc::new(table_file))?;
    }
    if query.reads_side_input() {
        millstream_batch::answer(&context, &format!("CREATE TABLE side_input AS {SIDE_INPUT}")).await?;
    }
    // The whole answer is computed, whatever the comparison needs.
    let answer = millstream_batch::answer(&context, &query.plain).await?;
    if query.counted == "count(*)" {
        return Ok(answer.iter().map(RecordBatch::num_rows).sum::<usize>() as i64);
    }
    context.register_batch("answer", concat_batches(&answer[0].schema(), &answer)?)?;
    let counted =
        millstream_batch::answer(&context, &format!("SELECT {} FROM answer", query.counted)).await?;
    yardstick::number(&counted)
}
