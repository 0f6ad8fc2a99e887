//! The errors of all crates below as the one that users see.

pub use millstream_sql::{Error, Kind, Result};

/// A failure at the edges.
pub(crate) fn connect(error: millstream_connect::Error) -> Error {
    match error {
        millstream_connect::Error::Invalid(message) => Error::invalid(message),
        millstream_connect::Error::External(message) => Error::external(message),
        bug @ millstream_connect::Error::Bug(_) => Error::new(Kind::Bug, bug.to_string()),
    }
}

/// A failure of a running query.
pub(crate) fn flow(error: millstream_flow::Error) -> Error {
    match error {
        millstream_flow::Error::Query(error) => Error::from(*error),
        millstream_flow::Error::Limit(message) => Error::invalid(message),
        bug @ millstream_flow::Error::Bug(_) => Error::new(Kind::Bug, bug.to_string()),
    }
}

/// A failure of what the engine keeps.
pub(crate) fn state(error: millstream_state::Error) -> Error {
    Error::bug(error.to_string())
}

/// A failure of Arrow where the shapes are known to fit.
pub(crate) fn arrow(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}

/// What every call says once the loop has ended.
pub(crate) fn stopped() -> Error {
    Error::external("the engine has stopped")
}

/// A change that doesn't fit the rows is the user's to mend.
pub(crate) fn change(error: millstream_state::Error) -> Error {
    match error {
        millstream_state::Error::Full(_) | millstream_state::Error::Arrow(_) => state(error),
        other => Error::invalid(other.to_string()),
    }
}

/// A failure of the data directory.
pub(crate) fn durable(error: millstream_durable::Error) -> Error {
    use millstream_durable::Error as Durable;
    let message = error.to_string();
    match error {
        Durable::Disk { .. } => Error::external(message),
        Durable::Locked { .. } => Error::external(message)
            .hint("One process at a time has it: end the other one, or choose another directory."),
        Durable::Lost { .. } => {
            Error::external(message).hint("One process at a time has it: the one that opened it last.")
        }
        Durable::Foreign { .. } => Error::invalid(message),
        Durable::Corrupt { .. } => {
            Error::new(Kind::Corrupt, message).hint("Put the file back from a copy. Nothing was changed.")
        }
        Durable::Arrow(error) => arrow(error),
    }
}
