//! Converts the errors of all lower crates to the error type that users see.

pub use millstream_sql::{Error, Kind, Result};

/// Converts an error of a connector.
pub(crate) fn connect(error: millstream_connect::Error) -> Error {
    match error {
        millstream_connect::Error::Invalid(message) => Error::invalid(message),
        millstream_connect::Error::External(message) => Error::external(message),
        bug @ millstream_connect::Error::Bug(_) => Error::new(Kind::Bug, bug.to_string()),
    }
}

/// Converts an error of a running query.
pub(crate) fn flow(error: millstream_flow::Error) -> Error {
    match error {
        millstream_flow::Error::Query(error) => Error::from(*error),
        millstream_flow::Error::Limit(message) => Error::invalid(message),
        ended @ millstream_flow::Error::Interrupted => Error::external(ended.to_string()),
        bug @ millstream_flow::Error::Bug(_) => Error::new(Kind::Bug, bug.to_string()),
    }
}

/// Converts an error of the engine's state.
pub(crate) fn state(error: millstream_state::Error) -> Error {
    Error::bug(error.to_string())
}

/// Converts an error of Arrow where schemas are known to match.
pub(crate) fn arrow(error: arrow::error::ArrowError) -> Error {
    Error::bug(error.to_string())
}

/// Returns the error of every call after the loop has ended.
pub(crate) fn stopped() -> Error {
    Error::external("the engine has stopped")
}

/// Converts an error of a change. If the change doesn't fit the rows, it is a user error.
pub(crate) fn change(error: millstream_state::Error) -> Error {
    match error {
        millstream_state::Error::Full(_) | millstream_state::Error::Arrow(_) => state(error),
        other => Error::invalid(other.to_string()),
    }
}

/// True if a disk has no room, or the user's quota has none.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Converts an error of the data directory.
pub(crate) fn durable(error: millstream_durable::Error) -> Error {
    use millstream_durable::Error as Durable;
    let message = error.to_string();
    match error {
        Durable::Disk { error, .. } if is_full(&error) => Error::external(message)
            .hint("Free space on the disk of the data directory, or give it a larger one."),
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
        Durable::Unsaved { error, .. } => Error { message, ..state(error) },
        Durable::Arrow(error) => arrow(error),
    }
}
