//! Keys of any columns, encoded as bytes by arrow-row.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, SortField};
use millstream_delta::{canonical, contains_floats};

use super::bytes::{BytesTable, Probe};
use super::{Found, WINDOW_ROWS};
use crate::Result;

/// Keys of any columns.
#[derive(Debug)]
pub(super) struct EncodedKeys {
    converter: RowConverter,
    parser: RowParser,
    has_floats: bool,
    pub(super) table: BytesTable,
}

impl EncodedKeys {
    pub(super) fn new(types: &[DataType]) -> Result<EncodedKeys> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        let converter = RowConverter::new(fields)?;
        let parser = converter.parser();
        let has_floats = types.iter().any(contains_floats);
        Ok(EncodedKeys { converter, parser, has_floats, table: BytesTable::default() })
    }

    /// Returns a copy; `types` are those of the columns.
    pub(super) fn try_clone(&self, types: &[DataType]) -> Result<EncodedKeys> {
        Ok(EncodedKeys { table: self.table.clone(), ..EncodedKeys::new(types)? })
    }

    /// Returns the keys by slot, see [`BytesTable::share`]; `types` are those of the columns.
    pub(super) fn share(&self, types: &[DataType]) -> Result<EncodedKeys> {
        Ok(EncodedKeys { table: self.table.share(), ..EncodedKeys::new(types)? })
    }

    pub(super) fn insert(&mut self, columns: &[ArrayRef], found: &mut Found) -> Result<()> {
        for start in (0..columns[0].len()).step_by(WINDOW_ROWS.get()) {
            let rows = self.encode(columns, start)?;
            let probes: Vec<_> = rows.iter().map(|row| Some(Probe::new(row.data()))).collect();
            self.table.insert(&probes, found)?;
        }
        Ok(())
    }

    pub(super) fn find(&self, columns: &[ArrayRef], out: &mut Vec<u32>) -> Result<()> {
        for start in (0..columns[0].len()).step_by(WINDOW_ROWS.get()) {
            let rows = self.encode(columns, start)?;
            let probes: Vec<_> = rows.iter().map(|row| Some(Probe::new(row.data()))).collect();
            self.table.find(&probes, out);
        }
        Ok(())
    }

    pub(super) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = slots.iter().map(|slot| self.parser.parse(self.table.get(*slot).unwrap_or_default()));
        Ok(self.converter.convert_rows(rows)?)
    }

    fn encode(&self, columns: &[ArrayRef], start: usize) -> Result<arrow::row::Rows> {
        let window = columns.iter().map(|column| {
            let column = column.slice(start, WINDOW_ROWS.get().min(column.len() - start));
            if self.has_floats { canonical(&column) } else { Ok(column) }
        });
        Ok(self.converter.convert_columns(&window.collect::<std::result::Result<Vec<_>, ArrowError>>()?)?)
    }
}
