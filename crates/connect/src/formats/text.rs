//! Lines of text: one record is one value.

use std::sync::Arc;

use arrow::array::{ArrayRef, ByteView, StringViewArray};
use arrow::buffer::{Buffer, ScalarBuffer};

use super::decode::Decode;
use super::framing::Record;

/// Decodes each record to one TEXT value.
pub(crate) struct TextDecoder;

impl Decode for TextDecoder {
    fn decode(&self, block: &Buffer, records: &[Record]) -> Result<Vec<ArrayRef>, String> {
        Ok(vec![Arc::new(views(block, records)?)])
    }

    fn explain(&self, _record: &[u8], error: String) -> String {
        error
    }
}

/// Returns an array of the records' text. It points into `block` and copies only short values.
fn views(block: &Buffer, records: &[Record]) -> Result<StringViewArray, String> {
    let mut views: Vec<u128> = Vec::with_capacity(records.len());
    // Adjacent records are validated together: validating many small pieces costs several times more. A
    // record boundary is never inside of a character, since line ends are ASCII.
    let mut validated = 0;
    for (index, record) in records.iter().enumerate() {
        let (start, end) = (record.start as usize, record.end as usize);
        if index == validated {
            let last = neighbours(records, index);
            std::str::from_utf8(&block[start..records[last].end as usize])
                .map_err(|error| error.to_string())?;
            validated = last + 1;
        }
        views.push(view(&block[start..end], record.start));
    }
    Ok(string_views(views, block.clone()))
}

/// Returns the last record that follows `first` without a gap.
fn neighbours(records: &[Record], first: usize) -> usize {
    let mut last = first;
    while last + 1 < records.len() && records[last].next == records[last + 1].start {
        last += 1;
    }
    last
}

/// Returns the same text `n` times.
pub(crate) fn repeated(text: &str, n: usize) -> StringViewArray {
    let views = vec![view(text.as_bytes(), 0); n];
    string_views(views, Buffer::from(text.as_bytes()))
}

/// Returns Arrow's view of a value at `offset` of its buffer. Values up to 12 bytes are in the view itself.
#[inline]
fn view(value: &[u8], offset: u32) -> u128 {
    let length = value.len() as u32;
    if length <= 12 {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..4 + value.len()].copy_from_slice(value);
        return u128::from_le_bytes(bytes);
    }
    ByteView::new(length, &value[..4]).with_offset(offset).as_u128()
}

/// Returns the array of `views`, each of which was made by [`view`] from valid UTF-8 in `buffer`.
#[allow(unsafe_code)]
fn string_views(views: Vec<u128>, buffer: Buffer) -> StringViewArray {
    // SAFETY: both callers make each view from a slice of `buffer` at the offset in the view. So it is in
    // bounds and has the right prefix. Both have validated the text of each slice as UTF-8. Validating
    // again, a value at a time, would take longer than all the rest of reading a line.
    unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), vec![buffer], None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;

    fn records(lines: &[u8]) -> Vec<Record> {
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', lines);
        ends.map(|end| {
            let record = Record { start, end: end as u32, next: end as u32 + 1 };
            start = record.next;
            record
        })
        .collect()
    }

    #[test]
    fn views_are_what_arrow_would_make() {
        let text = "short\nexactly 12 b\nexactly 13 by\n\nmuch longer than a view, with grüße\n";
        let array = views(&Buffer::from(text.as_bytes()), &records(text.as_bytes())).unwrap();
        let (views, buffers, nulls) = array.clone().into_parts();
        let checked = StringViewArray::try_new(views, buffers, nulls).unwrap();
        assert_eq!(checked.iter().flatten().collect::<Vec<_>>(), text.lines().collect::<Vec<_>>());
        let again = repeated("a/long/path/to/a/file", 3);
        assert_eq!(again, StringViewArray::from_iter_values(["a/long/path/to/a/file"; 3]));
    }

    #[test]
    fn invalid_text_fails_even_next_to_valid_text() {
        let bytes = b"fine\nb\xFFd\nfine\n";
        let all = records(bytes);
        let block = Buffer::from(&bytes[..]);
        assert!(views(&block, &all).is_err());
        assert!(views(&block, &all[1..2]).is_err());
        assert_eq!(views(&block, &[all[0], all[2]]).unwrap().len(), 2);
    }
}
