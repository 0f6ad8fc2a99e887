//! Keys of any columns, encoded as bytes by arrow-row.

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, RowParser, SortField};

use super::bytes::{BytesTable, Probe};
use super::fixed::{canonical_f16, canonical_f32, canonical_f64};
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

    pub(super) fn insert(&mut self, columns: &[ArrayRef], found: &mut Found) -> Result<()> {
        for start in (0..columns[0].len()).step_by(WINDOW_ROWS) {
            let rows = self.encode(columns, start)?;
            let probes: Vec<_> = rows.iter().map(|row| Some(Probe::new(row.data()))).collect();
            self.table.insert(&probes, found)?;
        }
        Ok(())
    }

    pub(super) fn find(&self, columns: &[ArrayRef], out: &mut Vec<u32>) -> Result<()> {
        for start in (0..columns[0].len()).step_by(WINDOW_ROWS) {
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
            let column = column.slice(start, WINDOW_ROWS.min(column.len() - start));
            if self.has_floats { canonical(column.to_data()).map(make_array) } else { Ok(column) }
        });
        Ok(self.converter.convert_columns(&window.collect::<std::result::Result<Vec<_>, ArrowError>>()?)?)
    }
}

fn contains_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => contains_floats(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| contains_floats(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| contains_floats(field.data_type())),
        DataType::Dictionary(_, values) => contains_floats(values),
        DataType::RunEndEncoded(_, values) => contains_floats(values.data_type()),
        data_type => data_type.is_floating(),
    }
}

/// The same values with 0.0 for -0.0 and one NaN for all, in whatever depth.
fn canonical(data: ArrayData) -> std::result::Result<ArrayData, ArrowError> {
    if !contains_floats(data.data_type()) {
        return Ok(data);
    }
    let buffer = match data.data_type() {
        DataType::Float16 => {
            let values = &data.buffer::<u16>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|bits| canonical_f16(*bits)).collect::<Vec<u16>>())
        }
        DataType::Float32 => {
            let values = &data.buffer::<f32>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|value| canonical_f32(*value)).collect::<Vec<u32>>())
        }
        DataType::Float64 => {
            let values = &data.buffer::<f64>(0)[..data.len()];
            Buffer::from_vec(values.iter().map(|value| canonical_f64(*value)).collect::<Vec<u64>>())
        }
        _ => {
            let children = data.child_data().iter().map(|child| canonical(child.clone()));
            let children = children.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
            return data.into_builder().child_data(children).build();
        }
    };
    let nulls = data.nulls().cloned();
    ArrayData::builder(data.data_type().clone()).len(data.len()).add_buffer(buffer).nulls(nulls).build()
}
