//! The five letters by which clients of PostgreSQL tell errors apart.
//!
//! An error says its code where it is made ([`Error::code`]); of the others it is read off the message, since much of
//! what is wrong comes out of the query engine as text. This file alone knows both.

use crate::error::{Error, Kind};

/// A statement didn't end as it should, or isn't one.
pub const SYNTAX_ERROR: &str = "42601";
/// What was said of two things belongs to one.
pub const AMBIGUOUS_COLUMN: &str = "42702";
/// There is no such column.
pub const UNDEFINED_COLUMN: &str = "42703";
/// There is no such relation.
pub const UNDEFINED_TABLE: &str = "42P01";
/// There is no such function.
pub const UNDEFINED_FUNCTION: &str = "42883";
/// There is no such object, of another kind.
pub const UNDEFINED_OBJECT: &str = "42704";
/// A parameter that isn't there.
pub const UNDEFINED_PARAMETER: &str = "42P02";
/// There is no such schema.
pub const INVALID_SCHEMA_NAME: &str = "3F000";
/// A relation of that name is there.
pub const DUPLICATE_TABLE: &str = "42P07";
/// A column of that name is there.
pub const DUPLICATE_COLUMN: &str = "42701";
/// A function of that name is there.
pub const DUPLICATE_FUNCTION: &str = "42723";
/// A cursor of that name is there.
pub const DUPLICATE_CURSOR: &str = "42P03";
/// A prepared statement of that name is there.
pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
/// The object is of a kind for which this can't be done.
pub const WRONG_OBJECT_TYPE: &str = "42809";
/// A column must be grouped by.
pub const GROUPING_ERROR: &str = "42803";
/// Types that don't fit each other.
pub const DATATYPE_MISMATCH: &str = "42804";
/// The type of a parameter can't be told.
pub const INDETERMINATE_DATATYPE: &str = "42P18";
/// Other things stand on it.
pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
/// A row with this key is there.
pub const UNIQUE_VIOLATION: &str = "23505";
/// A value must be there.
pub const NOT_NULL_VIOLATION: &str = "23502";
/// Division by zero.
pub const DIVISION_BY_ZERO: &str = "22012";
/// A number doesn't fit its type.
pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
/// A text is longer than its column takes.
pub const STRING_DATA_RIGHT_TRUNCATION: &str = "22001";
/// A text is no value of the type.
pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
/// A binary value is none of its type.
pub const INVALID_BINARY_REPRESENTATION: &str = "22P03";
/// A line of COPY can't be read.
pub const BAD_COPY_FILE_FORMAT: &str = "22P04";
/// A text is no time.
pub const INVALID_DATETIME_FORMAT: &str = "22007";
/// A time is beyond what its type has.
pub const DATETIME_FIELD_OVERFLOW: &str = "22008";
/// An argument that can't be.
pub const INVALID_PARAMETER_VALUE: &str = "22023";
/// A pattern that is none.
pub const INVALID_REGULAR_EXPRESSION: &str = "2201B";
/// A text is no JSON.
pub const INVALID_JSON_TEXT: &str = "22032";
/// Data that doesn't do.
pub const DATA_EXCEPTION: &str = "22000";
/// A subquery gave more than one row.
pub const CARDINALITY_VIOLATION: &str = "21000";
/// A transaction that can't change anything.
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// It can't be done inside a transaction.
pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
/// It can only be done inside a transaction.
pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
/// The transaction has failed.
pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
/// There is no such savepoint.
pub const INVALID_SAVEPOINT: &str = "3B001";
/// Another transaction was first.
pub const SERIALIZATION_FAILURE: &str = "40001";
/// There is no such cursor.
pub const INVALID_CURSOR_NAME: &str = "34000";
/// There is no such prepared statement.
pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
/// What was seen at the beginning of the transaction isn't kept any more.
pub const SNAPSHOT_TOO_OLD: &str = "72000";
/// It isn't built.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// The user ended it.
pub const QUERY_CANCELED: &str = "57014";
/// The engine is ending.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// There isn't enough of something.
pub const INSUFFICIENT_RESOURCES: &str = "53000";
/// It takes more memory than there is for it.
pub const OUT_OF_MEMORY: &str = "53200";
/// A limit of the engine's.
pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
/// Nested too deeply, or too long.
pub const STATEMENT_TOO_COMPLEX: &str = "54001";
/// A message that the protocol doesn't have here.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// The object isn't in a state for that.
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// The object is being worked at.
pub const OBJECT_IN_USE: &str = "55006";
/// A statement that has something wrong, of no kind of its own.
pub const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: &str = "42000";
/// What was stored is damaged.
pub const DATA_CORRUPTED: &str = "XX001";
/// Ours.
pub const INTERNAL_ERROR: &str = "XX000";
/// The outside failed.
pub const SYSTEM_ERROR: &str = "58000";

/// What a message holds, all of it, and what it means. The first that fits counts.
const BY_MESSAGE: &[(&[&str], &str)] = &[
    (&["syntax error"], SYNTAX_ERROR),
    (&["one statement was expected"], SYNTAX_ERROR),
    (&["more than one statement where one was expected"], SYNTAX_ERROR),
    (&["not supported yet"], FEATURE_NOT_SUPPORTED),
    (&["nested too deeply"], STATEMENT_TOO_COMPLEX),
    (&["is NOT NULL and a row has no value"], NOT_NULL_VIOLATION),
    (&["NULL in key column"], NOT_NULL_VIOLATION),
    (&["has a key that is already present"], UNIQUE_VIOLATION),
    (&["change a row a second time"], CARDINALITY_VIOLATION),
    (&["division by zero"], DIVISION_BY_ZERO),
    (&["divide by zero"], DIVISION_BY_ZERO),
    (&["overflow"], NUMERIC_VALUE_OUT_OF_RANGE),
    (&["is out of the range of"], NUMERIC_VALUE_OUT_OF_RANGE),
    (&["too large to store"], NUMERIC_VALUE_OUT_OF_RANGE),
    (&["time zone '", "not found"], INVALID_PARAMETER_VALUE),
    (&["a time is out of range"], DATETIME_FIELD_OVERFLOW),
    (&["make_timestamp("], DATETIME_FIELD_OVERFLOW),
    (&["is no timestamp"], INVALID_DATETIME_FORMAT),
    (&["cannot cast '", "' to TIMESTAMP"], INVALID_DATETIME_FORMAT),
    (&["cannot cast '", "' to DATE"], INVALID_DATETIME_FORMAT),
    (&["cannot cast '", "' to TIME"], INVALID_DATETIME_FORMAT),
    (&["error parsing timestamp"], INVALID_DATETIME_FORMAT),
    (&["is no JSON"], INVALID_JSON_TEXT),
    (&["is no regular expression"], INVALID_REGULAR_EXPRESSION),
    (&["cannot cast '"], INVALID_TEXT_REPRESENTATION),
    (&["value too long for type"], STRING_DATA_RIGHT_TRUNCATION),
    (&["is no value for"], INVALID_TEXT_REPRESENTATION),
    (&["cannot parse"], INVALID_TEXT_REPRESENTATION),
    (&["invalid interval"], INVALID_DATETIME_FORMAT),
    (&["more than one row"], CARDINALITY_VIOLATION),
    (&["column \"", "is ambiguous"], AMBIGUOUS_COLUMN),
    (&["column \"", "must appear in GROUP BY"], GROUPING_ERROR),
    (&["column \"", "twice"], DUPLICATE_COLUMN),
    (&["column \"", "not found"], UNDEFINED_COLUMN),
    (&["schema \"", "not found"], INVALID_SCHEMA_NAME),
    (&["relation \"", "not found"], UNDEFINED_TABLE),
    (&["table function \"", "not found"], UNDEFINED_FUNCTION),
    (&["table \"", "not found"], UNDEFINED_TABLE),
    (&["source \"", "not found"], UNDEFINED_TABLE),
    (&["there is no table \""], UNDEFINED_TABLE),
    (&["there is no source \""], UNDEFINED_TABLE),
    (&["there is no relation \""], UNDEFINED_TABLE),
    (&["function \"", "not found"], UNDEFINED_FUNCTION),
    (&["function \"", "doesn't take"], UNDEFINED_FUNCTION),
    (&["there is no function"], UNDEFINED_FUNCTION),
    (&["failed to coerce arguments"], UNDEFINED_FUNCTION),
    (&["type \"", "not found"], UNDEFINED_OBJECT),
    (&["there is no setting"], UNDEFINED_OBJECT),
    (&["there is no connector"], UNDEFINED_OBJECT),
    (&["there is no parameter"], UNDEFINED_PARAMETER),
    (&["function \"", "already exists"], DUPLICATE_FUNCTION),
    (&["aggregate \"", "already exists"], DUPLICATE_FUNCTION),
    (&["already exists"], DUPLICATE_TABLE),
    (&["is used by"], DEPENDENT_OBJECTS_STILL_EXIST),
    (&["is read by"], DEPENDENT_OBJECTS_STILL_EXIST),
    (&["unknown option"], INVALID_PARAMETER_VALUE),
    (&["was expected"], INVALID_PARAMETER_VALUE),
    (&["INSERT has", "values where"], SYNTAX_ERROR),
    (&["the rows don't fit"], DATATYPE_MISMATCH),
    (&["a delete matches no row"], DATA_EXCEPTION),
    (&["can't be changed"], WRONG_OBJECT_TYPE),
    (&["\" is a "], WRONG_OBJECT_TYPE),
    (&["is suspended"], OBJECT_NOT_IN_PREREQUISITE_STATE),
    (&["still reading"], OBJECT_NOT_IN_PREREQUISITE_STATE),
    (&["has errors"], DATA_EXCEPTION),
    (&["the engine has stopped"], ADMIN_SHUTDOWN),
    (&["fell behind"], INSUFFICIENT_RESOURCES),
    (&["resources exhausted"], OUT_OF_MEMORY),
    (&["was dropped"], UNDEFINED_TABLE),
];

/// The code of an error: the one it was given, or what its message and its kind say.
pub(crate) fn of(error: &Error) -> &'static str {
    if let Some(code) = error.code {
        return code;
    }
    match error.kind {
        Kind::Bug => return INTERNAL_ERROR,
        Kind::Corrupt => return DATA_CORRUPTED,
        Kind::Invalid | Kind::External => {}
    }
    let holds = |parts: &&(&[&str], &str)| in_order(&error.message, parts.0);
    match (BY_MESSAGE.iter().find(holds), error.kind) {
        (Some((_, code)), _) => code,
        (None, Kind::External) => SYSTEM_ERROR,
        // A statement that is wrong has a place; a value that is wrong has none.
        (None, _) if error.span.is_some() => SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        (None, _) => DATA_EXCEPTION,
    }
}

/// Whether a text holds these parts, one after the other.
fn in_order(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_codes_that_postgres_gives() {
        for (message, expected) in [
            ("column \"x\" not found in \"t\"", UNDEFINED_COLUMN),
            ("relation \"t\" not found", UNDEFINED_TABLE),
            ("table function \"f\" not found", UNDEFINED_FUNCTION),
            ("TABLE \"t\" already exists", DUPLICATE_TABLE),
            ("FUNCTION x is not supported yet", FEATURE_NOT_SUPPORTED),
            ("cannot cast 'a' to INT", INVALID_TEXT_REPRESENTATION),
            ("cannot cast 'a' to TIMESTAMP", INVALID_DATETIME_FORMAT),
            ("300 is out of the range of TINYINT", NUMERIC_VALUE_OUT_OF_RANGE),
            ("something else", DATA_EXCEPTION),
        ] {
            assert_eq!(Error::invalid(message).sqlstate(), expected, "{message}");
        }
        let given = Error::external("column \"x\" not found").code(SERIALIZATION_FAILURE);
        assert_eq!(given.sqlstate(), SERIALIZATION_FAILURE);
        assert_eq!(Error::bug("it").sqlstate(), INTERNAL_ERROR);
        assert_eq!(Error::invalid("odd").at(0..1).sqlstate(), SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION);
    }
}
