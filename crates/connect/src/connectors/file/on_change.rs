//! The policy for files that change after their end was read.

/// The reaction to a change of a file that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnChange {
    Ignore,
    /// Read the appended part.
    Append,
    Error,
    Reread,
}

impl OnChange {
    /// Returns the consequence for a changed file, in words.
    pub fn consequence(self) -> &'static str {
        match self {
            OnChange::Ignore => "that is not read; set on_change = 'append' to read what is appended",
            OnChange::Append => "that is not read, since it isn't an addition",
            OnChange::Error => "that is an error",
            OnChange::Reread => "it is read again from its beginning",
        }
    }
}
