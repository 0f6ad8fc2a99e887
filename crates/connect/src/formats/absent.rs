//! Placeholder values for columns that no query reads.

use arrow::array::{Array, ArrayRef, make_array, new_null_array};
use arrow::datatypes::{DataType, Field};

/// Rows in the stored array; longer ones are created on demand.
const ROWS: usize = 16 * 1024;

/// Any number of placeholder rows of one column: NULL, or zero or the empty text if the column is NOT NULL.
#[derive(Debug)]
pub(crate) struct Absent {
    field: Field,
    rows: ArrayRef,
}

impl Absent {
    /// Creates the placeholder of a field; `None` if its type has no value of zero bytes.
    pub(crate) fn of(field: &Field) -> Option<Absent> {
        let data_type = field.data_type();
        let is_text = data_type.is_string() || data_type.is_binary();
        let plain = is_text || *data_type == DataType::Boolean || data_type.is_primitive();
        plain.then(|| Absent { field: field.clone(), rows: made(field, ROWS) })
    }

    /// Returns `count` rows.
    pub(crate) fn rows(&self, count: usize) -> ArrayRef {
        if count <= ROWS { self.rows.slice(0, count) } else { made(&self.field, count) }
    }
}

fn made(field: &Field, rows: usize) -> ArrayRef {
    let null = new_null_array(field.data_type(), rows);
    if field.is_nullable() {
        return null;
    }
    // The values under the NULLs are zero bytes.
    let zero = null.to_data().into_builder().nulls(None).build();
    zero.map_or(null, make_array)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn absent_rows_fit_their_field() {
        let number = Absent::of(&Field::new("n", DataType::Int64, false)).unwrap();
        assert_eq!(number.rows(3).as_ref(), &Int64Array::from(vec![0, 0, 0]) as &dyn Array);
        let text = Absent::of(&Field::new("t", DataType::Utf8View, false)).unwrap();
        assert_eq!(text.rows(2).as_ref(), &StringViewArray::from(vec!["", ""]) as &dyn Array);
        let nullable = Absent::of(&Field::new("n", DataType::Int64, true)).unwrap();
        assert_eq!(nullable.rows(ROWS + 1).null_count(), ROWS + 1);
        let list = DataType::new_list(DataType::Int64, true);
        assert!(Absent::of(&Field::new("l", list, true)).is_none());
    }
}
