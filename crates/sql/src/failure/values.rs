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
                Some("cannot cast 'it's' to TIMESTAMP"),
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
        ] {
            assert_eq!(cast_failed(message).as_deref(), expected, "{message}");
        }
    }
}
