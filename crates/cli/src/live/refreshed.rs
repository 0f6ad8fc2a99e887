//! A statement that is run again and again, such as EXPLAIN ANALYZE: its answers as the changes of a subscription.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use std::sync::Arc;

use futures::TryStreamExt;
use millstream::{Error, Response, Session};

/// Returns the columns of a subscription to answers with these columns.
pub fn followed(schema: &Schema) -> Schema {
    let own = [Field::new("_epoch", DataType::Int64, false), Field::new("_op", DataType::Utf8View, false)];
    Schema::new(own.into_iter().map(Arc::new).chain(schema.fields().iter().cloned()).collect::<Vec<_>>())
}

/// Runs the statement, and returns its rows.
pub async fn answer(session: &mut Session, statement: &str) -> Result<RecordBatch, Error> {
    let Response::Rows(rows) = session.execute(statement).await? else {
        return Err(Error::invalid(format!("{statement} has no rows to show")));
    };
    let schema = rows.schema();
    let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(Error::from)?;
    concat_batches(&schema, &batches).map_err(failed)
}

fn failed(error: ArrowError) -> Error {
    Error::bug(format!("an answer can't be shown: {error}"))
}

/// Returns the changes from one answer to the next: a row replaces the one at the same place. `number` counts answers.
pub fn changes(before: Option<&RecordBatch>, now: &RecordBatch, number: i64) -> Result<RecordBatch, Error> {
    changed(before, now, number).map_err(failed)
}

fn changed(before: Option<&RecordBatch>, now: &RecordBatch, number: i64) -> Result<RecordBatch, ArrowError> {
    let fields =
        now.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let old = before.unwrap_or(now);
    let (old_rows, new_rows) = (rows(&converter, old)?, rows(&converter, now)?);
    let old_count = before.map_or(0, RecordBatch::num_rows);
    let (mut places, mut ops) = (Vec::new(), Vec::new());
    let mut add = |answer: usize, row: usize, op: &'static str| {
        places.push((answer, row));
        ops.push(op);
    };
    for row in 0..old_count.max(now.num_rows()) {
        match (row < old_count, row < now.num_rows()) {
            (true, true) if old_rows.row(row) == new_rows.row(row) => {}
            (true, true) => {
                add(0, row, "update_delete");
                add(1, row, "update_insert");
            }
            (true, false) => add(0, row, "delete"),
            (false, _) => add(1, row, "insert"),
        }
    }
    if before.is_none() && now.num_rows() > 0 {
        // The snapshot is complete.
        add(1, 0, "progress");
    }
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![number; places.len()])),
        Arc::new(StringViewArray::from_iter_values(ops)),
    ];
    for (old, new) in old.columns().iter().zip(now.columns()) {
        columns.push(interleave(&[old, new], &places)?);
    }
    RecordBatch::try_new(SchemaRef::new(followed(&now.schema())), columns)
}

fn rows(converter: &RowConverter, batch: &RecordBatch) -> Result<Rows, ArrowError> {
    converter.convert_columns(batch.columns())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::live::state::State;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.0)));
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter_with_nullable([("operator", names, true), ("rows", counts, true)]).unwrap()
    }

    #[test]
    fn answers_replace_each_other_in_place() {
        let answers = [
            batch(&[("Input", 1), ("Filter", 2)]),
            batch(&[("Input", 5), ("Filter", 2), ("Join", 7)]),
            batch(&[]),
        ];
        let mut state = State::new(&followed(&answers[0].schema()));
        let mut seen = Vec::new();
        let mut before = None;
        for (number, now) in answers.iter().enumerate() {
            state.apply(&changes(before, now, number as i64).unwrap(), Instant::now()).unwrap();
            let shown = state.rows.iter().map(|row| {
                let values: Vec<String> =
                    row.values.iter().map(|value| value.clone().unwrap_or_default()).collect();
                (values.join(" "), row.changed.is_some())
            });
            seen.push(shown.collect::<Vec<_>>());
            before = Some(now);
        }
        let shown = |texts: &[(&str, bool)]| -> Vec<(String, bool)> {
            texts.iter().map(|(text, is_new)| ((*text).to_owned(), *is_new)).collect()
        };
        assert_eq!(seen[0], shown(&[("Input 1", false), ("Filter 2", false)]));
        assert_eq!(seen[1], shown(&[("Input 5", true), ("Filter 2", false), ("Join 7", true)]));
        assert_eq!(seen[2], []);
    }
}
