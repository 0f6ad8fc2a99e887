//! Errors of changes of state.

use arrow::error::ArrowError;
use millstream_delta::Delta;

/// The reason why a change could not be applied. The state is then unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More copies of rows were deleted than exist. Each row's weight is the number of copies missing.
    #[error(
        "a delete matches no row: {} distinct rows were deleted more often than they are present; \
         a delete must follow the insert of an equal row",
        .0.num_rows()
    )]
    Negative(Delta),
    /// A key column holds NULL.
    #[error("NULL in key column \"{column}\" of row {row}; a primary key must have a value in every column")]
    NullKey {
        /// The name of the column.
        column: String,
        /// The position of the row in its batch, from 0.
        row: usize,
    },
    /// A row's key exists already, and the caller asked for an error in that case.
    #[error("row {row} has a key that is already present; delete it first, or ask for it to be replaced")]
    DuplicateKey {
        /// The position of the row in its batch, from 0.
        row: usize,
    },
    /// An index reached its maximum number of keys.
    #[error("the index holds {0} keys, which is as many as it can")]
    Full(usize),
    /// The saved state does not fit the present structure.
    #[error("the saved state doesn't fit: {0}")]
    Incomplete(String),
    /// A kernel failed, or a type can't be indexed.
    #[error("{0}")]
    Arrow(#[from] ArrowError),
}

/// The result of a change of state.
pub type Result<T> = std::result::Result<T, Error>;
