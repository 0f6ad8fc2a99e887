//! The window of batches that a query reads as an input.

/// The batches that end in (T - length, T], for every T at which the window is evaluated; in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchWindow {
    /// The window's length.
    pub length: i64,
    /// The interval whose multiples are the values of T; `None`: T is the end of any batch.
    pub slide: Option<i64>,
}
