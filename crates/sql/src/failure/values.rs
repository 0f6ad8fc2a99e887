//! Messages about values, with SQL's type names.

use arrow::datatypes::DataType;
use millstream_delta::sql_type;

/// Rewords a message about a cast; returns none for any other message.
pub(super) fn cast_failed(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("cannot cast string '")
        && let Some((value, rest)) = rest.rsplit_once("' to value of ")
    {
        return Some(format!("cannot cast '{value}' to {}", name(rest.strip_suffix(" type")?)));
    }
    if let Some(rest) = message.strip_prefix("cannot cast to ")
        && let Some((target, _)) = rest.split_once(". Overflowing on ")
    {
        return Some(format!("a value is out of the range of {}", name(target)));
    }
    if let Some(rest) = message.strip_prefix("value of ")
        && let Some((value, target)) = rest.rsplit_once(" is out of range ")
    {
        return Some(format!("{value} is out of the range of {}", name(target)));
    }
    if let Some(rest) = message.strip_prefix("overflow happened on: ") {
        return Some(format!("the result of {rest} is out of the range of its type"));
    }
    if let Some(error) = beyond_nanoseconds(message) {
        return Some(error);
    }
    let begins_with_a_number = message.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    for wrong in [" is too large to store in a Decimal", " is too small to store in a Decimal"] {
        if begins_with_a_number && let Some((value, rest)) = message.split_once(wrong) {
            let (digits, _) = rest.split_once(" of precision ")?.1.split_once('.')?;
            return Some(format!("{value} is out of the range of a NUMERIC of {digits} digits"));
        }
    }
    let rest = message.strip_prefix("can't cast value ")?;
    let (value, target) = rest.rsplit_once(" to type ")?;
    Some(format!("{value} is out of the range of {}", name(target)))
}

/// Rewords a message about a time that nanoseconds since 1970 can't hold.
fn beyond_nanoseconds(message: &str) -> Option<String> {
    let value = match message.strip_prefix("overflow converting ") {
        Some(rest) => rest.split_once(" to Nanosecond").map(|(text, _)| format!("'{text}'")),
        None => message
            .strip_prefix("cannot cast Timestamp(")
            .and_then(|rest| rest.split_once(" to Timestamp(ns"))
            .filter(|(_, rest)| rest.contains("representable i64 range"))
            .map(|_| "a time".to_string()),
    }?;
    Some(format!(
        "{value} is out of the range of TIMESTAMP(9), which is from 1677-09-21 to 2262-04-11: \
         TIMESTAMP(6) holds other years"
    ))
}

/// Returns the message with SQL's names in place of Arrow's names of types.
pub(super) fn with_sql_types(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(|c: char| c.is_ascii_uppercase()) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let word =
            from.len() - from.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
        let is_start = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let end = word + group_length(&from[word..]);
        let parsed = || from[..end].replace("+TZ", "+00:00").parse::<DataType>().ok();
        match is_start.then(parsed).flatten().map(|found| sql_type(&found)) {
            Some(name) => {
                out.push_str(&name);
                rest = &from[end..];
            }
            None => {
                out.push_str(&from[..word]);
                rest = &from[word..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Returns the length of the parentheses that a text begins with, or 0.
fn group_length(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match depth {
            0 if at > 0 => return at + 1,
            0 => return 0,
            _ => {}
        }
    }
    0
}

/// Returns SQL's name for a type, given Arrow's.
fn name(arrow: &str) -> String {
    arrow
        .trim_end_matches('.')
        .parse::<DataType>()
        .map_or_else(|_| arrow.to_string(), |found| sql_type(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_by_their_names_in_sql() {
        for (message, expected) in [
            ("cannot cast string 'a' to value of Int32 type", Some("cannot cast 'a' to INT")),
            (
                "cannot cast string 'it's' to value of Timestamp(ns) type",
                Some("cannot cast 'it's' to TIMESTAMP(9)"),
            ),
            ("can't cast value 300 to type Int8", Some("300 is out of the range of TINYINT")),
            (
                "cannot cast to Decimal128(38, 2). Overflowing on 1999",
                Some("a value is out of the range of NUMERIC(38, 2)"),
            ),
            (
                "10.0 is too large to store in a Decimal128 of precision 2. Max is 9.9",
                Some("10.0 is out of the range of a NUMERIC of 2 digits"),
            ),
            ("value of 300 is out of range Int8", Some("300 is out of the range of TINYINT")),
            ("overflow happened on: 1 + 2", Some("the result of 1 + 2 is out of the range of its type")),
            ("division by zero", None),
            (
                "overflow converting 2500-01-01 00:00:00 to Nanosecond. The dates that can be represented as \
                 nanoseconds have to be between 1677-09-21T00:12:44.0 and 2262-04-11T23:47:16.854775804",
                Some(
                    "'2500-01-01 00:00:00' is out of the range of TIMESTAMP(9), which is from 1677-09-21 to \
                     2262-04-11: TIMESTAMP(6) holds other years",
                ),
            ),
            (
                "cannot cast Timestamp(\u{b5}s) value 16725225600000000 to Timestamp(ns): converted value exceeds \
                 the representable i64 range",
                Some(
                    "a time is out of the range of TIMESTAMP(9), which is from 1677-09-21 to 2262-04-11: \
                     TIMESTAMP(6) holds other years",
                ),
            ),
        ] {
            assert_eq!(cast_failed(message).as_deref(), expected, "{message}");
        }
    }

    #[test]
    fn types_within_a_message_get_their_names_in_sql() {
        for (message, expected) in [
            ("takes Utf8View and List(Int64)", "takes TEXT and BIGINT[]"),
            ("f(Timestamp(ns, \"+TZ\"), Decimal128(38, 10)) of T", "f(TIMESTAMPTZ(9), NUMERIC(38, 10)) of T"),
            ("column Int64x and \"Int64\", é", "column Int64x and \"BIGINT\", é"),
            ("Expected (", "Expected ("),
        ] {
            assert_eq!(with_sql_types(message), expected);
        }
    }
}
