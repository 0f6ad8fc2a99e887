//! Dates and timestamps in text forms that DataFusion can't read, such as `epoch`.

use crate::error::{Error, Result};

/// Rewrites a time so that DataFusion can read it; none if it needs no change.
pub(crate) fn rewrite_literal(text: &str, type_name: &str) -> Result<Option<String>> {
    let word = text.trim().to_ascii_lowercase();
    match word.as_str() {
        "epoch" => {
            return Ok(Some(if type_name == "DATE" { "1970-01-01" } else { "1970-01-01T00:00:00" }.into()));
        }
        "infinity" | "-infinity" | "+infinity" => {
            return Err(Error::invalid(format!(
                "'{text}' is no {type_name} here: infinite times are not supported"
            ))
            .hint("Use NULL, or a date that is far away."));
        }
        "now" | "today" | "tomorrow" | "yesterday" | "allballs" => {
            return Err(Error::invalid(format!("'{text}' is not supported yet as a {type_name}"))
                .hint("Use now(), current_date, or arithmetic with them."));
        }
        _ => {}
    }
    Ok(with_seconds(text.trim()))
}

/// Adds seconds to `2024-01-01 10:00` and `2024-01-01 10:00+02`.
fn with_seconds(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(|byte| byte.is_ascii_digit()))
    };
    let shape = digits(0..4)
        && bytes.get(4) == Some(&b'-')
        && digits(5..7)
        && bytes.get(7) == Some(&b'-')
        && digits(8..10)
        && matches!(bytes.get(10), Some(b' ' | b'T'))
        && digits(11..13)
        && bytes.get(13) == Some(&b':')
        && digits(14..16)
        && matches!(bytes.get(16), None | Some(b'+' | b'-' | b'Z' | b'z' | b' '));
    shape.then(|| format!("{}:00{}", &text[..16], &text[16..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_added() {
        assert_eq!(with_seconds("2024-01-01 10:00").as_deref(), Some("2024-01-01 10:00:00"));
        assert_eq!(with_seconds("2024-01-01T10:00+02").as_deref(), Some("2024-01-01T10:00:00+02"));
        for text in ["2024-01-01", "2024-01-01 10:00:00", "10:00", "2024-1-1 10:00"] {
            assert_eq!(with_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn words_are_times_or_refused() {
        assert_eq!(rewrite_literal("epoch", "DATE").unwrap().as_deref(), Some("1970-01-01"));
        assert!(rewrite_literal("infinity", "TIMESTAMP").is_err());
        assert!(rewrite_literal("today", "DATE").is_err());
        assert_eq!(rewrite_literal("2024-01-01", "DATE").unwrap(), None);
    }
}
