//! Decodes runs of records into columns, and separates the bad records.

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;

use super::framing::{BadRecord, Record, Run};

/// The decoder of one format.
///
/// A record's validity depends on that record alone, never on its neighbours.
pub(crate) trait Decode: Send + Sync {
    /// Decodes all of `records` to columns, or fails.
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String>;
    /// Returns the reason, in the user's words, why a record failed by itself with `error`.
    fn explain(&self, record: &[u8], error: String) -> String;
    /// Returns true if records are text, so that invalid UTF-8 explains a failure.
    fn is_text(&self) -> bool {
        true
    }
}

/// The result of decoding a run.
pub(crate) struct Decoded {
    /// The columns of the records in `records`; empty if there are none.
    pub columns: Vec<ArrayRef>,
    /// The decoded records.
    pub records: Vec<Record>,
    /// The bad records, in the order of the stream.
    pub bad: Vec<BadRecord>,
}

/// Decodes `run`. If that fails, bisects to the records that fail by themselves.
pub(crate) fn decode_run(decoder: &dyn Decode, run: Run) -> Result<Decoded, String> {
    let Run { block, offset, records, mut bad } = run;
    if records.is_empty() {
        return Ok(Decoded { columns: Vec::new(), records, bad });
    }
    if let Ok(columns) = decoder.decode(&block, &records) {
        return Ok(Decoded { columns, records, bad });
    }
    let mut failing = vec![false; records.len()];
    let mut ranges: Vec<_> = std::iter::once(0..records.len()).collect();
    while let Some(range) = ranges.pop() {
        let Err(error) = decoder.decode(&block, &records[range.clone()]) else { continue };
        if range.len() > 1 {
            let middle = range.start + range.len() / 2;
            ranges.push(range.start..middle);
            ranges.push(middle..range.end);
            continue;
        }
        let record = records[range.start];
        let bytes = &block[record.start as usize..record.end as usize];
        let reason = match std::str::from_utf8(bytes) {
            Err(error) if decoder.is_text() => invalid_utf8(bytes, error),
            _ => decoder.explain(bytes, error),
        };
        failing[range.start] = true;
        bad.push(BadRecord::new(offset + u64::from(record.start), reason, bytes));
    }
    bad.sort_by_key(|bad| bad.offset);
    let mut failing = failing.into_iter();
    let good: Vec<Record> = records.into_iter().filter(|_| failing.next() != Some(true)).collect();
    let columns = if good.is_empty() { Vec::new() } else { decoder.decode(&block, &good)? };
    Ok(Decoded { columns, records: good, bad })
}

fn invalid_utf8(bytes: &[u8], error: std::str::Utf8Error) -> String {
    let at = error.valid_up_to();
    let found = bytes.get(at).copied().unwrap_or_default();
    format!("invalid UTF-8: byte {at} of the record is 0x{found:02X}; text must be encoded as UTF-8")
}
