//! What can go wrong at the edges, by who must act.

/// A failure of a source, a sink or a format. Every message names the object, what was found, what was expected
/// and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user must change the statement or the data.
    #[error("{0}")]
    Invalid(String),
    /// The outside failed; the same call may succeed later.
    #[error("{0}")]
    External(String),
    /// Ours.
    #[error("{0} (this is a bug in Millstream)")]
    Bug(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
