//! Rows as bytes: Arrow IPC streams.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_delta::{Chunk, Delta};
use millstream_state::compact;

/// The name of the weight column, which comes last. It begins with NUL, so no column of a relation has this
/// name.
const WEIGHT: &str = "\0weight";

/// Encodes batches of one schema.
pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in batches {
        // Compacting drops the parts of large buffers that a slice does not show.
        writer.write(&compact(batch)?)?;
    }
    writer.into_inner()
}

/// Decodes the schema and the batches, if any.
pub(crate) fn decode(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let reader = StreamReader::try_new(bytes, None)?;
    let schema = reader.schema();
    Ok((schema, reader.collect::<Result<Vec<_>, _>>()?))
}

/// Encodes the chunks of a delta, one stream per run of equal schemas. Chunks with weights have one more
/// column.
pub(crate) fn encode_delta(delta: &Delta) -> Result<Vec<Vec<u8>>, ArrowError> {
    let mut streams = Vec::new();
    let mut chunks = delta.chunks.as_slice();
    while let Some(first) = chunks.first() {
        let alike = |chunk: &Chunk| {
            chunk.weights.is_some() == first.weights.is_some() && chunk.rows.schema() == first.rows.schema()
        };
        let count = chunks.iter().take_while(|chunk| alike(chunk)).count();
        let batches = chunks[..count].iter().map(with_weights).collect::<Result<Vec<_>, _>>()?;
        if let Some(batch) = batches.first() {
            streams.push(encode(&batch.schema(), &batches)?);
        }
        chunks = &chunks[count..];
    }
    Ok(streams)
}

fn with_weights(chunk: &Chunk) -> Result<RecordBatch, ArrowError> {
    let Some(weights) = &chunk.weights else { return Ok(chunk.rows.clone()) };
    let schema = chunk.rows.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
    let mut columns = chunk.rows.columns().to_vec();
    columns.push(Arc::new(weights.clone()));
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns)
}

/// Decodes the streams of [`encode_delta`].
pub(crate) fn decode_delta<'a>(streams: impl IntoIterator<Item = &'a [u8]>) -> Result<Delta, ArrowError> {
    let mut delta = Delta::default();
    for stream in streams {
        for batch in decode(stream)?.1 {
            delta.push(without_weights(batch)?);
        }
    }
    Ok(delta)
}

fn without_weights(batch: RecordBatch) -> Result<Chunk, ArrowError> {
    let (schema, mut columns, count) = batch.into_parts();
    if schema.fields().last().is_none_or(|field| field.name() != WEIGHT) {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        return Ok(Chunk {
            rows: RecordBatch::try_new_with_options(schema, columns, &options)?,
            weights: None,
        });
    }
    let weights: Option<Int64Array> =
        columns.pop().and_then(|column| column.as_primitive_opt::<Int64Type>().cloned());
    let weights = weights.ok_or_else(|| ArrowError::SchemaError("weights are no integers".into()))?;
    let fields = schema.fields()[..columns.len()].to_vec();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(Chunk { rows: RecordBatch::try_new_with_options(schema, columns, &options)?, weights: Some(weights) })
}
