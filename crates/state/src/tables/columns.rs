//! The columns of a saved table, with checks of their types.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, LargeListArray, PrimitiveArray, RecordBatch,
    StringArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field};

use super::Tables;
use crate::{Error, Result};

/// The columns of a table over all its rows.
#[derive(Debug)]
pub struct Columns {
    table: String,
    /// `None` for a table without rows, which is not stored.
    rows: Option<RecordBatch>,
}

impl Tables {
    /// Removes a table and returns its columns.
    pub fn take_table(&mut self, name: &str) -> Result<Columns> {
        let batches = self.take(name)?;
        let rows = match &batches[..] {
            [] => None,
            [one] => Some(one.clone()),
            [first, ..] => Some(concat_batches(&first.schema(), &batches)?),
        };
        Ok(Columns { table: name.to_string(), rows })
    }

    /// Like [`Tables::take_table`]; fails unless the table has `count` rows.
    pub fn take_rows(&mut self, name: &str, count: usize) -> Result<Columns> {
        let columns = self.take_table(name)?;
        match columns.num_rows() {
            rows if rows == count => Ok(columns),
            rows => Err(Error::Incomplete(format!("table '{name}' has {rows} rows instead of {count}"))),
        }
    }
}

impl Columns {
    /// Returns the number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows.as_ref().map_or(0, RecordBatch::num_rows)
    }

    /// Returns true if there are no rows. The columns are unknown then.
    pub fn is_empty(&self) -> bool {
        self.num_rows() == 0
    }

    /// Returns all columns in order; none for a table without rows.
    pub fn all(&self) -> &[ArrayRef] {
        self.rows.as_ref().map_or(&[], RecordBatch::columns)
    }

    /// Returns the first column of a name, of a table that has rows.
    pub fn column(&self, name: &str) -> Result<&ArrayRef> {
        let column = self.rows.as_ref().and_then(|rows| rows.column_by_name(name));
        column.ok_or_else(|| super::missing(&self.table, name))
    }

    /// Like [`Columns::column`]; fails unless the column has this type.
    pub fn typed(&self, name: &str, data_type: &DataType) -> Result<&ArrayRef> {
        let column = self.column(name)?;
        if column.data_type() == data_type { Ok(column) } else { Err(self.other_type(name, column)) }
    }

    /// Returns a column of a primitive type.
    pub fn numbers<T: ArrowPrimitiveType>(&self, name: &str) -> Result<PrimitiveArray<T>> {
        if self.is_empty() {
            return Ok(PrimitiveArray::new_null(0));
        }
        let column = self.column(name)?;
        column.as_primitive_opt::<T>().cloned().ok_or_else(|| self.other_type(name, column))
    }

    /// Returns a column of booleans.
    pub fn booleans(&self, name: &str) -> Result<BooleanArray> {
        if self.is_empty() {
            return Ok(BooleanArray::new_null(0));
        }
        let column = self.column(name)?;
        column.as_boolean_opt().cloned().ok_or_else(|| self.other_type(name, column))
    }

    /// Returns a column of texts.
    pub fn texts(&self, name: &str) -> Result<StringArray> {
        if self.is_empty() {
            return Ok(StringArray::new_null(0));
        }
        let column = self.column(name)?;
        column.as_string_opt::<i32>().cloned().ok_or_else(|| self.other_type(name, column))
    }

    /// Returns a column of lists of numbers, as [`Lists::column`] builds it.
    pub fn lists<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Lists<T>> {
        if self.is_empty() {
            return Ok(Lists::default());
        }
        let column = self.column(name)?;
        let lists = column.as_list_opt::<i64>().ok_or_else(|| self.other_type(name, column))?;
        let values = lists.values().as_primitive_opt::<T>().ok_or_else(|| self.other_type(name, column))?;
        Ok(Lists {
            ends: lists.offsets().iter().map(|offset| *offset as usize).collect(),
            values: values.values().to_vec(),
        })
    }

    fn other_type(&self, name: &str, column: &ArrayRef) -> Error {
        let found = column.data_type();
        Error::Incomplete(format!("column '{name}' of table '{}' has another type: {found}", self.table))
    }
}

/// Lists of numbers, one per row.
#[derive(Debug)]
pub struct Lists<T: ArrowPrimitiveType> {
    /// The start of the first list, then the ends of all lists.
    ends: Vec<usize>,
    values: Vec<T::Native>,
}

impl<T: ArrowPrimitiveType> Default for Lists<T> {
    fn default() -> Lists<T> {
        Lists { ends: vec![0], values: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType> Lists<T> {
    /// Adds a list, which `fill` appends to the values.
    pub fn push(&mut self, fill: impl FnOnce(&mut Vec<T::Native>)) {
        fill(&mut self.values);
        self.ends.push(self.values.len());
    }

    /// Returns the lists in order.
    pub fn iter(&self) -> impl Iterator<Item = &[T::Native]> {
        self.ends.windows(2).map(|ends| &self.values[ends[0]..ends[1]])
    }

    /// Returns the lists as a column.
    pub fn column(self) -> Result<ArrayRef> {
        let item = Arc::new(Field::new("item", T::DATA_TYPE, true));
        let offsets = OffsetBuffer::from_lengths(self.ends.windows(2).map(|ends| ends[1] - ends[0]));
        let values: ArrayRef = Arc::new(PrimitiveArray::<T>::new(self.values.into(), None));
        Ok(Arc::new(LargeListArray::try_new(item, offsets, values, None)?))
    }
}
