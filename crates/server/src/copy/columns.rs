//! Gathers received fields into arrays.

use std::sync::Arc;

use arrow::array::types::{Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, PrimitiveArray, StringArray, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, FieldRef};
use bytes::Bytes;
use millstream_engine::{ZoneOffsets, in_utc};

use crate::binary::EPOCH_MICROSECONDS;
use crate::decode::{self, Wrong};
use crate::message::Format;
use crate::oid::Kind;

/// The values of one column, as the bytes received.
pub(super) struct Gathered {
    pub(super) field: FieldRef,
    kind: Kind,
    values: Vec<u8>,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

/// The first value that is invalid for its column's type.
pub(super) struct WrongAt {
    /// Its place among the gathered rows.
    pub(super) row: usize,
    pub(super) wrong: Wrong,
}

impl Gathered {
    pub(super) fn new(field: &FieldRef) -> Gathered {
        Gathered {
            field: field.clone(),
            kind: Kind::of(field),
            values: Vec::new(),
            offsets: vec![0],
            valid: Vec::new(),
        }
    }

    /// Appends bytes to the open value.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.values.extend_from_slice(bytes);
    }

    /// Returns the bytes of the open value.
    pub(super) fn open(&self) -> &[u8] {
        let start = self.offsets.last().copied().unwrap_or(0) as usize;
        &self.values[start..]
    }

    /// Closes the open value.
    pub(super) fn close(&mut self, valid: bool) {
        if !valid {
            self.values.truncate(self.offsets.last().copied().unwrap_or(0) as usize);
        }
        // Fits: the size of a batch and of one message is bounded.
        self.offsets.push(self.values.len() as i32);
        self.valid.push(valid);
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.len()
    }

    /// Takes the only value as text.
    pub(super) fn take_text(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.values)).into_owned();
        self.offsets.truncate(1);
        self.valid.pop().is_some_and(|valid| valid).then_some(text)
    }

    /// Takes the values as an array of the column's type.
    pub(super) fn take(&mut self, format: Format) -> Result<ArrayRef, WrongAt> {
        let values = std::mem::take(&mut self.values);
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let valid = std::mem::take(&mut self.valid);
        let rows = valid.len();
        let nulls = NullBuffer::from(valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let raw = BinaryArray::new(offsets, Buffer::from_vec(values), nulls);
        let array = match format {
            Format::Binary => self.read_binary(&raw),
            Format::Text => self.read_text(raw),
        }?;
        debug_assert_eq!(array.len(), rows);
        Ok(array)
    }

    fn read_text(&self, raw: BinaryArray) -> Result<ArrayRef, WrongAt> {
        let (offsets, values, nulls) = raw.into_parts();
        let mut text = match StringArray::try_new(offsets.clone(), values.clone(), nulls.clone()) {
            Ok(text) => text,
            Err(_) => {
                let raw = BinaryArray::new(offsets, values, nulls);
                let bad = |row: &usize| raw.is_valid(*row) && std::str::from_utf8(raw.value(*row)).is_err();
                let row = (0..raw.len()).find(bad).unwrap_or(0);
                return Err(WrongAt { row, wrong: "text that is not UTF-8 was found".into() });
            }
        };
        let plain = match &self.kind {
            Kind::Bool | Kind::Bytea | Kind::Uuid | Kind::Interval | Kind::Array(_) => None,
            Kind::Inet | Kind::Cidr | Kind::Macaddr | Kind::Macaddr8 => Some(DataType::Utf8),
            Kind::Range(_) | Kind::Multirange(_) => Some(DataType::Utf8),
            Kind::Tsvector | Kind::Tsquery => Some(DataType::Utf8),
            Kind::Geometric(_) | Kind::Bit(_) | Kind::Varbit(_) => Some(DataType::Utf8),
            // Structs, maps and lists of lists can't be read from text.
            Kind::Json | Kind::Jsonb | Kind::Xml => Some(DataType::Utf8),
            _ => Some(self.field.data_type().clone()),
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let cast = |text: &StringArray| cast_with_options(text, plain.as_ref()?, &options).ok();
        let zone = self.zone();
        // The cast reads most local times of UTC itself.
        if zone.as_ref().is_none_or(ZoneOffsets::is_utc)
            && let Some(array) = cast(&text)
        {
            return self.fitted(array);
        }
        if let Some(zone) = &zone {
            text = text.iter().map(|text| text.map(|text| in_utc(text, zone))).collect();
            if let Some(array) = cast(&text) {
                return self.fitted(array);
            }
        }
        // One by one: for the few types with their own parser, and to find the invalid value.
        let read = |row: usize| {
            let value = text.value(row);
            decode::from_text(&self.kind, value).map_err(|wrong| WrongAt { row, wrong })
        };
        self.one_by_one(text.len(), text.nulls(), &read)
    }

    /// Returns the zone whose local times the texts are; none unless the column is a TIMESTAMPTZ.
    fn zone(&self) -> Option<ZoneOffsets> {
        match self.field.data_type() {
            DataType::Timestamp(_, Some(zone)) if self.kind == Kind::Timestamptz => {
                ZoneOffsets::new(zone).ok()
            }
            _ => None,
        }
    }

    fn read_binary(&self, raw: &BinaryArray) -> Result<ArrayRef, WrongAt> {
        let quick: Option<ArrayRef> = match &self.kind {
            Kind::Int2 => fixed::<Int16Type, 2>(raw, i16::from_be_bytes),
            Kind::Int4 => fixed::<Int32Type, 4>(raw, i32::from_be_bytes),
            Kind::Int8 => fixed::<Int64Type, 8>(raw, i64::from_be_bytes),
            Kind::Float8 => fixed::<Float64Type, 8>(raw, f64::from_be_bytes),
            Kind::Timestamp => fixed::<TimestampMicrosecondType, 8>(raw, |bytes| {
                i64::from_be_bytes(bytes).saturating_add(EPOCH_MICROSECONDS)
            }),
            Kind::Text => return self.read_text(raw.clone()),
            _ => None,
        };
        if let Some(array) = quick {
            return self.fitted(array);
        }
        let read = |row: usize| {
            let bytes = Bytes::copy_from_slice(raw.value(row));
            decode::value(&self.kind, Format::Binary, Some(bytes)).map_err(|wrong| WrongAt { row, wrong })
        };
        self.one_by_one(raw.len(), raw.nulls(), &read)
    }

    fn one_by_one(
        &self,
        rows: usize,
        nulls: Option<&NullBuffer>,
        read: &dyn Fn(usize) -> Result<ArrayRef, WrongAt>,
    ) -> Result<ArrayRef, WrongAt> {
        let value = |row: usize| match nulls.is_some_and(|nulls| nulls.is_null(row)) {
            true => Ok(new_null_array(self.field.data_type(), 1)),
            false => self.fitted_at(read(row)?, row),
        };
        let values = (0..rows).map(value).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Ok(new_null_array(self.field.data_type(), 0));
        }
        let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
        concat(&values).map_err(|error| WrongAt { row: 0, wrong: error.to_string() })
    }

    /// Casts decoded values to the column's type.
    fn fitted(&self, array: ArrayRef) -> Result<ArrayRef, WrongAt> {
        self.fitted_at(array, 0)
    }

    fn fitted_at(&self, array: ArrayRef, row: usize) -> Result<ArrayRef, WrongAt> {
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&array, self.field.data_type(), &options)
            .map_err(|error| WrongAt { row, wrong: error.to_string() })
    }
}

/// Decodes values of N bytes each; returns `None` if one has another length.
fn fixed<T: ArrowPrimitiveType, const N: usize>(
    raw: &BinaryArray,
    read: impl Fn([u8; N]) -> T::Native,
) -> Option<ArrayRef> {
    let values = raw.iter().map(|value| match value {
        None => Some(T::Native::default()),
        Some(bytes) => Some(read(bytes.try_into().ok()?)),
    });
    let values: Vec<T::Native> = values.collect::<Option<_>>()?;
    Some(Arc::new(PrimitiveArray::<T>::new(values.into(), raw.nulls().cloned())))
}
