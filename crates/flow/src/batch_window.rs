//! The window of batches that an input is.

/// The batches that end in (T - length, T], for every T at which the window is looked at; in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchWindow {
    /// How long it is.
    pub length: i64,
    /// T is a multiple of it; none: T is the end of any batch.
    pub slide: Option<i64>,
}
