//! The elements of a column of arrays or maps, one after the other.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use datafusion::error::Result;

/// The elements of all rows. A row that is NULL has none.
pub(crate) struct Elements {
    /// The columns of the elements: one for arrays; keys and values for maps.
    pub(crate) columns: Vec<ArrayRef>,
    /// The number of elements of each row.
    pub(crate) lengths: Vec<usize>,
    /// The rows that aren't NULL.
    pub(crate) nulls: Option<NullBuffer>,
}

impl Elements {
    /// Returns the elements of a column of arrays or maps. NULL counts as an array without elements.
    pub(crate) fn of(column: &ArrayRef) -> Result<Elements> {
        let (offsets, columns) = match column.data_type() {
            DataType::Null => return Elements::of(&cast(column, &DataType::new_list(DataType::Null, true))?),
            DataType::Map(..) => {
                let map = column.as_map();
                (map.offsets().clone(), vec![Arc::clone(map.keys()), Arc::clone(map.values())])
            }
            _ => {
                let list = column.as_list::<i32>();
                (list.offsets().clone(), vec![Arc::clone(list.values())])
            }
        };
        let bound = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
        let range = |row: usize| if column.is_null(row) { 0..0 } else { bound(row)..bound(row + 1) };
        let lengths: Vec<usize> = (0..column.len()).map(|row| range(row).len()).collect();
        let total: usize = lengths.iter().sum();
        let (first, last) = (bound(0), bound(column.len()));
        let columns = match total == last - first {
            true => columns.iter().map(|values| values.slice(first, total)).collect(),
            false => {
                let places = (0..column.len()).flat_map(range).filter_map(|place| u64::try_from(place).ok());
                let places = UInt64Array::from_iter_values(places);
                columns.iter().map(|values| Ok(take(values, &places, None)?)).collect::<Result<_>>()?
            }
        };
        Ok(Elements { columns, lengths, nulls: column.nulls().cloned() })
    }

    /// Returns the row of each element.
    pub(crate) fn rows(&self) -> UInt64Array {
        let rows = (0_u64..).zip(&self.lengths).flat_map(|(row, length)| std::iter::repeat_n(row, *length));
        UInt64Array::from_iter_values(rows)
    }

    /// Returns the place of the first element of each row.
    pub(crate) fn starts(&self) -> Vec<usize> {
        let mut next = 0;
        let starts = self.lengths.iter().map(|length| {
            let start = next;
            next += length;
            start
        });
        starts.collect()
    }

    /// Returns the offsets of arrays with these elements.
    pub(crate) fn offsets(&self) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths(self.lengths.iter().copied())
    }

    /// Returns the elements for which a mask is true.
    pub(crate) fn filtered(self, mask: &dyn Array) -> Result<Elements> {
        let mask = mask.as_boolean();
        let keeps = |place: usize| mask.is_valid(place) && mask.value(place);
        let starts = self.starts();
        let rows = self.lengths.iter().zip(&starts);
        let lengths = rows.map(|(length, start)| (*start..start + length).filter(|at| keeps(*at)).count());
        let lengths = lengths.collect();
        let columns = self.columns.iter().map(|column| Ok(arrow::compute::filter(column, mask)?));
        Ok(Elements { columns: columns.collect::<Result<_>>()?, lengths, nulls: self.nulls })
    }
}
