//! Keys of one column of text or binary data.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewBuilder, GenericBinaryArray, GenericBinaryBuilder,
    GenericStringArray, OffsetSizeTrait,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::bytes::{BytesTable, Probe};
use super::{Found, WINDOW_ROWS};
use crate::Result;

/// Keys of one column of text or binary data.
#[derive(Clone, Debug)]
pub(super) struct TextKeys {
    data_type: DataType,
    pub(super) table: BytesTable,
}

impl TextKeys {
    /// Returns an index of keys of this type, if it is a text or binary type.
    pub(super) fn of(data_type: &DataType) -> Option<TextKeys> {
        let serves = matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
        );
        serves.then(|| TextKeys { data_type: data_type.clone(), table: BytesTable::default() })
    }

    /// Returns the keys by slot, see [`BytesTable::share`].
    pub(super) fn share(&self) -> TextKeys {
        TextKeys { data_type: self.data_type.clone(), table: self.table.share() }
    }

    pub(super) fn insert(&mut self, column: &ArrayRef, found: &mut Found) -> Result<()> {
        for_each_window(column, |probes| self.table.insert(probes, found))
    }

    pub(super) fn find(&self, column: &ArrayRef, out: &mut Vec<u32>) -> Result<()> {
        for_each_window(column, |probes| {
            self.table.find(probes, out);
            Ok(())
        })
    }

    pub(super) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![match self.data_type {
            DataType::Utf8 => Arc::new(GenericStringArray::try_from_binary(self.gather::<i32>(slots)?)?),
            DataType::LargeUtf8 => Arc::new(GenericStringArray::try_from_binary(self.gather::<i64>(slots)?)?),
            DataType::Binary => Arc::new(self.gather::<i32>(slots)?),
            DataType::LargeBinary => Arc::new(self.gather::<i64>(slots)?),
            DataType::Utf8View => Arc::new(self.gather_views(slots).finish().to_string_view()?),
            _ => Arc::new(self.gather_views(slots).finish()) as ArrayRef,
        }])
    }

    fn gather<O: OffsetSizeTrait>(
        &self,
        slots: &[u32],
    ) -> std::result::Result<GenericBinaryArray<O>, ArrowError> {
        let bytes: usize = slots.iter().map(|slot| self.table.get(*slot).map_or(0, <[u8]>::len)).sum();
        if O::from_usize(bytes).is_none() {
            let message = format!("{bytes} bytes of keys don't fit one column of type {}", self.data_type);
            return Err(ArrowError::ComputeError(message));
        }
        let mut builder = GenericBinaryBuilder::<O>::with_capacity(slots.len(), bytes);
        slots.iter().for_each(|slot| builder.append_option(self.table.get(*slot)));
        Ok(builder.finish())
    }

    fn gather_views(&self, slots: &[u32]) -> BinaryViewBuilder {
        let mut builder = BinaryViewBuilder::with_capacity(slots.len());
        slots.iter().for_each(|slot| builder.append_option(self.table.get(*slot)));
        builder
    }
}

/// Hashes the rows of a window, then looks them up: so the cache misses of neighbouring rows overlap.
fn for_each_window<'a>(
    column: &'a ArrayRef,
    mut each: impl FnMut(&[Option<Probe<'a>>]) -> Result<()>,
) -> Result<()> {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    let mut probes = Vec::with_capacity(column.len().min(WINDOW_ROWS.get()));
    for start in (0..column.len()).step_by(WINDOW_ROWS.get()) {
        let range = start..column.len().min(start + WINDOW_ROWS.get());
        probes.clear();
        match column.data_type() {
            DataType::Utf8 => {
                let column = column.as_string::<i32>();
                let (values, offsets) = (column.values().as_slice(), column.value_offsets());
                probes.extend(range.clone().map(|row| Some(probe(values, offsets, row))));
            }
            DataType::LargeUtf8 => {
                let column = column.as_string::<i64>();
                let (values, offsets) = (column.values().as_slice(), column.value_offsets());
                probes.extend(range.clone().map(|row| Some(probe(values, offsets, row))));
            }
            DataType::Binary => {
                let column = column.as_binary::<i32>();
                let (values, offsets) = (column.values().as_slice(), column.value_offsets());
                probes.extend(range.clone().map(|row| Some(probe(values, offsets, row))));
            }
            DataType::LargeBinary => {
                let column = column.as_binary::<i64>();
                let (values, offsets) = (column.values().as_slice(), column.value_offsets());
                probes.extend(range.clone().map(|row| Some(probe(values, offsets, row))));
            }
            DataType::Utf8View => {
                let column = column.as_string_view();
                let value = |row| column.value(row).as_bytes();
                probes.extend(range.clone().map(|row| Some(probe_view(column.views()[row], || value(row)))));
            }
            _ => {
                let column = column.as_binary_view();
                let value = |row| column.value(row);
                probes.extend(range.clone().map(|row| Some(probe_view(column.views()[row], || value(row)))));
            }
        }
        if let Some(nulls) = nulls {
            range
                .clone()
                .zip(&mut probes)
                .filter(|(row, _)| nulls.is_null(*row))
                .for_each(|(_, probe)| *probe = None);
        }
        each(&probes)?;
    }
    Ok(())
}

#[inline]
fn probe<'a, O: OffsetSizeTrait>(values: &'a [u8], offsets: &[O], row: usize) -> Probe<'a> {
    let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
    Probe::at(values, start, end - start)
}

#[inline]
fn probe_view<'a>(view: u128, bytes: impl FnOnce() -> &'a [u8]) -> Probe<'a> {
    if view as u32 <= 12 { Probe::short(view) } else { Probe::new(bytes()) }
}
