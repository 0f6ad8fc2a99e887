//! Rows whose times with a zone are shown in the zone of a session.
//!
//! Only the Arrow type changes: the values stay moments in UTC. Whoever writes the rows as text finds the zone in the type.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use millstream_sql::type_in_zone;

/// Returns rows whose times with a zone have this one.
pub(crate) fn rows_in(rows: SendableRecordBatchStream, zone: &str) -> SendableRecordBatchStream {
    let from = rows.schema();
    let schema = schema_in(&from, Some(zone));
    if schema == from {
        return rows;
    }
    let to = schema.clone();
    let rows = rows.map(move |batch| batch.and_then(|batch| retyped(&batch, &to)));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Returns columns whose times with a zone have this one.
pub(crate) fn schema_in(schema: &SchemaRef, zone: Option<&str>) -> SchemaRef {
    let Some(zone) = zone else { return schema.clone() };
    let field = |field: &Arc<Field>| {
        let shown = type_in_zone(field.data_type(), zone);
        field.as_ref().clone().with_data_type(shown)
    };
    let fields: Vec<Field> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn retyped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast(column, field.data_type()),
        }
    });
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(DataFusionError::from)
}
