//! What is known to be wrong or missing, and so left out of generated queries until it is mended.

/// A combination of features that generated queries avoid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// RIGHT and FULL JOIN with USING.
    OuterUsing,
    /// NOT IN of a subquery below OR, NOT or CASE.
    NotInBelowOr,
    /// Variances, deviations, correlations and regressions of floats.
    FloatVariance,
    /// Functions that see the order of peers, in frames that take peers together.
    PeersInFrames,
    /// IN, ANY, ALL and EXISTS of a subquery anywhere but in WHERE.
    SubqueryAsValue,
    /// Sums of floats beside DISTINCT aggregates.
    FloatSumBesideDistinct,
    /// `count(DISTINCT x)` of floats, which tells 0.0 from -0.0 here and there.
    DistinctFloats,
    /// Frames that begin after the first row, of aggregates that the planner has no sliding form of.
    SlidingFrames,
    /// LIMIT of rows that are ordered by structs.
    StructLimit,
    /// Arithmetic with floats that may give a NaN with a sign.
    SignedNan,
}

/// Why generated queries avoid something. Mended ones are removed.
pub const KNOWN: &[(Known, &str)] = &[
    (Known::OuterUsing, "the merged column is the left one alone"),
    (Known::NotInBelowOr, "a NULL in the subquery doesn't count there"),
    (Known::FloatVariance, "summed in floating point, so that the last digits depend on the order of rows"),
    (Known::PeersInFrames, "the order among peers is left open"),
    (Known::SubqueryAsValue, "refused by the planner"),
    (Known::FloatSumBesideDistinct, "rounded once for each distinct value"),
    (Known::DistinctFloats, "0.0 and -0.0 are two values to some counts"),
    (Known::SlidingFrames, "refused while they run, or never where there are no rows"),
    (Known::StructLimit, "over grouped rows, which ones are taken changes from run to run"),
    (Known::SignedNan, "sorts below all numbers"),
];

impl Known {
    /// Whether it is to be avoided.
    pub fn is_avoided(self) -> bool {
        KNOWN.iter().any(|(known, _)| *known == self)
    }
}
