//! What can go wrong while a query is compiled or stepped, by who must act.

use datafusion::error::DataFusionError;

/// A failure of a query. A query that fails in a step is in an unknown state and must not be stepped again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An expression failed for some row, or a plan could not be made: the user must change query or data.
    #[error("{0}")]
    Query(Box<DataFusionError>),
    /// A bound that the user set was exceeded.
    #[error("{0}")]
    Limit(String),
    /// Ours.
    #[error("{0} (this is a bug in Millstream)")]
    Bug(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How the message of a limit begins that some operator has reached.
pub(crate) const PUTS_OUT: &str = "it puts out";

impl Error {
    /// The same, where a limit was reached with the name of the operator that has reached it.
    pub(crate) fn of_operator(self, name: &str) -> Error {
        match self {
            Error::Limit(message) => match message.strip_prefix(PUTS_OUT) {
                Some(rest) => Error::Limit(format!("its operator {name} puts out{rest}")),
                None => Error::Limit(message),
            },
            other => other,
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Error {
        // A bound that was exceeded inside of a plan is no failure of the plan.
        if let DataFusionError::External(inner) = error.find_root()
            && let Some(Error::Limit(message)) = inner.downcast_ref()
        {
            return Error::Limit(message.clone());
        }
        Error::Query(Box::new(error))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Error {
        Error::Query(Box::new(error.into()))
    }
}

impl From<millstream_state::Error> for Error {
    fn from(error: millstream_state::Error) -> Error {
        Error::Bug(error.to_string())
    }
}
