//! The errors of sources, sinks and formats, by who must act.

/// A failure of a source, a sink or a format. Each message names the object, the value found, the value
/// expected, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user must change the statement or the data.
    #[error("{0}")]
    Invalid(String),
    /// An external system failed; the same call may succeed later.
    #[error("{0}")]
    External(String),
    /// A bug in Millstream.
    #[error("{0} (this is a bug in Millstream)")]
    Bug(String),
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
