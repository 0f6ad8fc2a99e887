//! The compatibility level: the meaning that SQL has in a data directory of this or an earlier version.

use arrow::datatypes::TimeUnit;

/// The meaning that SQL has for a planner. A data directory keeps the level at which it was made, so its texts and its stored plans
/// keep their meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CompatibilityLevel {
    /// Like [`CompatibilityLevel::Two`], and a TIMESTAMP without digits is in nanoseconds.
    One,
    /// A cast to an integer cuts digits, `round` of a DOUBLE PRECISION rounds halves away from zero, an INT with a REAL is a
    /// REAL, a NUMERIC compared with a DOUBLE PRECISION is compared as NUMERIC, and bytes cast to TEXT are read as UTF-8.
    Two,
    /// Numbers and bytes are as in PostgreSQL.
    #[default]
    Three,
}

impl CompatibilityLevel {
    /// Returns the unit of a TIMESTAMP without digits.
    pub(crate) fn timestamp_unit(self) -> TimeUnit {
        match self {
            CompatibilityLevel::One => TimeUnit::Nanosecond,
            _ => TimeUnit::Microsecond,
        }
    }

    /// True if numbers are cast, rounded and combined as in PostgreSQL, and bytes are cast to text as there.
    pub(crate) fn has_postgres_numbers(self) -> bool {
        self >= CompatibilityLevel::Three
    }
}
