//! The types of a range's bounds, and the types of ranges over them.

use arrow::datatypes::{DataType, FieldRef, TimeUnit};

use super::Mark;
use crate::error::{Error, Result};
use crate::sqlstate;

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
pub(in crate::functions) const TYPES: [(Mark, Mark, Subtype); 6] = [
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
    pub(in crate::functions) fn arrow(self) -> DataType {
        match self {
            Subtype::Int4 => DataType::Int32,
            Subtype::Int8 => DataType::Int64,
            Subtype::Numeric => DataType::Decimal128(38, 10),
            Subtype::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Subtype::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Subtype::Date => DataType::Date32,
        }
    }

    /// True if values have a next one: a range then has an inclusive lower and an exclusive upper bound.
    pub(in crate::functions) fn is_discrete(self) -> bool {
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

/// Returns the function that returns a value of a type from its key; none if the type is no range.
pub(in crate::functions) fn of_key(mark: Mark) -> Option<&'static str> {
    Some(match mark {
        Mark::Int4range => "int4range_of_key",
        Mark::Int8range => "int8range_of_key",
        Mark::Numrange => "numrange_of_key",
        Mark::Tsrange => "tsrange_of_key",
        Mark::Tstzrange => "tstzrange_of_key",
        Mark::Daterange => "daterange_of_key",
        Mark::Int4multirange => "int4multirange_of_key",
        Mark::Int8multirange => "int8multirange_of_key",
        Mark::Nummultirange => "nummultirange_of_key",
        Mark::Tsmultirange => "tsmultirange_of_key",
        Mark::Tstzmultirange => "tstzmultirange_of_key",
        Mark::Datemultirange => "datemultirange_of_key",
        _ => return None,
    })
}

/// Fails if arguments are ranges of different types, or of others than a function expects.
pub(super) fn refuse_mixed(
    name: &str,
    expected: impl Iterator<Item = Option<Mark>>,
    fields: &[FieldRef],
) -> Result<()> {
    let marks = || fields.iter().filter_map(|field| Mark::of(field)).filter(|mark| mark.is_range());
    let mut subtypes = marks().filter_map(Subtype::of);
    let first = subtypes.next();
    let differ = subtypes.any(|other| Some(other) != first);
    let mut pairs = marks().zip(expected.flatten());
    if !differ && !pairs.any(|(found, expected)| expected.is_range() && found != expected) {
        return Ok(());
    }
    let types: Vec<&str> = marks().map(Mark::name).collect();
    Err(Error::invalid(format!("function {name}({}) does not exist", types.join(", ")))
        .hint("Its arguments are ranges of one type. Cast them.")
        .code(sqlstate::UNDEFINED_FUNCTION))
}
