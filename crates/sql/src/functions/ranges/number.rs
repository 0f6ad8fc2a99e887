//! Numbers as text of one form: without zeros at the ends, and without an exponent.

use std::cmp::Ordering;

/// The most digits before and after the point, as in PostgreSQL.
const WHOLE_MAX: usize = 131_072;
const FRACTION_MAX: usize = 16_383;

/// Added to exponents in keys, so that none is negative.
const EXPONENT_BIAS: usize = 500_000;

/// Returns the canonical text of a number; none for another text.
pub(super) fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let sign = if negative { "-" } else { "" };
    match digits.to_ascii_lowercase().as_str() {
        "nan" if digits.len() == text.len() => return Some("NaN".into()),
        "inf" | "infinity" => return Some(format!("{sign}Infinity")),
        _ => {}
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let (whole, fraction) = shifted(whole, fraction, exponent)?;
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len() > WHOLE_MAX || fraction.len() > FRACTION_MAX {
        return None;
    }
    let is_zero = whole.is_empty() && fraction.is_empty();
    let sign = if is_zero { "" } else { sign };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(match fraction {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    })
}

/// True for a text that only has characters of canonical numbers.
pub(super) fn is_canonical(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    rank(text) != 0 || (!text.is_empty() && text.bytes().all(is_part))
}

/// Moves the point of a number.
fn shifted(whole: &str, fraction: &str, exponent: i32) -> Option<(String, String)> {
    let by = usize::try_from(exponent.unsigned_abs()).ok()?;
    // More digits than a number may have: only zero has no others.
    if by > WHOLE_MAX + FRACTION_MAX {
        let is_zero = whole.bytes().chain(fraction.bytes()).all(|digit| digit == b'0');
        return is_zero.then(|| (String::new(), String::new()));
    }
    let all = format!("{whole}{fraction}");
    let place = match exponent {
        0.. => whole.len().saturating_add(by),
        _ => match whole.len().checked_sub(by) {
            Some(place) => place,
            None => return Some((String::new(), format!("{}{all}", "0".repeat(by - whole.len())))),
        },
    };
    let zeros = "0".repeat(place.saturating_sub(all.len()));
    let padded = format!("{all}{zeros}");
    let (whole, fraction) = padded.split_at_checked(place)?;
    Some((whole.to_string(), fraction.to_string()))
}

/// Returns the place of a number among those that aren't finite: -1, 0 for finite ones, 1 and 2.
fn rank(number: &str) -> i8 {
    match number {
        "-Infinity" => -1,
        "Infinity" => 1,
        "NaN" => 2,
        _ => 0,
    }
}

/// Compares numbers in canonical form. NaN is the greatest, as in PostgreSQL.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let ranks = (rank(one), rank(other));
    if ranks != (0, 0) {
        return ranks.0.cmp(&ranks.1);
    }
    match (one.strip_prefix('-'), other.strip_prefix('-')) {
        (None, None) => magnitudes(one, other),
        (Some(one), Some(other)) => magnitudes(other, one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
    }
}

fn magnitudes(one: &str, other: &str) -> Ordering {
    let (one, one_fraction) = one.split_once('.').unwrap_or((one, ""));
    let (other, other_fraction) = other.split_once('.').unwrap_or((other, ""));
    let wholes = one.len().cmp(&other.len()).then_with(|| one.cmp(other));
    wholes.then_with(|| one_fraction.cmp(other_fraction))
}

/// Appends a text that has the order of numbers in canonical form, and that isn't the beginning of another one's.
pub(super) fn push_key(number: &str, out: &mut String) {
    match (rank(number), number) {
        (-1, _) => return out.push('0'),
        (1, _) => return out.push('4'),
        (2, _) => return out.push('5'),
        (_, "0") => return out.push('2'),
        _ => {}
    }
    let (negative, magnitude) = match number.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, number),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let (exponent, digits) = match whole {
        "0" => {
            let digits = fraction.trim_start_matches('0');
            (EXPONENT_BIAS.saturating_sub(fraction.len() - digits.len()), digits.to_string())
        }
        whole => (EXPONENT_BIAS + whole.len(), format!("{whole}{fraction}")),
    };
    let digits = format!("{exponent:06}{digits}");
    match negative {
        false => {
            out.push('3');
            out.push_str(&digits);
            out.push(' ');
        }
        true => {
            out.push('1');
            out.extend(
                digits.bytes().map(|digit| char::from(b'9'.saturating_sub(digit.saturating_sub(b'0')))),
            );
            out.push('~');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (given, expected) in [
            ("1.50", "1.5"),
            (" -0.0 ", "0"),
            ("007", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("12.5E-3", "0.0125"),
            ("-1.25e1", "-12.5"),
            ("inf", "Infinity"),
            ("-infinity", "-Infinity"),
            ("nan", "NaN"),
            ("0e99999999", "0"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
        for wrong in
            ["", ".", "-", "e5", "1e", "1 2", "0x1", "-nan", "1e999999", "1e99999999999", "1.2.3", "é"]
        {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_have_the_order_of_numbers() {
        let sorted = [
            "-Infinity",
            "-1000",
            "-12.5",
            "-12",
            "-2",
            "-1.5",
            "-1.05",
            "-1",
            "-0.5",
            "-0.05",
            "-0.005",
            "0",
            "0.001",
            "0.01",
            "0.011",
            "0.1",
            "0.9",
            "1",
            "1.05",
            "1.5",
            "2",
            "9",
            "10",
            "10.01",
            "100",
            "Infinity",
            "NaN",
        ];
        let key = |number: &str| {
            let mut key = String::new();
            push_key(number, &mut key);
            key
        };
        for (at, one) in sorted.iter().enumerate() {
            for (other_at, other) in sorted.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one} {other}");
                assert_eq!(key(one).cmp(&key(other)), at.cmp(&other_at), "{one} {other}");
            }
        }
    }
}
