//! The tables and views of PostgreSQL's catalog: their names, OIDs and columns in version 15.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};

use millstream_sql::hide_field;

use crate::system::UTC;

/// A table or view of `pg_catalog` or `information_schema`.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `pg_catalog` or `information_schema`.
    pub(crate) namespace: &'static str,
    /// Its name in the schema.
    pub(crate) name: &'static str,
    /// Its OID.
    pub(crate) oid: i64,
    /// `r` for a table, `v` for a view.
    pub(crate) kind: char,
    /// Its columns.
    pub(crate) columns: Vec<LayoutColumn>,
    /// Its Arrow schema.
    pub(crate) schema: SchemaRef,
}

/// A column of such a table.
#[derive(Debug)]
pub(crate) struct LayoutColumn {
    /// Its name.
    pub(crate) name: &'static str,
    /// The name of its type in `pg_type`.
    pub(crate) type_name: &'static str,
    /// True if it is never NULL.
    pub(crate) not_null: bool,
}

/// The hidden column with the OID of a row's table.
pub(super) const TABLE_OID: &str = "tableoid";

type Layouts = BTreeMap<(&'static str, &'static str), Layout>;

static LAYOUTS: LazyLock<Layouts> = LazyLock::new(|| {
    let lines = include_str!("columns.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(layout).map(|layout| ((layout.namespace, layout.name), layout)).collect()
});

/// Returns the table of this name.
pub(crate) fn find(schema: &str, name: &str) -> Option<&'static Layout> {
    // A map lookup would need arguments as long-lived as the keys.
    LAYOUTS.iter().find(|((of, table), _)| *of == schema && *table == name).map(|(_, layout)| layout)
}

/// Returns all tables, by schema and name.
pub(crate) fn all() -> impl Iterator<Item = &'static Layout> {
    LAYOUTS.values()
}

fn layout(line: &'static str) -> Option<Layout> {
    let mut words = line.split(' ');
    let (namespace, name) = words.next()?.split_once('.')?;
    let oid = words.next()?.parse().ok()?;
    let kind = words.next()?.chars().next()?;
    let columns: Vec<LayoutColumn> = words.filter_map(column).collect();
    let mut fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(column.name, arrow_type(column.type_name), !column.not_null))
        .collect();
    // The OID of the table itself, which a query may name.
    if kind == 'r' {
        fields.push(hide_field(Field::new(TABLE_OID, DataType::UInt32, false)));
    }
    Some(Layout { namespace, name, oid, kind, columns, schema: Arc::new(Schema::new(fields)) })
}

fn column(word: &'static str) -> Option<LayoutColumn> {
    let (name, type_name) = word.split_once(':')?;
    let not_null = type_name.starts_with('!');
    Some(LayoutColumn { name, type_name: type_name.trim_start_matches('!'), not_null })
}

/// Returns the Arrow type for values of one of PostgreSQL's types. OIDs are plain numbers.
fn arrow_type(name: &str) -> DataType {
    if let Some(element) = name.strip_prefix('_') {
        return DataType::new_list(arrow_type(element), true);
    }
    match name {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "oid" | "xid" | "regproc" | "regtype" | "regclass" => DataType::UInt32,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "numeric" => DataType::Decimal128(38, 10),
        "bytea" => DataType::Binary,
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        "interval" => DataType::Interval(IntervalUnit::MonthDayNano),
        "int2vector" => DataType::new_list(DataType::Int16, true),
        "oidvector" => DataType::new_list(DataType::UInt32, true),
        _ => DataType::Utf8View,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let lines = include_str!("columns.txt").lines().filter(|line| !line.starts_with('#'));
        assert_eq!(all().count(), lines.count());
        let class = find("pg_catalog", "pg_class").unwrap();
        assert_eq!((class.oid, class.kind, class.columns[1].name), (1259, 'r', "relname"));
        assert!(!class.schema.field(1).is_nullable());
        assert!(find("information_schema", "tables").is_some() && find("public", "pg_class").is_none());
    }
}
