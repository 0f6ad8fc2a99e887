//! The binary forms of bit strings, whose values are text: the number of bits, and the bits, the first one of each byte in
//! its highest place.

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};

use crate::oid::Kind;
use crate::rows::Writer;
use crate::text;

/// Returns a writer of the binary form.
pub(crate) fn writer<'a>(kind: &Kind, array: &'a ArrayRef) -> Result<Writer<'a>, ArrowError> {
    Ok(text::reread(text::writer(kind, array)?, |digits, out: &mut BytesMut| {
        // A value has at most as many digits as a message has bytes.
        out.put_i32(digits.len() as i32);
        for eight in digits.as_bytes().chunks(8) {
            let bits = eight.iter().zip((0..8).rev());
            out.put_u8(bits.fold(0, |byte, (digit, place)| byte | u8::from(*digit == b'1') << place));
        }
    }))
}

/// Returns the text of a binary form.
pub(crate) fn read(bytes: &[u8]) -> Option<String> {
    let (length, bytes) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    if length.div_ceil(8) != bytes.len() {
        return None;
    }
    let digits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1));
    Some(digits.take(length).map(|digit| char::from(b'0' + digit)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn binary_forms_are_postgresql_s() {
        for (given, expected) in [
            ("", &[0, 0, 0, 0][..]),
            ("1", &[0, 0, 0, 1, 0x80]),
            ("00011111", &[0, 0, 0, 8, 0x1f]),
            ("101010101", &[0, 0, 0, 9, 0xaa, 0x80]),
        ] {
            let array: ArrayRef = Arc::new(StringArray::from(vec![given]));
            let mut out = BytesMut::new();
            writer(&Kind::Varbit(None), &array).unwrap()(0, &mut out);
            assert_eq!(&out[..], expected, "{given}");
            assert_eq!(read(&out).as_deref(), Some(given));
        }
        // Bits after the last one don't count.
        assert_eq!(read(&[0, 0, 0, 1, 0xff]).as_deref(), Some("1"));
        for wrong in
            [&[][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0], &[0, 0, 0, 9, 0], &[0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
