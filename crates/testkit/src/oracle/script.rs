//! Writes a feed as SQL, so that a failure can be read and run by hand.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::convert::{Case, Object, Query};
use super::feed::Feed;
use super::run::view_name;

/// Returns the statements of a run: settings, tables, the view, then the rows of each epoch. Stops after
/// epoch `last`.
pub fn script(case: &Case, query: Option<&Query>, feed: &Feed, last: usize) -> String {
    let mut lines = vec!["SET clock = 'manual';".to_string()];
    lines.extend(case.settings.iter().map(|sql| format!("{sql};")));
    lines.extend(case.objects.iter().map(|object| format!("{};", ddl(object))));
    if let Some(query) = query {
        lines.push(format!("CREATE MATERIALIZED VIEW {} AS\n{};", view_name(0, false), query.sql));
    }
    for epoch in 0..feed.epochs.min(last + 1) {
        if let (true, Some(query)) = (feed.late == epoch, query) {
            lines.push(format!("CREATE MATERIALIZED VIEW {} AS\n{};", view_name(0, true), query.sql));
        }
        for call in feed.calls(epoch) {
            let table = &feed.pools[call.table].table;
            match call.batch(feed) {
                Ok(rows) if call.insert => {
                    lines.push(format!("INSERT INTO \"{table}\" VALUES {};", values(&rows)))
                }
                Ok(rows) => {
                    lines.push(format!("-- one copy of each taken out of \"{table}\": {}", values(&rows)))
                }
                Err(error) => lines.push(format!("-- rows of {table} that can't be shown: {error}")),
            }
        }
        lines.push(format!("ADVANCE BATCH; -- epoch {epoch}"));
    }
    if let Some(query) = query {
        lines.push(format!("{};", query.sql));
    }
    lines.join("\n")
}

/// Returns the statement that creates an object. A table created without DDL is described by its columns.
fn ddl(object: &Object) -> String {
    let Some(table) = object.table.as_ref().filter(|_| object.ddl.is_empty()) else {
        return object.ddl.clone();
    };
    let schema = table.rows.schema();
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| {
            let null = if field.is_nullable() { "" } else { " NOT NULL" };
            format!("\"{}\" {}{null}", field.name(), sql_type(field.data_type()))
        })
        .collect();
    let key: Vec<String> = table.key.iter().map(|at| format!("\"{}\"", schema.field(*at).name())).collect();
    let key = if key.is_empty() { String::new() } else { format!(", PRIMARY KEY ({})", key.join(", ")) };
    format!("CREATE TABLE \"{}\" ({}{key})", object.name, columns.join(", "))
}

/// Returns the SQL name of a type, or Arrow's own name if SQL has none.
fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8View => "TEXT",
        DataType::Binary => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP",
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP(9)",
        DataType::List(inner) => return format!("{}[]", sql_type(inner.data_type())),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            return format!("DECIMAL({precision}, {scale})");
        }
        other => return other.to_string(),
    };
    name.to_string()
}

/// Returns the rows as text after VALUES.
pub fn values(rows: &RecordBatch) -> String {
    let row = |row| {
        let values: Vec<String> = rows.columns().iter().map(|column| literal(column, row)).collect();
        format!("({})", values.join(", "))
    };
    (0..rows.num_rows()).map(row).collect::<Vec<_>>().join(", ")
}

/// Returns one value as SQL.
fn literal(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".into();
    }
    let options = FormatOptions::default();
    let text = ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(row).to_string());
    let Ok(text) = text else { return format!("/* {} */ NULL", column.data_type()) };
    let quoted = format!("'{}'", text.replace('\'', "''"));
    match column.data_type() {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => text,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => quoted,
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|item| literal(&items, item)).collect();
            format!("[{}]", items.join(", "))
        }
        other => format!("arrow_cast({quoted}, '{other}')"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn values_are_typed_and_quoted() {
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef, true),
            ("b", Arc::new(StringArray::from(vec!["it's", "x"])) as ArrayRef, true),
            ("c", Arc::new(Float64Array::from(vec![f64::NAN, 0.5])) as ArrayRef, true),
        ])
        .unwrap();
        assert_eq!(
            values(&rows),
            "(1, 'it''s', arrow_cast('NaN', 'Float64')), (NULL, 'x', arrow_cast('0.5', 'Float64'))"
        );
    }
}
