//! `DESCRIBE name`: the columns of a relation.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_sql::{Error, Result, TokenReader, is_hidden, near};

use super::show::rows;
use crate::catalog::Definition;
use crate::session::{Response, Session};
use crate::system;

pub(crate) fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let name = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    if let Some(table) = system::table_name(&name) {
        let found = system::find(table).ok_or_else(|| {
            let names = system::TABLES.iter().map(|table| table.name);
            Error::invalid(format!("there is no relation \"{name}\"")).at(at).maybe_hint(near::hint(
                table,
                "tables there",
                names,
            ))
        })?;
        return columns_of(&found.schema(), |place, _| found.columns[place].doc.into());
    }
    let catalog = session.shared.catalog();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let Some(schema) = object.definition.schema() else {
        return Err(Error::invalid(format!("\"{name}\" is a sink: it has no columns"))
            .at(at)
            .hint(format!("SHOW CREATE {name} shows its statement.")));
    };
    let key: &[usize] = match &object.definition {
        Definition::Table { key, .. } => key,
        _ => &[],
    };
    columns_of(schema, |place, field| {
        match () {
            () if key.contains(&place) => "primary key",
            () if is_hidden(field) => "hidden: not in *",
            () => "",
        }
        .to_string()
    })
}

fn columns_of(schema: &Schema, remark: impl Fn(usize, &Field) -> String) -> Result<Response> {
    let fields = schema.fields();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(fields.iter().map(|field| field.name()))),
        Arc::new(StringViewArray::from_iter_values(fields.iter().map(|field| sql_type(field.data_type())))),
        Arc::new(BooleanArray::from_iter(fields.iter().map(|field| Some(field.is_nullable())))),
        Arc::new(StringViewArray::from_iter_values(
            fields.iter().enumerate().map(|(place, field)| remark(place, field)),
        )),
    ];
    let schema = Arc::new(Schema::new(vec![
        Field::new("column", DataType::Utf8View, false),
        Field::new("type", DataType::Utf8View, false),
        Field::new("nullable", DataType::Boolean, false),
        Field::new("remark", DataType::Utf8View, false),
    ]));
    rows(RecordBatch::try_new(schema, columns))
}

/// A type as CREATE TABLE would take it; Arrow's name where SQL has none.
fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("NUMERIC({precision}, {scale})")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(_, None) => "TIMESTAMP".into(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".into(),
        DataType::Interval(_) => "INTERVAL".into(),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", sql_type(item.data_type())),
        other => other.to_string(),
    }
}
