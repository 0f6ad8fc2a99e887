//! The types of a range's bounds, and the types of ranges over them.

use arrow::datatypes::{DataType, TimeUnit};

use crate::functions::marks::Mark;
use crate::planner::UTC;

/// The type of a range's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subtype {
    Int4,
    Int8,
    Numeric,
    Timestamp,
    Timestamptz,
    Date,
}

/// The types of ranges and multiranges with the type of their bounds.
pub(super) const TYPES: [(Mark, Mark, Subtype); 6] = [
    (Mark::Int4range, Mark::Int4multirange, Subtype::Int4),
    (Mark::Int8range, Mark::Int8multirange, Subtype::Int8),
    (Mark::Numrange, Mark::Nummultirange, Subtype::Numeric),
    (Mark::Tsrange, Mark::Tsmultirange, Subtype::Timestamp),
    (Mark::Tstzrange, Mark::Tstzmultirange, Subtype::Timestamptz),
    (Mark::Daterange, Mark::Datemultirange, Subtype::Date),
];

impl Subtype {
    /// Returns the type of the bounds of a range or a multirange; none for another type.
    pub(crate) fn of(mark: Mark) -> Option<Subtype> {
        let found = TYPES.iter().find(|(range, multirange, _)| *range == mark || *multirange == mark);
        found.map(|(.., subtype)| *subtype)
    }

    /// Returns the name of the type in PostgreSQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subtype::Int4 => "integer",
            Subtype::Int8 => "bigint",
            Subtype::Numeric => "numeric",
            Subtype::Timestamp => "timestamp",
            Subtype::Timestamptz => "timestamp with time zone",
            Subtype::Date => "date",
        }
    }

    /// Returns the Arrow type of a bound.
    pub(super) fn arrow(self) -> DataType {
        match self {
            Subtype::Int4 => DataType::Int32,
            Subtype::Int8 => DataType::Int64,
            Subtype::Numeric => DataType::Decimal128(38, 10),
            Subtype::Timestamp => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Subtype::Timestamptz => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
            Subtype::Date => DataType::Date32,
        }
    }

    /// True if values have a next one: a range then has an inclusive lower and an exclusive upper bound.
    pub(super) fn is_discrete(self) -> bool {
        matches!(self, Subtype::Int4 | Subtype::Int8 | Subtype::Date)
    }

    /// True if a value of an Arrow type can be a bound, or be compared with one.
    pub(crate) fn accepts(self, found: &DataType) -> bool {
        let is_date = matches!(found, DataType::Date32 | DataType::Date64);
        match self {
            Subtype::Int4 | Subtype::Int8 => found.is_integer(),
            Subtype::Numeric => found.is_numeric(),
            Subtype::Timestamp => is_date || matches!(found, DataType::Timestamp(_, None)),
            Subtype::Timestamptz => is_date || matches!(found, DataType::Timestamp(..)),
            Subtype::Date => is_date,
        }
    }
}

impl Mark {
    /// Returns the type of multiranges over a range; of a multirange its own.
    pub(crate) fn multirange(self) -> Option<Mark> {
        let found = TYPES.iter().find(|(range, multirange, _)| *range == self || *multirange == self);
        found.map(|(_, multirange, _)| *multirange)
    }

    /// Returns the type of the ranges of a multirange; of a range its own.
    pub(crate) fn range(self) -> Option<Mark> {
        let found = TYPES.iter().find(|(range, multirange, _)| *range == self || *multirange == self);
        found.map(|(range, ..)| *range)
    }

    /// True for ranges and multiranges.
    pub(crate) fn is_range(self) -> bool {
        self.range().is_some()
    }

    /// True for multiranges.
    pub(crate) fn is_multirange(self) -> bool {
        self.multirange() == Some(self)
    }
}
