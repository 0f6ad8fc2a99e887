//! What becomes of a file that changes after its end was read.

/// What to do when a file changes that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnChange {
    Ignore,
    /// What is appended to it is read.
    Append,
    Error,
    Reread,
}

impl OnChange {
    /// What becomes of a file that changed, in words.
    pub fn consequence(self) -> &'static str {
        match self {
            OnChange::Ignore => "that is not read; set on_change = 'append' to read what is appended",
            OnChange::Append => "that is not read, since it isn't an addition",
            OnChange::Error => "that is an error",
            OnChange::Reread => "it is read again from its beginning",
        }
    }
}
