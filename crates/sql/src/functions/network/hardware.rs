//! Hardware addresses: the values of MACADDR, of 6 bytes, and of MACADDR8, of 8.

use crate::error::Error;
use crate::functions::marks::Mark;
use crate::functions::read_text::invalid_text;
use crate::literals::hex;
use crate::sqlstate;

const EXPECTED_6: &str = "6 bytes, as in 08:00:2b:01:02:03, 0800.2b01.0203 or 08002b010203";
const EXPECTED_8: &str = "6 or 8 bytes, as in 08:00:2b:01:02:03:04:05 or 08002b:0102030405";

/// Reads the bytes of a MACADDR.
pub(super) fn macaddr(text: &str) -> Result<Vec<u8>, Error> {
    let wrong = || invalid_text(Mark::Macaddr, text, EXPECTED_6);
    let written = text.trim();
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let separators = |mark: char| written.split(mark).collect::<Vec<_>>();
    for separator in [':', '-'] {
        let parts = separators(separator);
        if parts.len() != 6 || !parts.iter().all(|part| is_hex(part)) {
            continue;
        }
        let octets = parts.iter().map(|part| {
            u8::from_str_radix(part.trim_start_matches('0'), 16)
                .or_else(|error| if part.bytes().all(|byte| byte == b'0') { Ok(0) } else { Err(error) })
        });
        return octets.collect::<Result<Vec<u8>, _>>().map_err(|_| {
            Error::invalid(format!("invalid octet value in \"macaddr\" value: \"{text}\""))
                .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)
        });
    }
    // Groups of the same number of digits.
    for (separator, groups, digits) in [(':', 2, 6), ('-', 2, 6), ('.', 3, 4), ('-', 3, 4), (':', 1, 12)] {
        let parts = separators(separator);
        if parts.len() == groups && parts.iter().all(|part| part.len() == digits && is_hex(part)) {
            return hex(parts.concat().as_bytes()).ok_or_else(wrong);
        }
    }
    Err(wrong())
}

/// Reads the bytes of a MACADDR8. Of 6 bytes, `ff:fe` is put in the middle.
pub(super) fn macaddr8(text: &str) -> Result<Vec<u8>, Error> {
    let wrong = || invalid_text(Mark::Macaddr8, text, EXPECTED_8);
    let mut rest = text.trim();
    let mut separator = None;
    let mut bytes = Vec::with_capacity(8);
    while !rest.is_empty() {
        let (pair, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
        bytes.extend(hex(pair.as_bytes()).ok_or_else(wrong)?);
        rest = after;
        if let Some(found @ (':' | '-' | '.')) = rest.chars().next() {
            if *separator.get_or_insert(found) != found || rest.len() == 1 {
                return Err(wrong());
            }
            rest = &rest[1..];
        }
    }
    match bytes.len() {
        6 => Ok(widened(&bytes)),
        8 => Ok(bytes),
        _ => Err(wrong()),
    }
}

/// Puts `ff:fe` into the middle of 6 bytes.
fn widened(bytes: &[u8]) -> Vec<u8> {
    let (front, back) = bytes.split_at(bytes.len() / 2);
    [front, &[0xff, 0xfe], back].concat()
}

/// Returns the 6 bytes of a MACADDR8 around `ff:fe`.
pub(super) fn narrowed(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    match bytes {
        [a, b, c, 0xff, 0xfe, d, e, f] => Ok(vec![*a, *b, *c, *d, *e, *f]),
        _ => Err(Error::invalid("macaddr8 data out of range to convert to macaddr")
            .hint(
                "Only addresses that have FF and FE as values in the 4th and 5th bytes from the left, for example \
                 xx:xx:xx:ff:fe:xx:xx:xx, are eligible to be converted from macaddr8 to macaddr.",
            )
            .code(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE)),
    }
}

/// Returns the canonical text: lower case, with colons.
pub(super) fn spelled(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        for text in [
            "08:00:2b:01:02:03",
            " 8:0:2B:1:2:3 ",
            "08-00-2b-01-02-03",
            "08002b:010203",
            "08002b-010203",
            "0800.2b01.0203",
            "0800-2b01-0203",
            "08002b010203",
        ] {
            assert_eq!(spelled(&macaddr(text).unwrap()), "08:00:2b:01:02:03", "{text}");
        }
        for text in
            ["", "08:00:2b:01:02", "08:00:2b:01:02:03:04", "08002b01020", "08:00-2b:01:02:03", "g8002b010203"]
        {
            assert_eq!(macaddr(text).unwrap_err().sqlstate(), "22P02", "{text}");
        }
        assert_eq!(macaddr("100:0:0:0:0:0").unwrap_err().sqlstate(), "22003");
        for (text, expected) in [
            ("08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:05"),
            ("08002b:0102030405", "08:00:2b:01:02:03:04:05"),
            ("08-00-2b-01-02-03", "08:00:2b:ff:fe:01:02:03"),
            ("0800.2b01.0203.0405", "08:00:2b:01:02:03:04:05"),
        ] {
            assert_eq!(spelled(&macaddr8(text).unwrap()), expected, "{text}");
        }
        for text in ["", "08:00:2b:01:02", "08:00-2b:01:02:03", "08002b010203é", "é"] {
            assert_eq!(macaddr8(text).unwrap_err().sqlstate(), "22P02", "{text}");
        }
    }
}
