//! Reads values from text as PostgreSQL does, where DataFusion differs or can't read them.
//!
//! An error names the expected form; the caller adds the text and the type.

pub(crate) mod array;
pub(crate) mod interval;
pub(crate) mod time;

/// Reads pairs of hexadecimal digits; none if one is missing, or isn't one.
pub(crate) fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Reads bytes: `\xdeadbeef`, or text with `\\` for a backslash and `\ooo` for an octal byte.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    const EXPECTED: &str =
        "hexadecimal digits in pairs after \\x, or text with \\\\ for a backslash and \\ooo for a byte";
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return hex(&digits).ok_or(EXPECTED);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            (b'\\', _) => return Err(EXPECTED),
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    Ok(bytes)
}

/// Returns the canonical form of a UUID: lower case, with hyphens.
pub(crate) fn uuid(text: &str) -> Result<String, &'static str> {
    const EXPECTED: &str = "32 hexadecimal digits, as in 550e8400-e29b-41d4-a716-446655440000";
    let text = text.trim();
    let text = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    let mut after_hyphen = true;
    for c in text.chars() {
        match c {
            '-' if count % 4 == 0 && !after_hyphen => after_hyphen = true,
            c if c.is_ascii_hexdigit() && count < 32 => {
                if matches!(count, 8 | 12 | 16 | 20) {
                    digits.push('-');
                }
                digits.push(c.to_ascii_lowercase());
                count += 1;
                after_hyphen = false;
            }
            _ => return Err(EXPECTED),
        }
    }
    if count == 32 && !after_hyphen { Ok(digits) } else { Err(EXPECTED) }
}

/// The most characters of a wrong text that a message shows.
const SHOWN_MAX: usize = 60;

/// Shortens a text for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_hexadecimal_or_escaped() {
        assert_eq!(bytes("\\xDEad be"), Ok(vec![0xde, 0xad, 0xbe]));
        assert_eq!(bytes("\\x"), Ok(vec![]));
        assert_eq!(bytes("a\\\\b\\001\\377ä"), Ok(vec![b'a', b'\\', b'b', 1, 255, 0xc3, 0xa4]));
        for text in ["\\x1", "\\xgg", "\\", "\\400", "a\\b"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uuids_are_canonical() {
        let canonical = "550e8400-e29b-41d4-a716-446655440000";
        for text in [
            canonical,
            "550E8400-E29B-41D4-A716-446655440000",
            "{550e8400-e29b-41d4-a716-446655440000}",
            "550e8400e29b41d4a716446655440000",
            "550e-8400-e29b-41d4-a716-4466-5544-0000",
        ] {
            assert_eq!(uuid(text).as_deref(), Ok(canonical), "{text}");
        }
        for text in
            ["", "550e8400", "550e8400-e29b-41d4-a716-44665544000g", "-550e8400e29b41d4a716446655440000"]
        {
            assert!(uuid(text).is_err(), "{text}");
        }
    }
}
