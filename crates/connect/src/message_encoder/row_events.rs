//! Row events as Maxwell and Canal send them: one changed row a message, an update with the earlier values of the columns
//! that it changes.
//!
//! Canal writes every value as a text, or null. Both write times as MySQL shows them, `2026-01-31 12:00:00`; those of
//! TIMESTAMPTZ are in UTC and end with `Z`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_delta::sql_type;
use serde_json::{Map, Value, json};

use super::pieces::Pieces;
use super::{EpochTime, refuse};
use crate::formats::encode::check_columns;
use crate::messages::Dialect;
use crate::{Error, Result, SinkSpec};

const TIMESTAMP: &str = "%Y-%m-%d %H:%M:%S%.f";
const TIMESTAMP_IN_UTC: &str = "%Y-%m-%d %H:%M:%S%.fZ";

/// The options that name the database and the table of events.
pub(super) const NAMES: [&str; 2] = ["database", "table"];

/// Encodes the envelopes of a feed as row events.
#[derive(Debug)]
pub(super) struct RowEventEncoder {
    dialect: Dialect,
    /// The database and the table, as JSON.
    database: String,
    table: String,
    /// Canal's names of the key, and its types of columns, as JSON.
    key: String,
    mysql_types: String,
    sql_types: String,
    options: EncoderOptions,
}

/// The values of rows as JSON.
struct RowTexts<'a> {
    /// The name of each column with its colon, and the encoder of its values.
    columns: Vec<(String, NullableEncoder<'a>)>,
}

impl RowEventEncoder {
    /// Creates the encoder of a sink whose rows have this key.
    pub fn new(spec: &SinkSpec, dialect: Dialect, key: &[usize]) -> Result<RowEventEncoder> {
        let (options, fields) = (&spec.options, spec.columns.fields());
        check(&spec.columns, dialect)?;
        let topic = options.get("topic").unwrap_or(&spec.name);
        let key: Vec<&str> = key.iter().map(|place| fields[*place].name().as_str()).collect();
        let by_name = |of: fn(&DataType) -> Value| {
            let all: Map<String, Value> =
                fields.iter().map(|field| (field.name().clone(), of(field.data_type()))).collect();
            Value::Object(all).to_string()
        };
        Ok(RowEventEncoder {
            dialect,
            database: json!(options.get("database").unwrap_or("millstream")).to_string(),
            table: json!(options.get("table").unwrap_or(topic)).to_string(),
            key: json!(key).to_string(),
            mysql_types: by_name(|data_type| json!(mysql_type(data_type).0)),
            sql_types: by_name(|data_type| json!(mysql_type(data_type).1)),
            options: EncoderOptions::default()
                .with_explicit_nulls(true)
                .with_timestamp_format(TIMESTAMP.into())
                .with_timestamp_tz_format(TIMESTAMP_IN_UTC.into()),
        })
    }

    /// Encodes envelopes, each as a message.
    pub fn encode(&self, envelopes: &RecordBatch, at: EpochTime) -> Result<Pieces, String> {
        self.try_encode(envelopes, at).map_err(|error| error.to_string())
    }

    fn try_encode(&self, envelopes: &RecordBatch, at: EpochTime) -> Result<Pieces, ArrowError> {
        let [before, after, operations] = envelopes.columns() else {
            return Err(ArrowError::InvalidArgumentError("an envelope has three columns".into()));
        };
        let (before, after) = (self.values(before.as_struct())?, self.values(after.as_struct())?);
        let (mut old, mut new) = (self.texts(&before)?, self.texts(&after)?);
        let mut pieces = Pieces::default();
        for (row, operation) in operations.as_string_view().iter().enumerate() {
            let start = pieces.bytes.len();
            let (kind, data, changed) = match operation {
                Some("d") => ("delete", old.row(row), None),
                Some("u") => ("update", new.row(row), Some(old.changed(&mut new, row))),
                _ => ("insert", new.row(row), None),
            };
            self.write(&mut pieces.bytes, kind, &data, changed.as_deref(), at);
            pieces.bounds.push(Some((start, pieces.bytes.len())));
        }
        Ok(pieces)
    }

    fn write(&self, to: &mut Vec<u8>, kind: &str, data: &str, old: Option<&str>, at: EpochTime) {
        let RowEventEncoder { database, table, key, mysql_types, sql_types, .. } = self;
        let millis = at.now.millis();
        let text = match self.dialect {
            Dialect::Maxwell => {
                let old = old.map(|old| format!(",\"old\":{old}")).unwrap_or_default();
                let seconds = millis.div_euclid(1000);
                format!(
                    "{{\"database\":{database},\"table\":{table},\"type\":\"{kind}\",\"ts\":{seconds},\
                     \"data\":{data}{old}}}"
                )
            }
            Dialect::Canal => {
                let old = old.map_or_else(|| "null".to_string(), |old| format!("[{old}]"));
                let (kind, epoch) = (kind.to_uppercase(), at.epoch);
                format!(
                    "{{\"data\":[{data}],\"database\":{database},\"es\":{millis},\"id\":{epoch},\"isDdl\":false,\
                     \"mysqlType\":{mysql_types},\"old\":{old},\"pkNames\":{key},\"sql\":\"\",\
                     \"sqlType\":{sql_types},\"table\":{table},\"ts\":{millis},\"type\":\"{kind}\"}}"
                )
            }
        };
        to.extend_from_slice(text.as_bytes());
    }

    /// Returns the values of rows as the dialect writes them.
    fn values(&self, rows: &StructArray) -> Result<StructArray, ArrowError> {
        let values = rows.columns().iter().map(|column| match self.dialect {
            Dialect::Maxwell => in_utc(column),
            Dialect::Canal => text(column),
        });
        let values = values.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        let field = |(field, values): (&FieldRef, &ArrayRef)| {
            Arc::new(Field::new(field.name(), values.data_type().clone(), true))
        };
        let fields: Fields = rows.fields().iter().zip(&values).map(field).collect();
        StructArray::try_new(fields, values, rows.nulls().cloned())
    }

    fn texts<'a>(&'a self, rows: &'a StructArray) -> Result<RowTexts<'a>, ArrowError> {
        let column = |(field, values): (&'a FieldRef, &'a ArrayRef)| {
            Ok((format!("{}:", json!(field.name())), make_encoder(field, values.as_ref(), &self.options)?))
        };
        let columns = rows.fields().iter().zip(rows.columns()).map(column);
        Ok(RowTexts { columns: columns.collect::<Result<_, ArrowError>>()? })
    }
}

impl RowTexts<'_> {
    fn value(&mut self, column: usize, row: usize) -> String {
        let Some((_, values)) = self.columns.get_mut(column).filter(|(_, values)| !values.is_null(row))
        else {
            return "null".to_string();
        };
        let mut text = Vec::new();
        values.encode(row, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Returns a row as an object.
    fn row(&mut self, row: usize) -> String {
        self.object(row, |_, _| true)
    }

    /// Returns an object of the columns whose values another row changes.
    fn changed(&mut self, new: &mut RowTexts<'_>, row: usize) -> String {
        self.object(row, |column, old| new.value(column, row) != old)
    }

    fn object(&mut self, row: usize, mut is_included: impl FnMut(usize, &str) -> bool) -> String {
        let mut text = String::from("{");
        for column in 0..self.columns.len() {
            let value = self.value(column, row);
            if is_included(column, &value) {
                text.push_str(if text.len() > 1 { "," } else { "" });
                text.push_str(&self.columns[column].0);
                text.push_str(&value);
            }
        }
        text.push('}');
        text
    }
}

/// Fails for options of row events that another format doesn't have.
pub(super) fn refuse_names(spec: &SinkSpec, format: &str) -> Result<()> {
    refuse(&spec.options, &NAMES, format)
}

/// Fails for columns that MySQL's events can't hold so that their readers understand them.
fn check(columns: &SchemaRef, dialect: Dialect) -> Result<()> {
    check_columns(&crate::formats::Format::Json, columns)?;
    for field in columns.fields() {
        let cast = match field.data_type() {
            bytes if has_bytes(bytes) => "write them as text with encode(…, 'base64')",
            nested if nested.is_nested() && dialect == Dialect::Canal => "cast it to TEXT",
            DataType::Interval(_) | DataType::Duration(_) => "cast it to TEXT",
            _ => continue,
        };
        return Err(Error::Invalid(format!(
            "column '{}' has type {}, which format '{}' can't hold: {cast}",
            field.name(),
            sql_type(field.data_type()),
            dialect.format()
        )));
    }
    Ok(())
}

fn has_bytes(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => {
            has_bytes(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| has_bytes(field.data_type())),
        other => other.is_binary(),
    }
}

/// Returns values whose times are in UTC.
fn in_utc(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match values.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            cast(values, &DataType::Timestamp(*unit, Some("+00:00".into())))
        }
        _ => Ok(values.clone()),
    }
}

/// Returns the texts that MySQL shows for values.
fn text(values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(values) = values.as_any().downcast_ref::<BooleanArray>() {
        let text = |value: Option<bool>| value.map(|value| if value { "1" } else { "0" });
        return Ok(Arc::new(values.iter().map(text).collect::<StringViewArray>()));
    }
    let values = in_utc(values)?;
    let options = FormatOptions::new()
        .with_display_error(false)
        .with_timestamp_format(Some(TIMESTAMP))
        .with_timestamp_tz_format(Some(TIMESTAMP_IN_UTC));
    let formatter = ArrayFormatter::try_new(&values, &options)?;
    let text = |row: usize| match values.is_null(row) {
        true => Ok(None),
        false => formatter.value(row).try_to_string().map(Some),
    };
    let texts: Vec<Option<String>> = (0..values.len()).map(text).collect::<Result<_, ArrowError>>()?;
    Ok(Arc::new(texts.into_iter().collect::<StringViewArray>()))
}

/// Returns the type of MySQL for a type, and its number in `java.sql.Types`.
fn mysql_type(data_type: &DataType) -> (String, i32) {
    let (name, number) = match data_type {
        DataType::Boolean => ("tinyint(1)", -6),
        DataType::Int8 => ("tinyint", -6),
        DataType::Int16 => ("smallint", 5),
        DataType::Int32 => ("int", 4),
        DataType::Int64 => ("bigint", -5),
        DataType::UInt8 => ("tinyint unsigned", -6),
        DataType::UInt16 => ("smallint unsigned", 5),
        DataType::UInt32 => ("int unsigned", 4),
        DataType::UInt64 => ("bigint unsigned", -5),
        DataType::Float16 | DataType::Float32 => ("float", 7),
        DataType::Float64 => ("double", 8),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => return (format!("decimal({precision},{scale})"), 3),
        DataType::Date32 | DataType::Date64 => ("date", 91),
        DataType::Time32(_) | DataType::Time64(_) => ("time(6)", 92),
        DataType::Timestamp(_, None) => ("datetime(6)", 93),
        DataType::Timestamp(_, Some(_)) => ("timestamp(6)", 93),
        _ => ("longtext", 2005),
    };
    (name.to_string(), number)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Schema, TimeUnit};
    use millstream_delta::{Chunk, Delta, Epoch, Timestamp};

    use super::*;
    use crate::{MessageEncoder, Options};

    /// Returns rows of a key, a text, an amount, a flag, a number and two times; odd keys have no text.
    fn rows(keys: &[i64], amount: i128, flag: Option<bool>) -> RecordBatch {
        let count = keys.len();
        let time = 1_769_860_800_250_000;
        let amounts = Decimal128Array::from(vec![amount; count]).with_precision_and_scale(10, 2).unwrap();
        let times = TimestampMicrosecondArray::from(vec![time; count]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from(keys.to_vec()))),
            (
                "na\"me",
                Arc::new(
                    keys.iter().map(|key| (key % 2 == 0).then_some("a\n\"é")).collect::<StringViewArray>(),
                ),
            ),
            ("amount", Arc::new(amounts)),
            ("flag", Arc::new(BooleanArray::from(vec![flag; count]))),
            ("ratio", Arc::new(Float64Array::from(vec![0.5; count]))),
            ("at", Arc::new(times.clone())),
            ("since", Arc::new(times.with_timezone("+00:00"))),
        ];
        let field = |(name, values): &(&str, ArrayRef)| Field::new(*name, values.data_type().clone(), true);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let columns = columns.into_iter().map(|(_, values)| values).collect();
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn spec(format: &str, columns: SchemaRef, more: &[(&str, &str)]) -> SinkSpec {
        let options = [("format", format), ("topic", "orders")].into_iter().chain(more.iter().copied());
        let options = options.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        SinkSpec {
            name: "s".into(),
            columns,
            append_only: false,
            key: Some(vec![0]),
            auto_pace: false,
            options: Options(options),
        }
    }

    /// Returns the events of a delete, an update and an insert, in their order.
    fn events(format: &str, more: &[(&str, &str)]) -> Vec<Value> {
        let mut delta = Delta::insert(rows(&[2], 1234, None));
        delta.push(Chunk::delete(rows(&[2], 1230, Some(true))));
        delta.push(Chunk::insert(rows(&[3], -5, Some(false))));
        delta.push(Chunk::delete(rows(&[4], 0, Some(true))));
        let encoder = MessageEncoder::new(&spec(format, rows(&[], 0, None).schema(), more), "kafka").unwrap();
        let at = EpochTime { epoch: Epoch(7), now: Timestamp(1_769_860_801_999_999) };
        let mut events = Vec::new();
        for rows in encoder.rows(&delta, at).unwrap() {
            let messages = encoder.encode(&rows).unwrap();
            assert_eq!(messages.len(), rows.len());
            for at in 0..messages.len() {
                assert!(messages.key(at).unwrap().starts_with(b"{\"id\":"));
                events.push(serde_json::from_slice(messages.value(at).unwrap()).unwrap());
            }
        }
        events
    }

    #[test]
    fn maxwell_has_a_row_and_the_old_values_of_an_update() {
        let row = |id: i64, name: Option<&str>, amount: Value, flag: Option<bool>| {
            json!({
                "id": id, "na\"me": name, "amount": amount, "flag": flag, "ratio": 0.5,
                "at": "2026-01-31 12:00:00.250", "since": "2026-01-31 12:00:00.250Z"
            })
        };
        let event = |kind: &str, data: Value| json!({"database": "shop", "table": "orders", "type": kind, "ts": 1_769_860_801, "data": data});
        let mut update = event("update", row(2, Some("a\n\"é"), json!(12.34), None));
        update["old"] = json!({"amount": 12.3, "flag": true});
        let expected = [
            event("delete", row(4, Some("a\n\"é"), json!(0.0), Some(true))),
            update,
            event("insert", row(3, None, json!(-0.05), Some(false))),
        ];
        assert_eq!(events("maxwell_json", &[("database", "shop")]), expected);
    }

    #[test]
    fn canal_has_texts_and_the_types_of_columns() {
        let row = |id: &str, name: Option<&str>, amount: &str, flag: Option<&str>| {
            json!({
                "id": id, "na\"me": name, "amount": amount, "flag": flag, "ratio": "0.5",
                "at": "2026-01-31 12:00:00.250", "since": "2026-01-31 12:00:00.250Z"
            })
        };
        let event = |kind: &str, data: Value, old: Value| {
            json!({
                "data": [data], "database": "millstream", "es": 1_769_860_801_999_i64, "id": 7, "isDdl": false,
                "mysqlType": {
                    "id": "bigint", "na\"me": "longtext", "amount": "decimal(10,2)", "flag": "tinyint(1)",
                    "ratio": "double", "at": "datetime(6)", "since": "timestamp(6)"
                },
                "old": old, "pkNames": ["id"], "sql": "",
                "sqlType": {
                    "id": -5, "na\"me": 2005, "amount": 3, "flag": -6, "ratio": 8, "at": 93, "since": 93
                },
                "table": "t", "ts": 1_769_860_801_999_i64, "type": kind
            })
        };
        let expected = [
            event("DELETE", row("4", Some("a\n\"é"), "0.00", Some("1")), Value::Null),
            event(
                "UPDATE",
                row("2", Some("a\n\"é"), "12.34", None),
                json!([{"amount": "12.30", "flag": "1"}]),
            ),
            event("INSERT", row("3", None, "-0.05", Some("0")), Value::Null),
        ];
        assert_eq!(events("canal_json", &[("table", "t")]), expected);
    }

    #[test]
    fn columns_that_the_events_cannot_hold_are_refused() {
        let error = |format: &str, data_type: DataType| {
            let fields = vec![Field::new("id", DataType::Int64, false), Field::new("x", data_type, true)];
            let spec = spec(format, Arc::new(Schema::new(fields)), &[]);
            MessageEncoder::new(&spec, "kafka").map(drop).unwrap_err().to_string()
        };
        let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
        for (format, data_type) in [
            ("maxwell_json", DataType::BinaryView),
            ("canal_json", DataType::BinaryView),
            ("maxwell_json", list(DataType::BinaryView)),
        ] {
            let error = error(format, data_type);
            assert!(error.contains("column 'x' has type BYTEA"), "{error}");
            assert!(error.contains("encode(…, 'base64')"), "{error}");
        }
        assert!(error("canal_json", list(DataType::Int64)).contains("can't hold: cast it to TEXT"));
        assert_eq!(mysql_type(&DataType::Timestamp(TimeUnit::Second, None)).1, 93);
        let fields = vec![Field::new("id", DataType::Int64, false)];
        let spec = spec("upsert_json", Arc::new(Schema::new(fields)), &[("table", "t")]);
        let error = MessageEncoder::new(&spec, "kafka").map(drop).unwrap_err().to_string();
        assert!(error.contains("option 'table' isn't for format 'upsert_json'"), "{error}");
    }
}
