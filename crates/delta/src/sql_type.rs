//! The SQL name of an Arrow type: PostgreSQL's name if it has one, else the one that CREATE TABLE takes.
//!
//! ```
//! use arrow::datatypes::{DataType, Field};
//! use millstream_delta::{declared, sql_type, sql_type_of};
//! assert_eq!(sql_type(&DataType::new_list(DataType::Int32, true)), "INT[]");
//! assert_eq!(sql_type_of(&declared(Field::new("id", DataType::Utf8View, true), "UUID")), "UUID");
//! ```

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

/// The key in a field's metadata that holds the declared type, if it is more specific than Arrow's type:
/// `UUID`.
const DECLARED: &str = "millstream.type";

/// The key in a field's metadata that holds the column's default, as SQL: `'x'`.
const DEFAULT: &str = "millstream.default";

/// The key in a field's metadata that holds the expression of a generated column, as SQL: `a + b`.
const GENERATED: &str = "millstream.generated";

/// The key in a field's metadata that holds the sequence of an identity column.
const IDENTITY: &str = "millstream.identity";

/// The beginning of the keys in a field's metadata that hold CHECK constraints, as SQL: `a > 0`. The rest is the
/// constraint's name.
const CHECK: &str = "millstream.check.";

/// The beginning of the keys in a field's metadata that hold indexes of the table. The rest is the index's name.
const INDEX: &str = "millstream.index.";

/// Declares a field as a type that Arrow lacks.
pub fn declared(field: Field, spelling: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(DECLARED.into(), spelling.into());
    field.with_metadata(metadata)
}

/// Returns the declared type of a field, if it is more specific than Arrow's type.
pub fn declared_type(field: &Field) -> Option<&str> {
    field.metadata().get(DECLARED).map(String::as_str)
}

/// Sets or removes a field's default, as SQL: the column's value in a row that gives none.
pub fn with_default(field: Field, text: Option<&str>) -> Field {
    let mut metadata = field.metadata().clone();
    match text {
        Some(text) => metadata.insert(DEFAULT.into(), text.into()),
        None => metadata.remove(DEFAULT),
    };
    field.with_metadata(metadata)
}

/// Returns a field's default, as it was written.
pub fn default_of(field: &Field) -> Option<&str> {
    field.metadata().get(DEFAULT).map(String::as_str)
}

/// Makes a field a generated column: its value in each row is that of an expression over the other columns, as SQL.
pub fn with_generated(field: Field, text: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(GENERATED.into(), text.into());
    field.with_metadata(metadata)
}

/// Returns the expression of a generated column, as it was written.
pub fn generated_of(field: &Field) -> Option<&str> {
    field.metadata().get(GENERATED).map(String::as_str)
}

/// Makes a field an identity column, whose sequence a text describes.
pub fn with_identity(field: Field, text: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(IDENTITY.into(), text.into());
    field.with_metadata(metadata)
}

/// Returns a column that isn't an identity any more, and has no default.
pub fn without_identity(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(IDENTITY);
    with_default(field.with_metadata(metadata), None)
}

/// Returns the description of an identity column's sequence.
pub fn identity_of(field: &Field) -> Option<&str> {
    field.metadata().get(IDENTITY).map(String::as_str)
}

/// Adds a CHECK constraint of the table to a field. If `name` begins with a dot, the constraint's name is that of the table
/// and the rest.
pub fn with_check(field: Field, name: &str, text: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(format!("{CHECK}{name}"), text.into());
    field.with_metadata(metadata)
}

/// Returns the names and conditions of the CHECK constraints at a field, by name.
pub fn checks_of(field: &Field) -> Vec<(&str, &str)> {
    named(field, CHECK)
}

/// Adds an index of the table to a field, which a text describes. Its name is as that of a CHECK constraint.
pub fn with_index(field: Field, name: &str, text: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(format!("{INDEX}{name}"), text.into());
    field.with_metadata(metadata)
}

/// Returns the names and descriptions of the indexes at a field, by name.
pub fn indexes_of(field: &Field) -> Vec<(&str, &str)> {
    named(field, INDEX)
}

fn named<'a>(field: &'a Field, prefix: &str) -> Vec<(&'a str, &'a str)> {
    let mut all: Vec<(&str, &str)> = Vec::new();
    for (key, text) in field.metadata() {
        all.extend(key.strip_prefix(prefix).map(|name| (name, text.as_str())));
    }
    all.sort_unstable();
    all
}

/// Returns the field without the CHECK constraint of this name.
pub fn without_check(field: &Field, name: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(&format!("{CHECK}{name}"));
    field.clone().with_metadata(metadata)
}

/// Returns the field without the index of this name.
pub fn without_index(field: &Field, name: &str) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(&format!("{INDEX}{name}"));
    field.clone().with_metadata(metadata)
}

/// Returns the field with its type alone: without default, expression, identity, constraints and indexes.
pub fn type_alone(field: &Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.remove(DEFAULT);
    metadata.remove(GENERATED);
    metadata.remove(IDENTITY);
    metadata.retain(|key, _| !key.starts_with(CHECK) && !key.starts_with(INDEX));
    field.clone().with_metadata(metadata)
}

/// Returns the field with Arrow's type alone.
pub fn undeclared(field: &Field) -> Field {
    let field = type_alone(field);
    let mut metadata = field.metadata().clone();
    metadata.remove(DECLARED);
    field.with_metadata(metadata)
}

/// The beginning of the declared type of an enum column. The name of the type and its labels follow.
const ENUM: &str = "ENUM";

/// The character before each part of the declared type of an enum column.
const PART: char = '\u{1f}';

/// Returns the declared type of an enum column; none if a label has a character that separates the parts.
pub fn enum_type(name: &str, labels: &[String]) -> Option<String> {
    let parts = || std::iter::once(name).chain(labels.iter().map(String::as_str));
    let is_separable = !parts().any(|part| part.contains(PART));
    is_separable.then(|| parts().fold(ENUM.to_string(), |spelling, part| format!("{spelling}{PART}{part}")))
}

/// Returns the name of an enum type and its labels, of the declared type of a column.
pub fn enum_parts(declared: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let mut parts = declared.strip_prefix(ENUM)?.strip_prefix(PART)?.split(PART);
    Some((parts.next()?, parts))
}

/// Returns a field's type as CREATE TABLE takes it.
pub fn sql_type_of(field: &Field) -> String {
    match declared_type(field) {
        None => sql_type(field.data_type()),
        Some(declared) => enum_parts(declared).map_or(declared, |(name, _)| name).to_string(),
    }
}

/// Returns a field's type like [`sql_type_of`], with the digits of each timestamp.
pub fn exact_sql_type_of(field: &Field) -> String {
    match declared_type(field) {
        None => exact_sql_type(field.data_type()),
        Some(_) => sql_type_of(field),
    }
}

/// Returns a type as CREATE TABLE takes it, or Arrow's name if SQL has none.
pub fn sql_type(data_type: &DataType) -> String {
    spelled(data_type, false)
}

/// Returns a type like [`sql_type`], with the digits of each timestamp. Texts with it mean the same in data directories in
/// which a TIMESTAMP without digits is in nanoseconds.
pub fn exact_sql_type(data_type: &DataType) -> String {
    spelled(data_type, true)
}

fn spelled(data_type: &DataType, exact: bool) -> String {
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
        DataType::Float16 => "FLOAT16".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE PRECISION".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("NUMERIC({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "BYTEA".into()
        }
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(unit) | DataType::Time64(unit) => {
            format!("TIME{}", digits(unit, Some(TimeUnit::Nanosecond)))
        }
        DataType::Timestamp(unit, None) => {
            format!("TIMESTAMP{}", digits(unit, (!exact).then_some(TimeUnit::Microsecond)))
        }
        DataType::Timestamp(unit, Some(_)) => {
            format!("TIMESTAMPTZ{}", digits(unit, (!exact).then_some(TimeUnit::Microsecond)))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => "INTERVAL".into(),
        DataType::Interval(IntervalUnit::YearMonth) => "INTERVAL YEAR TO MONTH".into(),
        DataType::Interval(IntervalUnit::DayTime) => "INTERVAL DAY TO SECOND".into(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => format!("{}[]", spelled(item.data_type(), exact)),
        DataType::FixedSizeList(item, size) => format!("{}[{size}]", spelled(item.data_type(), exact)),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), spelled(field.data_type(), exact)))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!(
                    "MAP({}, {})",
                    spelled(fields[0].data_type(), exact),
                    spelled(fields[1].data_type(), exact)
                )
            }
            other => other.to_string(),
        },
        DataType::Dictionary(_, values) => spelled(values, exact),
        DataType::RunEndEncoded(_, values) => spelled(values.data_type(), exact),
        DataType::Union(..) => "UNION".into(),
        DataType::Duration(_) => "DURATION".into(),
        DataType::Null => "NULL".into(),
    }
}

/// Returns the precision of a time unit, unless it is the one that the type has without digits.
fn digits(unit: &TimeUnit, default: Option<TimeUnit>) -> &'static str {
    match unit {
        unit if Some(*unit) == default => "",
        TimeUnit::Second => "(0)",
        TimeUnit::Millisecond => "(3)",
        TimeUnit::Microsecond => "(6)",
        TimeUnit::Nanosecond => "(9)",
    }
}
