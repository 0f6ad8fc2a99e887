//! The values of bit strings: texts of the digits 0 and 1.

use std::borrow::Cow;

use millstream_delta::BitType;

use crate::error::{Error, Result};
use crate::functions::value_size_limit::check_value;
use crate::sqlstate;

/// The largest length of a type, as in PostgreSQL.
const LENGTH_MAX: u64 = 83_886_080;

/// Returns the digits that a text spells: `101`, `b101`, or `x1f` with hexadecimal digits.
pub(crate) fn read(text: &str) -> Result<Cow<'_, str>> {
    let (is_hex, written) = match text.as_bytes().first() {
        Some(b'b' | b'B') => (false, &text[1..]),
        Some(b'x' | b'X') => (true, &text[1..]),
        _ => (false, text),
    };
    if !is_hex {
        return match written.chars().find(|c| !matches!(c, '0' | '1')) {
            Some(wrong) => Err(invalid_digit(wrong, "binary", "0 and 1")),
            None => Ok(Cow::Borrowed(written)),
        };
    }
    check_value("bit", written.len().saturating_mul(4))?;
    let mut out = String::with_capacity(written.len() * 4);
    for c in written.chars() {
        let digit = c.to_digit(16).ok_or_else(|| invalid_digit(c, "hexadecimal", "0 to 9 and a to f"))?;
        out.extend((0..4).rev().map(|at| bit(digit >> at & 1 == 1)));
    }
    Ok(Cow::Owned(out))
}

fn invalid_digit(found: char, kind: &str, expected: &str) -> Error {
    Error::invalid(format!("\"{found}\" is not a valid {kind} digit"))
        .hint(format!("A bit string has the digits {expected}."))
        .code(sqlstate::INVALID_TEXT_REPRESENTATION)
}

pub(super) fn bit(is_one: bool) -> char {
    if is_one { '1' } else { '0' }
}

/// Fails if a type can't have this length.
pub(crate) fn check_length(name: &str, length: u64) -> Result<u32> {
    let problem = match length {
        0 => "must be at least 1".to_string(),
        length if length > LENGTH_MAX => format!("cannot exceed {LENGTH_MAX}"),
        length => return Ok(length as u32),
    };
    Err(Error::invalid(format!("length for type {name} {problem}")).code(sqlstate::INVALID_PARAMETER_VALUE))
}

/// Cuts or extends digits to the length of a type, as a cast does.
pub(crate) fn cast_to(digits: Cow<'_, str>, of: BitType) -> Cow<'_, str> {
    let Some(length) = of.length.map(|length| length as usize) else { return digits };
    match digits {
        digits if digits.len() == length => digits,
        Cow::Borrowed(digits) if digits.len() > length => Cow::Borrowed(&digits[..length]),
        digits if digits.len() > length => Cow::Owned(digits[..length].to_string()),
        digits if of.is_varying => digits,
        digits => Cow::Owned(format!("{digits:0<length$}")),
    }
}

/// Fails if digits have not the length of a column.
pub(crate) fn check(digits: &str, of: BitType) -> Result<()> {
    let found = digits.len();
    match of.length {
        Some(length) if !of.is_varying && found != length as usize => {
            Err(Error::invalid(format!("bit string length {found} does not match type bit({length})"))
                .hint(format!("A cast cuts it or adds zeros: x::BIT({length})."))
                .code(sqlstate::STRING_DATA_LENGTH_MISMATCH))
        }
        Some(length) if of.is_varying && found > length as usize => {
            Err(Error::invalid(format!("bit string too long for type bit varying({length})"))
                .hint(format!("It has {found} bits. A cast cuts it: x::VARBIT({length})."))
                .code(sqlstate::STRING_DATA_RIGHT_TRUNCATION))
        }
        _ => Ok(()),
    }
}

/// Returns the last bits of a number, in two's complement.
pub(crate) fn of_int(number: i64, length: u32) -> String {
    let last = (1..=length).rev();
    last.map(|place| bit(number >> (place - 1).min(63) & 1 == 1)).collect()
}

/// Returns the number of these bits in two's complement: of fewer than `width` bits, a positive one.
pub(super) fn to_int(digits: &str, width: usize, name: &str) -> Result<i64> {
    if digits.len() > width {
        return Err(Error::invalid(format!("{name} out of range"))
            .hint(format!("The bit string has {} bits, and {name} has {width}.", digits.len()))
            .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE));
    }
    let unsigned = digits.bytes().fold(0_u64, |number, digit| number << 1 | u64::from(digit == b'1'));
    Ok(match width {
        32 => i64::from(unsigned as u32 as i32),
        _ => unsigned as i64,
    })
}

/// An operator of two bit strings of the same length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pairwise {
    And,
    Or,
    Xor,
}

impl Pairwise {
    fn name(self) -> &'static str {
        match self {
            Pairwise::And => "AND",
            Pairwise::Or => "OR",
            Pairwise::Xor => "XOR",
        }
    }

    /// Combines the digits of the second bit string into the first.
    pub(super) fn apply(self, into: &mut [u8], other: &[u8]) -> Result<()> {
        if into.len() != other.len() {
            return Err(Error::invalid(format!("cannot {} bit strings of different sizes", self.name()))
                .hint(format!("They have {} and {} bits.", into.len(), other.len()))
                .code(sqlstate::STRING_DATA_LENGTH_MISMATCH));
        }
        for (one, other) in into.iter_mut().zip(other) {
            // The digits differ in their last bit.
            *one = match self {
                Pairwise::And => *one & other,
                Pairwise::Or => *one | other,
                Pairwise::Xor => b'0' | (*one ^ other),
            };
        }
        Ok(())
    }
}

pub(super) fn not(digits: &str) -> String {
    digits.chars().map(|digit| bit(digit == '0')).collect()
}

/// Moves bits to the left, or to the right by a negative number. Zeros take their places.
pub(super) fn shifted(digits: &str, by: i64) -> String {
    let length = digits.len();
    let zeros = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX).min(length);
    match by < 0 {
        true => format!("{:0<zeros$}{}", "", &digits[..length - zeros]),
        false => format!("{}{:0<zeros$}", &digits[zeros..], ""),
    }
}

pub(super) fn concatenated(one: &str, other: &str) -> Result<String> {
    check_value("||", one.len() + other.len())?;
    Ok([one, other].concat())
}

/// Returns a part that begins at a place from 1. It may begin before the first bit, which shortens it.
pub(super) fn part(digits: &str, start: i64, count: Option<i64>) -> Result<&str> {
    if count.is_some_and(|count| count < 0) {
        return Err(negative_length());
    }
    let length = digits.len() as i64;
    let end = count.map_or(length, |count| start.saturating_add(count).saturating_sub(1).clamp(0, length));
    let from = start.saturating_sub(1).clamp(0, end);
    Ok(&digits[from as usize..end as usize])
}

/// Replaces a part by another bit string; without a count, one of the same length.
pub(super) fn overlaid(digits: &str, new: &str, from: i64, count: Option<i64>) -> Result<String> {
    if from <= 0 {
        return Err(negative_length());
    }
    let rest = from.saturating_add(count.unwrap_or(new.len() as i64));
    if i32::try_from(rest).is_err() {
        return Err(Error::invalid("integer out of range").code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE));
    }
    let (before, after) = (part(digits, 1, Some(from - 1))?, part(digits, rest, None)?);
    check_value("overlay", before.len() + new.len() + after.len())?;
    Ok([before, new, after].concat())
}

fn negative_length() -> Error {
    Error::invalid("negative substring length not allowed").code(sqlstate::SUBSTRING_ERROR)
}

/// Returns the place of a bit string within another, from 1; 0 if it isn't there.
pub(super) fn position(digits: &str, part: &str) -> i32 {
    let place = if digits.is_empty() { None } else { digits.find(part) };
    place.and_then(|place| i32::try_from(place + 1).ok()).unwrap_or(0)
}

/// Checks the place of a bit, from 0.
pub(super) fn index(digits: &str, at: i64) -> Result<usize> {
    let found = usize::try_from(at).ok().filter(|at| *at < digits.len());
    found.ok_or_else(|| {
        let last = digits.len() as i64 - 1;
        Error::invalid(format!("bit index {at} out of valid range (0..{last})"))
            .code(sqlstate::ARRAY_SUBSCRIPT_ERROR)
    })
}

/// Returns the bits with another one at a place.
pub(super) fn with_bit(digits: &str, at: i64, new: i64) -> Result<String> {
    let at = index(digits, at)?;
    let new = match new {
        0 => "0",
        1 => "1",
        other => {
            return Err(Error::invalid("new bit must be 0 or 1")
                .hint(format!("It is {other}."))
                .code(sqlstate::INVALID_PARAMETER_VALUE));
        }
    };
    Ok([&digits[..at], new, &digits[at + 1..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        for (text, expected) in
            [("101", "101"), ("b01", "01"), ("B", ""), ("", ""), ("xF0", "11110000"), ("X1", "0001")]
        {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for text in ["2", " 1", "1 ", "1b", "xG", "0x1", "é", "bé", "xé", "-1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_those_of_types() {
        let fixed = |length| BitType { is_varying: false, length: Some(length) };
        let varying = |length| BitType { is_varying: true, length: Some(length) };
        assert_eq!(cast_to("101".into(), fixed(2)), "10");
        assert_eq!(cast_to("101".into(), fixed(5)), "10100");
        assert_eq!(cast_to("101".into(), varying(5)), "101");
        assert_eq!(cast_to("101".into(), varying(1)), "1");
        assert!(check("101", fixed(3)).is_ok() && check("", varying(3)).is_ok());
        assert!(check("101", fixed(2)).is_err() && check("101", varying(2)).is_err());
        assert!(check_length("bit", 83_886_080).is_ok());
        assert!(check_length("bit", 83_886_081).is_err() && check_length("bit", 0).is_err());
    }

    #[test]
    fn numbers_have_twos_complement() {
        for (number, length, expected) in
            [(44, 10, "0000101100"), (44, 3, "100"), (-44, 12, "111111010100"), (-1, 70, &"1".repeat(70))]
        {
            assert_eq!(of_int(number, length), expected);
        }
        assert_eq!(of_int(i64::MIN, 66), format!("111{}", "0".repeat(63)));
        assert_eq!(to_int(&"1".repeat(32), 32, "integer").unwrap(), -1);
        assert_eq!(to_int(&"1".repeat(32), 64, "bigint").unwrap(), 4_294_967_295);
        assert_eq!(to_int("", 32, "integer").unwrap(), 0);
        assert!(to_int(&"0".repeat(33), 32, "integer").is_err());
    }

    #[test]
    fn places_outside_are_refused_or_empty() {
        assert_eq!(shifted("1010", 1), "0100");
        assert_eq!(shifted("1010", -1), "0101");
        assert_eq!(shifted("1010", i64::MIN), "0000");
        assert_eq!(shifted("1010", i64::MAX), "0000");
        assert_eq!(part("1100", -1, Some(3)).unwrap(), "1");
        assert_eq!(part("1100", i64::MIN, Some(i64::MAX)).unwrap(), "");
        assert_eq!(part("1100", 2, Some(i64::MAX)).unwrap(), "100");
        assert_eq!(part("1100", 10, None).unwrap(), "");
        assert!(part("1100", 2, Some(-1)).is_err());
        assert_eq!(overlaid("0101", "11", 2, Some(-1)).unwrap(), "0110101");
        assert_eq!(overlaid("0101", "11", 10, None).unwrap(), "010111");
        assert!(overlaid("0101", "11", 0, None).is_err());
        assert!(overlaid("0101", "11", 2_147_483_647, Some(100)).is_err());
        assert!(index("", 0).is_err() && index("1", -1).is_err());
        assert!(with_bit("1", 0, 2).is_err());
        assert_eq!((position("", ""), position("01", ""), position("0101", "11")), (0, 1, 0));
    }
}
