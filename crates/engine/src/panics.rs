//! What a panic said, for the error that it becomes.

use std::any::Any;

use millstream_sql::{Error, sqlstate};

/// The error of work that panicked, which ends the query or statement and nothing else.
pub(crate) fn panicked(what: &str, said: &(dyn Any + Send)) -> Error {
    let text = said.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| said.downcast_ref::<&str>().copied()).unwrap_or("it doesn't say why");
    // What Arrow says where a column's values have more bytes than its offsets can count.
    if text.contains("offset overflow") {
        let message = format!("{what} has made a column of more than 2 GiB of texts or elements");
        let error = Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED);
        return error.hint("Gather less in one value (string_agg, array_agg), or let it have fewer rows.");
    }
    Error::bug(format!("{what} panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_is_too_large_is_no_bug() {
        let error = panicked("the query", &"offset overflow");
        assert_eq!((error.kind, error.sqlstate()), (crate::Kind::Invalid, sqlstate::PROGRAM_LIMIT_EXCEEDED));
    }

    #[test]
    fn an_error_says_what_the_panic_said() {
        for (panic, expected) in [
            (Box::new("no slot") as Box<dyn Any + Send>, "a step panicked: no slot"),
            (Box::new("no slot 7".to_string()), "a step panicked: no slot 7"),
            (Box::new(7), "a step panicked: it doesn't say why"),
        ] {
            assert!(panicked("a step", panic.as_ref()).message.contains(expected));
        }
    }
}
