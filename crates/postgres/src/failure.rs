//! Classifies PostgreSQL's errors by who must act.

use std::error::Error as _;

use millstream_connect::Error;

/// Classes of SQLSTATEs that recur with the same rows: unsupported features (0A), data (22), constraints
/// (23), names and types (42), views with a check option (44), and errors raised by triggers (P0).
const LASTING: &[&str] = &["0A", "22", "23", "42", "44", "P0"];

/// Codes in these classes that may pass: a missing privilege may be granted, and two clients that create
/// one table at the same time conflict.
const PASSING: &[&str] = &["42501", "42P07"];

/// Converts an error of the database, to one that may pass or one that lasts.
pub(crate) fn of(sink: &str, doing: &str, error: &tokio_postgres::Error) -> Error {
    let Some(told) = error.as_db_error() else {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        return Error::External(format!("sink '{sink}' could not {doing}: {cause}"));
    };
    let code = told.code().code();
    let mut text = format!("sink '{sink}' could not {doing}: {} (SQLSTATE {code}", told.message());
    if let Some(constraint) = told.constraint() {
        text += &format!(", constraint '{constraint}'");
    }
    text.push(')');
    for more in [told.detail(), told.hint()].into_iter().flatten() {
        text += &format!(". {more}");
    }
    match is_lasting(code, told.schema()) {
        true => Error::Invalid(text),
        false => Error::External(text),
    }
}

/// `schema` is the schema of the object that the error names.
fn is_lasting(code: &str, schema: Option<&str>) -> bool {
    // Two clients that create one table conflict in the catalog, even with IF NOT EXISTS.
    let passes = PASSING.contains(&code) || schema == Some("pg_catalog");
    !passes && LASTING.iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        // A lost connection, a full disk, a server that stops or starts, deadlocks, locks, a standby, a
        // password.
        for code in ["08006", "53100", "57P01", "57P03", "40P01", "55P03", "25006", "28P01", "42501", "57014"]
        {
            assert!(!is_lasting(code, None), "{code}");
        }
        for code in ["23505", "23514", "22P02", "22003", "42P01", "42703", "P0001"] {
            assert!(is_lasting(code, Some("public")), "{code}");
        }
        assert!(!is_lasting("23505", Some("pg_catalog")));
    }
}
