//! An engine as the database of a test file.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use futures::TryStreamExt;
use millstream::datafusion::error::DataFusionError;
use millstream::{Engine, Error, Response, Script, Session};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

use crate::cell::Cells;

/// A session of an engine, for [`sqllogictest::Runner`]. One record may have several statements; the result
/// of the last one is compared.
pub struct EngineDb {
    session: Session,
    owned: Option<Engine>,
}

impl EngineDb {
    /// Creates a session of a shared engine.
    pub fn new(engine: &Engine) -> Self {
        EngineDb { session: engine.session(), owned: None }
    }

    /// Creates a session of its own engine, which stops with it.
    pub fn from_engine(make: impl FnOnce() -> Result<Engine, Error>) -> Result<Self, Error> {
        let engine = make()?;
        Ok(EngineDb { session: engine.session(), owned: Some(engine) })
    }
}

#[async_trait]
impl AsyncDB for EngineDb {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let mut script = Script::parse(sql)?;
        let mut last = DBOutput::StatementComplete(0);
        while let Some(outcomes) = self.session.step(&mut script).await? {
            for outcome in outcomes {
                last = match outcome.response {
                    Response::Done(tag) => DBOutput::StatementComplete(count(&tag.text)),
                    Response::CopyIn(_) | Response::CopyOut(_) => {
                        return Err(Error::unsupported("COPY here"));
                    }
                    Response::Rows(rows) => {
                        let schema = rows.schema();
                        let batches: Vec<RecordBatch> = rows.try_collect().await?;
                        let types =
                            schema.fields().iter().map(|field| column_type(field.data_type())).collect();
                        DBOutput::Rows {
                            types,
                            rows: rows_as_text(&schema, &batches).map_err(DataFusionError::from)?,
                        }
                    }
                };
            }
        }
        Ok(last)
    }

    async fn shutdown(&mut self) {
        if let Some(engine) = self.owned.take() {
            // All assertions of the test are done by now.
            let _ = engine.stop().await;
        }
    }

    fn engine_name(&self) -> &str {
        "millstream"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Returns the letter of a type in a test file: I for integers, R for other numbers, T for all else.
pub fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        DataType::Dictionary(_, values) => column_type(values),
        other if other.is_integer() => DefaultColumnType::Integer,
        other if other.is_numeric() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// Formats rows as in a test file: `NULL`, `(empty)` for an empty string, `\n` for line breaks, and
/// otherwise as in a table of the shell.
pub fn rows_as_text(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, ArrowError> {
    let mut rows = Vec::new();
    for batch in batches {
        debug_assert_eq!(batch.num_columns(), schema.fields().len());
        let columns = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        rows.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|column| text(column.get(row))).collect()),
        );
    }
    Ok(rows)
}

fn text(value: Option<String>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text.replace('\r', "\\r").replace('\n', "\\n"),
    }
}

/// Returns the number of rows at the end of a command tag, as in `INSERT 0 3`.
fn count(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn tags_carry_a_count() {
        assert_eq!(count("INSERT 0 3"), 3);
        assert_eq!(count("UPDATE 12"), 12);
        assert_eq!(count("CREATE TABLE"), 0);
    }

    #[test]
    fn values_can_be_told_apart() {
        let words: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), Some("a\nb")]));
        let batch = RecordBatch::try_from_iter_with_nullable([("w", words, true)]).unwrap();
        let rows = rows_as_text(&batch.schema(), &[batch]).unwrap();
        assert_eq!(rows, [["NULL"], ["(empty)"], ["a\\nb"]]);
    }

    #[test]
    fn types_are_letters() {
        let letter = |data_type| sqllogictest::ColumnType::to_char(&column_type(&data_type));
        assert_eq!(letter(DataType::UInt8), 'I');
        assert_eq!(letter(DataType::Decimal128(10, 2)), 'R');
        assert_eq!(letter(DataType::Float32), 'R');
        assert_eq!(letter(DataType::Boolean), 'T');
        assert_eq!(letter(DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Int64))), 'I');
    }
}
