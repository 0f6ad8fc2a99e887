//! What is known to be wrong or missing, and so left out of generated queries until it is mended.

/// A combination of features that generated queries avoid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Frames that begin after the first row, of aggregates that the planner has no sliding form of.
    SlidingFrames,
    /// LIMIT of rows that are ordered by structs.
    StructLimit,
}

/// Why generated queries avoid something. Mended ones are removed.
pub const KNOWN: &[(Known, &str)] = &[
    (Known::SlidingFrames, "refused while they run, or never where there are no rows"),
    (Known::StructLimit, "over grouped rows, which ones are taken changes from run to run"),
];

impl Known {
    /// Whether it is to be avoided.
    pub fn is_avoided(self) -> bool {
        KNOWN.iter().any(|(known, _)| *known == self)
    }
}
