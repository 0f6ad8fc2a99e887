//! The reasons why the program ends early, with their exit codes.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use millstream::{Error, Kind};

use crate::logging::{self, Message};

/// The reason why the work ended. Its message is complete and ready for display.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// A statement or a test failed.
    #[error("{0}")]
    Statement(String),
    /// Tests failed; their report has the details.
    #[error("tests failed")]
    Tests,
    /// The command line is invalid. The message is without its "error:".
    #[error("{0}")]
    Usage(String),
    /// A file or another external resource failed.
    #[error("{0}")]
    External(String),
    /// A signal interrupted unfinished work.
    #[error("interrupted")]
    Interrupted,
    /// A signal ended work that would not have ended by itself: no failure.
    #[error("ended")]
    Ended,
    /// The reader of the output has closed it, as `head` does: no failure.
    #[error("the output was closed")]
    Closed,
}

impl Stop {
    /// Returns the exit code, as `--help` documents it.
    pub fn code(&self) -> u8 {
        match self {
            Stop::Closed | Stop::Ended => 0,
            Stop::Statement(_) | Stop::Tests => 1,
            Stop::Usage(_) => 2,
            Stop::External(_) => 3,
            Stop::Interrupted => 130,
        }
    }

    /// Prints the reason on standard error if needed, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Stop::Closed | Stop::Ended | Stop::Interrupted | Stop::Tests => {}
            Stop::Usage(message) => {
                let text = format!("error: {message}\n\nFor more, try 'millstream --help'.");
                logging::tell(Message::Failure(&text));
            }
            Stop::Statement(message) | Stop::External(message) => logging::tell(Message::Failure(message)),
        }
        ExitCode::from(self.code())
    }

    /// Creates the error of an external failure.
    pub fn external(message: impl Display) -> Stop {
        Stop::External(format!("error: {message}"))
    }

    /// Creates the error of an engine failure that has no place in the user's text.
    pub fn engine(error: &Error) -> Stop {
        let message = format!("error: {error}");
        if error.kind == Kind::External { Stop::External(message) } else { Stop::Statement(message) }
    }
}

impl From<io::Error> for Stop {
    /// Converts a failed write to standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::Closed;
        }
        Stop::external(format_args!("standard output can't be written: {error}"))
    }
}
