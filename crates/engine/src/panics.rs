//! What a panic said, for the error that it becomes.

use std::any::Any;

use millstream_sql::Error;

/// The error of work that panicked, which ends the query or statement and nothing else.
pub(crate) fn panicked(what: &str, said: &(dyn Any + Send)) -> Error {
    let text = said.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| said.downcast_ref::<&str>().copied()).unwrap_or("it doesn't say why");
    Error::bug(format!("{what} panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
