//! Errors of the data directory.

use std::io;
use std::path::PathBuf;

use arrow::error::ArrowError;

/// The reason why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or the object store failed.
    #[error("{what} '{name}' failed: {error}")]
    Disk {
        /// The operation that failed, such as "writing".
        what: &'static str,
        /// The file.
        name: String,
        /// The system's error.
        error: io::Error,
    },
    /// Another process has the directory open.
    #[error("data directory '{}' is in use by another process{}", .directory.display(), .by)]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// ` (process 123)`, if the lock file names a process.
        by: String,
    },
    /// Another process has claimed the object store prefix.
    #[error("{by} has taken over '{}'", .directory.display())]
    Lost {
        /// The prefix.
        directory: PathBuf,
        /// The name of the process that holds the prefix.
        by: String,
    },
    /// The directory holds something else, or has another format version.
    #[error("'{}' is not a data directory that this version can open: {reason}", .directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// The content found, and the content expected.
        reason: String,
    },
    /// A file's content differs from what was written.
    #[error("'{name}' is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        name: String,
        /// The byte offset of the damage.
        offset: u64,
        /// The content found, and the content expected.
        reason: String,
    },
    /// The rows of a checkpoint's table can't be collected.
    #[error("the rows of '{name}' can't be collected: {error}")]
    Unsaved {
        /// The table.
        name: String,
        /// The error of the state.
        error: millstream_state::Error,
    },
    /// Rows can't be encoded or decoded.
    #[error("rows can't be stored: {0}")]
    Arrow(#[from] ArrowError),
}

impl Error {
    /// Returns the error of a failed disk operation.
    pub(crate) fn disk(what: &'static str, name: &str, error: io::Error) -> Error {
        Error::Disk { what, name: name.to_string(), error }
    }
}

/// The result type of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
