//! SQLSTATEs: the five characters by which PostgreSQL's clients tell errors apart.
//!
//! Code that creates an error may set its SQLSTATE ([`Error::code`]). For all other errors the message
//! determines it, since many come out of DataFusion as text. Only this file maps messages to codes.

use crate::error::{Error, Kind};

/// The statement is incomplete, or the text is not a statement.
pub const SYNTAX_ERROR: &str = "42601";
/// A column name matches several columns.
pub const AMBIGUOUS_COLUMN: &str = "42702";
/// The column does not exist.
pub const UNDEFINED_COLUMN: &str = "42703";
/// The relation does not exist.
pub const UNDEFINED_TABLE: &str = "42P01";
/// The function does not exist.
pub const UNDEFINED_FUNCTION: &str = "42883";
/// A value of a type cannot become one of another.
pub const CANNOT_COERCE: &str = "42846";
/// Several functions match the call.
pub const AMBIGUOUS_FUNCTION: &str = "42725";
/// An object of another kind does not exist.
pub const UNDEFINED_OBJECT: &str = "42704";
/// The parameter does not exist.
pub const UNDEFINED_PARAMETER: &str = "42P02";
/// The schema does not exist.
pub const INVALID_SCHEMA_NAME: &str = "3F000";
/// A relation of that name exists already.
pub const DUPLICATE_TABLE: &str = "42P07";
/// A column of that name exists already.
pub const DUPLICATE_COLUMN: &str = "42701";
/// A function of that name exists already.
pub const DUPLICATE_FUNCTION: &str = "42723";
/// A cursor of that name exists already.
pub const DUPLICATE_CURSOR: &str = "42P03";
/// A prepared statement of that name exists already.
pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
/// The session may not use the object.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// The relation can't be defined so.
pub const INVALID_TABLE_DEFINITION: &str = "42P16";
/// The object's kind does not support the operation.
pub const WRONG_OBJECT_TYPE: &str = "42809";
/// A column is missing from GROUP BY.
pub const GROUPING_ERROR: &str = "42803";
/// Two types do not match.
pub const DATATYPE_MISMATCH: &str = "42804";
/// The type of a parameter cannot be determined.
pub const INDETERMINATE_DATATYPE: &str = "42P18";
/// Other objects depend on the object.
pub const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";
/// A row with this key exists already.
pub const UNIQUE_VIOLATION: &str = "23505";
/// A NOT NULL column has no value.
pub const NOT_NULL_VIOLATION: &str = "23502";
/// A row violates a CHECK constraint.
pub const CHECK_VIOLATION: &str = "23514";
/// Division by zero.
pub const DIVISION_BY_ZERO: &str = "22012";
/// A number does not fit its type.
pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
/// A sequence has no number left.
pub const SEQUENCE_GENERATOR_LIMIT_EXCEEDED: &str = "2200H";
/// A bit string has another length than its type, or than another operand.
pub const STRING_DATA_LENGTH_MISMATCH: &str = "22026";
/// The length of a part is negative.
pub const SUBSTRING_ERROR: &str = "22011";
/// A text is longer than its column allows.
pub const STRING_DATA_RIGHT_TRUNCATION: &str = "22001";
/// A text is not a value of the type.
pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
/// A binary value is not a value of its type.
pub const INVALID_BINARY_REPRESENTATION: &str = "22P03";
/// A line of COPY cannot be read.
pub const BAD_COPY_FILE_FORMAT: &str = "22P04";
/// A text is not a time.
pub const INVALID_DATETIME_FORMAT: &str = "22007";
/// A time is outside its type's range.
pub const DATETIME_FIELD_OVERFLOW: &str = "22008";
/// An argument has an invalid value.
pub const INVALID_PARAMETER_VALUE: &str = "22023";
/// A pattern is not a valid regular expression.
pub const INVALID_REGULAR_EXPRESSION: &str = "2201B";
/// A text is not JSON.
pub const INVALID_JSON_TEXT: &str = "22032";
/// A jsonpath compares or reads a time that is none.
pub const INVALID_ARGUMENT_FOR_SQL_JSON_DATETIME: &str = "22031";
/// A subscript of a jsonpath is outside the array.
pub const INVALID_SQL_JSON_SUBSCRIPT: &str = "22033";
/// An item of a jsonpath is no number.
pub const NON_NUMERIC_SQL_JSON_ITEM: &str = "22036";
/// A jsonpath gives several items to JSON_QUERY.
pub const MORE_THAN_ONE_SQL_JSON_ITEM: &str = "22034";
/// A jsonpath finds nothing.
pub const NO_SQL_JSON_ITEM: &str = "22035";
/// An item of a jsonpath is no scalar.
pub const SQL_JSON_SCALAR_REQUIRED: &str = "2203F";
/// A jsonpath gives several items where one is needed.
pub const SINGLETON_SQL_JSON_ITEM_REQUIRED: &str = "22038";
/// An item of a jsonpath is no array.
pub const SQL_JSON_ARRAY_NOT_FOUND: &str = "22039";
/// An object in a jsonpath lacks a member.
pub const SQL_JSON_MEMBER_NOT_FOUND: &str = "2203A";
/// An item of a jsonpath is no object.
pub const SQL_JSON_OBJECT_NOT_FOUND: &str = "2203C";
/// A text is not a document of XML.
pub const INVALID_XML_DOCUMENT: &str = "2200M";
/// A text is not content of XML.
pub const INVALID_XML_CONTENT: &str = "2200N";
/// A comment of XML has characters that end it.
pub const INVALID_XML_COMMENT: &str = "2200S";
/// A processing instruction of XML has characters that end it.
pub const INVALID_XML_PROCESSING_INSTRUCTION: &str = "2200T";
/// A value of XML is content rather than a document.
pub const NOT_AN_XML_DOCUMENT: &str = "2200L";
/// NULL is not allowed there.
pub const NULL_VALUE_NOT_ALLOWED: &str = "22004";
/// A text that must not be empty is.
pub const ZERO_LENGTH_CHARACTER_STRING: &str = "2200F";
/// An array has too few or too many elements.
pub const ARRAY_SUBSCRIPT_ERROR: &str = "2202E";
/// A character cannot be converted.
pub const UNTRANSLATABLE_CHARACTER: &str = "22P05";
/// Other errors in the data.
pub const DATA_EXCEPTION: &str = "22000";
/// A subquery returned more than one row.
pub const CARDINALITY_VIOLATION: &str = "21000";
/// A read-only transaction cannot change anything.
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// The operation is not allowed inside a transaction.
pub const ACTIVE_SQL_TRANSACTION: &str = "25001";
/// The operation is only allowed inside a transaction.
pub const NO_ACTIVE_SQL_TRANSACTION: &str = "25P01";
/// The transaction has failed.
pub const IN_FAILED_SQL_TRANSACTION: &str = "25P02";
/// The savepoint does not exist.
pub const INVALID_SAVEPOINT: &str = "3B001";
/// A concurrent transaction committed first.
pub const SERIALIZATION_FAILURE: &str = "40001";
/// Sessions wait for each other.
pub const DEADLOCK_DETECTED: &str = "40P01";
/// The cursor does not exist.
pub const INVALID_CURSOR_NAME: &str = "34000";
/// The prepared statement does not exist.
pub const INVALID_SQL_STATEMENT_NAME: &str = "26000";
/// The snapshot that the transaction began with is no longer kept.
pub const SNAPSHOT_TOO_OLD: &str = "72000";
/// The feature is not built.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// The user cancelled the query.
pub const QUERY_CANCELED: &str = "57014";
/// The engine is shutting down.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// A resource is exhausted.
pub const INSUFFICIENT_RESOURCES: &str = "53000";
/// The operation needs more memory than its limit.
pub const OUT_OF_MEMORY: &str = "53200";
/// A limit of the engine was exceeded.
pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
/// The statement is too deeply nested or too long.
pub const STATEMENT_TOO_COMPLEX: &str = "54001";
/// The protocol does not allow the message here.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// The object's state does not allow the operation.
pub const OBJECT_NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// Another operation is using the object.
pub const OBJECT_IN_USE: &str = "55006";
/// Other errors in a statement.
pub const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: &str = "42000";
/// Stored data is damaged.
pub const DATA_CORRUPTED: &str = "XX001";
/// A bug in Millstream.
pub const INTERNAL_ERROR: &str = "XX000";
/// An external system failed.
pub const SYSTEM_ERROR: &str = "58000";

/// Parts of a message, all of which must occur in order, and the SQLSTATE. The first match counts.
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

/// Returns an error's code: the one it was given, or the one for its message and kind.
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
        // An error in the statement has a position; an error in a value has none.
        (None, _) if error.span.is_some() => SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        (None, _) => DATA_EXCEPTION,
    }
}

/// True if a text contains these parts, one after the other.
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
