//! What can go wrong with what is on the disk.

use std::io;
use std::path::PathBuf;

use arrow::error::ArrowError;

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or what stands for it, failed.
    #[error("{what} '{name}' failed: {error}")]
    Disk {
        /// What was done, such as "writing".
        what: &'static str,
        /// The file.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// Another process has the directory open.
    #[error("data directory '{}' is in use by another process{}", .directory.display(), .by)]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// ` (process 123)`, where it says which.
        by: String,
    },
    /// Another process has taken over an object store's prefix.
    #[error("{by} has taken over '{}'", .directory.display())]
    Lost {
        /// The prefix.
        directory: PathBuf,
        /// Who has it.
        by: String,
    },
    /// The directory holds something else, or is of another version.
    #[error("'{}' is no data directory that this version can open: {reason}", .directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// What is there isn't what was written.
    #[error("'{name}' is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        name: String,
        /// Where in it.
        offset: u64,
        /// What was found, and what was expected.
        reason: String,
    },
    /// Rows can't be written or read.
    #[error("rows can't be kept: {0}")]
    Arrow(#[from] ArrowError),
}

impl Error {
    /// A failure of the disk.
    pub(crate) fn disk(what: &'static str, name: &str, error: io::Error) -> Error {
        Error::Disk { what, name: name.to_string(), error }
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
