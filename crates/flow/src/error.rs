//! Errors of compiling or stepping a query, by who must act.

use datafusion::error::DataFusionError;

/// A failure of a query. After a failed step the query's state is unknown, and it must not be stepped again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An expression failed for some row, or a plan could not be made. The user must change the query or the
    /// data.
    #[error("{0}")]
    Query(Box<DataFusionError>),
    /// The query exceeded a limit that the user set.
    #[error("{0}")]
    Limit(String),
    /// Nobody needs the result of the step any more.
    #[error("the step was given up, since nobody needs its result any more")]
    Interrupted,
    /// A bug of Millstream.
    #[error("{0} (this is a bug in Millstream)")]
    Bug(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The beginning of the message of a limit that an operator exceeded.
pub(crate) const PUTS_OUT: &str = "it emits";

impl Error {
    /// Returns the error with the operator's name added, if it is a limit that the operator exceeded.
    pub(crate) fn of_operator(self, name: &str) -> Error {
        match self {
            Error::Limit(message) => match message.strip_prefix(PUTS_OUT) {
                Some(rest) => Error::Limit(format!("its operator {name} emits{rest}")),
                None => Error::Limit(message),
            },
            other => other,
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Error {
        // An exceeded limit inside of a plan is not an error of the plan.
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
