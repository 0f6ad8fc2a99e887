//! Rows of a catalog table: columns are set by name, and the others are empty.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, Int64Builder,
    IntervalMonthDayNanoArray, ListBuilder, RecordBatch, StringViewArray, StringViewBuilder,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNano};
use millstream_sql::{Error, Result};

use super::layout::Layout;
use crate::error;
use crate::system::UTC;

/// A value of such a table, or an argument or result of its functions.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Value {
        Value::Int(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Value {
        Value::Int(value as i64)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_string())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl From<char> for Value {
    fn from(value: char) -> Value {
        Value::Text(value.to_string())
    }
}

impl From<Vec<i64>> for Value {
    fn from(value: Vec<i64>) -> Value {
        Value::Ints(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

/// Returns the default value of a NOT NULL column that a row does not set.
fn empty(data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => Value::Bool(false),
        DataType::List(_) => Value::Ints(Vec::new()),
        DataType::Utf8View => Value::Text(String::new()),
        _ => Value::Int(0),
    }
}

/// A builder of rows.
pub(super) struct Rows {
    layout: &'static Layout,
    rows: Vec<Vec<Value>>,
}

/// The columns that a row sets.
pub(super) type Cells<'a> = &'a [(&'a str, Value)];

impl Rows {
    pub(super) fn new(layout: &'static Layout) -> Rows {
        Rows { layout, rows: Vec::new() }
    }

    /// Adds a row. Ignores cells of columns that the table doesn't have, so that similar tables can share
    /// cells.
    pub(super) fn push(&mut self, cells: Cells<'_>) {
        let columns = self.layout.columns.iter().zip(self.layout.schema.fields());
        let row = columns.map(|(column, field)| {
            let found = cells.iter().find(|(name, _)| *name == column.name).map(|(_, value)| value.clone());
            match found {
                Some(Value::Null) | None if column.not_null => empty(field.data_type()),
                Some(value) => value,
                None => Value::Null,
            }
        });
        let mut row: Vec<Value> = row.collect();
        if self.layout.schema.fields().len() > row.len() {
            row.push(self.layout.oid.into());
        }
        self.rows.push(row);
    }

    /// Returns the rows as a batch.
    pub(super) fn batch(self) -> Result<RecordBatch> {
        let fields = self.layout.schema.fields().iter().enumerate();
        let columns = fields.map(|(place, field)| {
            column(self.rows.iter().map(|row| &row[place]), self.rows.len(), field.data_type())
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.layout.schema.clone(), columns).map_err(error::arrow)
    }
}

/// Converts values to a column of a type.
pub(super) fn column<'a>(
    values: impl Iterator<Item = &'a Value> + Clone,
    rows: usize,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let int = |value: &Value| match value {
        Value::Int(value) => Some(*value),
        _ => None,
    };
    let text = |value: &'a Value| match value {
        Value::Text(value) => Some(value.as_str()),
        _ => None,
    };
    Ok(match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(values.map(|value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        }))),
        DataType::Int16 => Arc::new(Int16Array::from_iter(values.map(|value| int(value).map(|n| n as i16)))),
        DataType::Int32 => Arc::new(Int32Array::from_iter(values.map(|value| int(value).map(|n| n as i32)))),
        DataType::Int64 => Arc::new(Int64Array::from_iter(values.map(int))),
        DataType::UInt32 => {
            Arc::new(UInt32Array::from_iter(values.map(|value| int(value).map(|n| n as u32))))
        }
        DataType::Float32 => {
            Arc::new(Float32Array::from_iter(values.map(|value| int(value).map(|n| n as f32))))
        }
        DataType::Float64 => {
            Arc::new(Float64Array::from_iter(values.map(|value| int(value).map(|n| n as f64))))
        }
        DataType::Timestamp(..) => {
            Arc::new(TimestampMicrosecondArray::from_iter(values.map(int)).with_timezone(UTC))
        }
        // Intervals are given in seconds.
        DataType::Interval(_) => Arc::new(IntervalMonthDayNanoArray::from_iter(values.map(|value| {
            int(value).map(|seconds| IntervalMonthDayNano::new(0, 0, seconds.saturating_mul(1_000_000_000)))
        }))),
        DataType::Utf8View => Arc::new(StringViewArray::from_iter(values.map(text))),
        DataType::List(element) => list(values, element.data_type())?,
        other if values.clone().all(|value| *value == Value::Null) => new_null_array(other, rows),
        other => return Err(Error::bug(format!("a column of the catalog has type {other}"))),
    })
}

fn list<'a>(values: impl Iterator<Item = &'a Value>, element: &DataType) -> Result<ArrayRef> {
    if *element == DataType::Utf8View {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for value in values {
            match value {
                Value::Texts(texts) => lists.append_value(texts.iter().map(Some)),
                Value::Ints(none) if none.is_empty() => lists.append(true),
                _ => lists.append(false),
            }
        }
        return Ok(Arc::new(lists.finish()));
    }
    let mut lists = ListBuilder::new(Int64Builder::new());
    for value in values {
        match value {
            Value::Ints(ints) => lists.append_value(ints.iter().map(|int| Some(*int))),
            _ => lists.append(false),
        }
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    cast(&lists, &DataType::new_list(element.clone(), true)).map_err(error::arrow)
}
