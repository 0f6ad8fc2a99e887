//! Why the program ends before its work is done, and with which exit code.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use millstream::{Error, Kind};

/// What ended the work. The message is complete: it needs no more than to be shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// A statement failed, or a test did.
    #[error("{0}")]
    Statement(String),
    /// Tests failed, which their report has said.
    #[error("tests failed")]
    Tests,
    /// The command line asks for something that can't be. The message is without its "error:".
    #[error("{0}")]
    Usage(String),
    /// A file, or something else outside, failed.
    #[error("{0}")]
    External(String),
    /// A signal ended what had not yet come to its end.
    #[error("interrupted")]
    Interrupted,
    /// A signal ended what would not have ended by itself: no failure.
    #[error("ended")]
    Ended,
    /// Whoever read the output has gone, as `head` does: no failure.
    #[error("the output was closed")]
    Closed,
}

impl Stop {
    /// The exit code, as `--help` documents it.
    pub fn code(&self) -> u8 {
        match self {
            Stop::Closed | Stop::Ended => 0,
            Stop::Statement(_) | Stop::Tests => 1,
            Stop::Usage(_) => 2,
            Stop::External(_) => 3,
            Stop::Interrupted => 130,
        }
    }

    /// Says on standard error what happened, where that needs saying, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Stop::Closed | Stop::Ended | Stop::Interrupted | Stop::Tests => {}
            Stop::Usage(message) => eprintln!("error: {message}\n\nFor more, try 'millstream --help'."),
            Stop::Statement(message) | Stop::External(message) => eprintln!("{message}"),
        }
        ExitCode::from(self.code())
    }

    /// Something outside failed, as `message` says.
    pub fn external(message: impl Display) -> Stop {
        Stop::External(format!("error: {message}"))
    }

    /// A failure of the engine that no text of the user's stands behind.
    pub fn engine(error: &Error) -> Stop {
        let message = format!("error: {error}");
        if error.kind == Kind::External { Stop::External(message) } else { Stop::Statement(message) }
    }
}

impl From<io::Error> for Stop {
    /// Writing to standard output failed.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Stop::Closed;
        }
        Stop::external(format_args!("standard output can't be written: {error}"))
    }
}
