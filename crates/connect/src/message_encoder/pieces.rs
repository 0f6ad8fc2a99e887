//! Byte strings of several messages in one buffer.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::error::ArrowError;

use super::{Binary, texts_or_bytes};
use crate::formats::csv::Csv;
use crate::formats::encode::{encode_csv, encode_json};

/// Byte strings in one buffer; each may be absent.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub bytes: Vec<u8>,
    /// The start and the end of each.
    pub bounds: Vec<Option<(usize, usize)>>,
}

impl Pieces {
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let (start, end) = (*self.bounds.get(at)?)?;
        self.bytes.get(start..end)
    }

    /// Returns the lines of a buffer without their ends.
    pub fn of_lines(bytes: Vec<u8>) -> Pieces {
        let mut start = 0;
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end);
        let bounds = ends.map(|end| Some((std::mem::replace(&mut start, end + 1), end))).collect();
        Pieces { bytes, bounds }
    }

    /// Returns the values of a column as text, or as the bytes that they are; NULL is absent.
    pub fn of_text(column: &ArrayRef) -> Result<Pieces, ArrowError> {
        let values = texts_or_bytes(column)?;
        let mut pieces = Pieces::default();
        for value in values.as_binary_view() {
            let start = pieces.bytes.len();
            pieces.bytes.extend_from_slice(value.unwrap_or_default());
            pieces.bounds.push(value.map(|_| (start, pieces.bytes.len())));
        }
        Ok(pieces)
    }

    pub fn of_csv(csv: &Csv, rows: &RecordBatch) -> Result<Pieces, String> {
        let mut pieces = Pieces::default();
        // A field may contain line breaks, so each row is written by itself.
        for row in 0..rows.num_rows() {
            let start = pieces.bytes.len();
            encode_csv(csv, &[rows.slice(row, 1)], &mut pieces.bytes)?;
            let end = pieces.bytes.len();
            let ended = pieces.bytes.ends_with(b"\n");
            pieces.bounds.push(Some((start, end - usize::from(ended && end > start))));
        }
        Ok(pieces)
    }

    pub fn of_binary(binary: &Binary, rows: &RecordBatch) -> Result<Pieces, String> {
        let id = binary.id.ok_or("the schema isn't registered yet")?;
        let mut pieces = Pieces::default();
        for datum in binary.encoder.encode(rows)? {
            let start = pieces.bytes.len();
            pieces.bytes.push(0);
            pieces.bytes.extend_from_slice(&id.to_be_bytes());
            pieces.bytes.extend_from_slice(binary.encoder.path());
            pieces.bytes.extend_from_slice(&datum);
            pieces.bounds.push(Some((start, pieces.bytes.len())));
        }
        Ok(pieces)
    }

    pub fn of_json(rows: &RecordBatch) -> Result<Pieces, String> {
        let mut bytes = Vec::new();
        encode_json(std::slice::from_ref(rows), &mut bytes)?;
        Ok(Pieces::of_lines(bytes))
    }
}
