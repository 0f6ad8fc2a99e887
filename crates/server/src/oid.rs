//! Maps Arrow types to PostgreSQL types.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, IntervalUnit, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use millstream_engine::{as_shown, is_of_catalog, postgres_type};

use crate::geometry::Geometry;
use crate::message::Format;
use crate::ranges::Subtype;

/// A column as a client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) format: Format,
    /// Maximum characters of a VARCHAR(n); `None` for other types.
    pub(crate) length_max: Option<i32>,
}

/// The OID of VARCHAR, whose values are those of TEXT.
pub(crate) const VARCHAR: u32 = 1043;

/// A PostgreSQL type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    /// The OID of an object in PostgreSQL's catalog.
    Oid,
    Float4,
    Float8,
    /// Precision and scale, if they are bounded.
    Numeric(Option<(u8, i8)>),
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Inet,
    Cidr,
    Macaddr,
    Macaddr8,
    Range(Subtype),
    Multirange(Subtype),
    Tsvector,
    Tsquery,
    Geometric(Geometry),
    Json,
    Jsonb,
    /// BIT with its length, unless it is unknown.
    Bit(Option<i32>),
    /// BIT VARYING with its largest length, unless it has none.
    Varbit(Option<i32>),
    Xml,
    /// An array of values of one scalar type.
    Array(Box<Kind>),
}

/// Each scalar type with its OID and that of its arrays.
const OIDS: &[(Kind, u32, u32)] = &[
    (Kind::Bool, 16, 1000),
    (Kind::Int2, 21, 1005),
    (Kind::Int4, 23, 1007),
    (Kind::Int8, 20, 1016),
    (Kind::Oid, 26, 1028),
    (Kind::Float4, 700, 1021),
    (Kind::Float8, 701, 1022),
    (Kind::Numeric(None), 1700, 1231),
    (Kind::Text, 25, 1009),
    (Kind::Bytea, 17, 1001),
    (Kind::Date, 1082, 1182),
    (Kind::Time, 1083, 1183),
    (Kind::Timestamp, 1114, 1115),
    (Kind::Timestamptz, 1184, 1185),
    (Kind::Interval, 1186, 1187),
    (Kind::Uuid, 2950, 2951),
    (Kind::Inet, 869, 1041),
    (Kind::Cidr, 650, 651),
    (Kind::Macaddr, 829, 1040),
    (Kind::Macaddr8, 774, 775),
    (Kind::Range(Subtype::Int4), 3904, 3905),
    (Kind::Range(Subtype::Int8), 3926, 3927),
    (Kind::Range(Subtype::Numeric), 3906, 3907),
    (Kind::Range(Subtype::Timestamp), 3908, 3909),
    (Kind::Range(Subtype::Timestamptz), 3910, 3911),
    (Kind::Range(Subtype::Date), 3912, 3913),
    (Kind::Multirange(Subtype::Int4), 4451, 6150),
    (Kind::Multirange(Subtype::Int8), 4536, 6157),
    (Kind::Multirange(Subtype::Numeric), 4532, 6151),
    (Kind::Multirange(Subtype::Timestamp), 4533, 6152),
    (Kind::Multirange(Subtype::Timestamptz), 4534, 6153),
    (Kind::Multirange(Subtype::Date), 4535, 6155),
    (Kind::Tsvector, 3614, 3643),
    (Kind::Tsquery, 3615, 3645),
    (Kind::Geometric(Geometry::Point), 600, 1017),
    (Kind::Geometric(Geometry::Lseg), 601, 1018),
    (Kind::Geometric(Geometry::Path), 602, 1019),
    (Kind::Geometric(Geometry::Box), 603, 1020),
    (Kind::Geometric(Geometry::Polygon), 604, 1027),
    (Kind::Geometric(Geometry::Line), 628, 629),
    (Kind::Geometric(Geometry::Circle), 718, 719),
    (Kind::Json, 114, 199),
    (Kind::Jsonb, 3802, 3807),
    (Kind::Bit(None), 1560, 1561),
    (Kind::Varbit(None), 1562, 1563),
    (Kind::Xml, 142, 143),
];

/// Parameter types that are treated as another type: unknown, name, "char", character, varchar, and
/// arrays of name, varchar and character.
const ALIASES: &[(u32, u32)] = &[
    (705, 25),
    (19, 25),
    (18, 25),
    (1042, 25),
    (1043, 25),
    (2278, 25),
    (1003, 1009),
    (1015, 1009),
    (1014, 1009),
];

impl Kind {
    /// Returns the PostgreSQL type of a field.
    pub(crate) fn of(field: &Field) -> Kind {
        match postgres_type(field) {
            (2950, _) => Kind::Uuid,
            (869, _) => Kind::Inet,
            (650, _) => Kind::Cidr,
            (829, _) => Kind::Macaddr,
            (774, _) => Kind::Macaddr8,
            (3614, _) => Kind::Tsvector,
            (3615, _) => Kind::Tsquery,
            (600, _) => Kind::Geometric(Geometry::Point),
            (601, _) => Kind::Geometric(Geometry::Lseg),
            (602, _) => Kind::Geometric(Geometry::Path),
            (603, _) => Kind::Geometric(Geometry::Box),
            (604, _) => Kind::Geometric(Geometry::Polygon),
            (628, _) => Kind::Geometric(Geometry::Line),
            (718, _) => Kind::Geometric(Geometry::Circle),
            (114, _) => Kind::Json,
            (3802, _) => Kind::Jsonb,
            (1560, length) => Kind::Bit(i32::try_from(length).ok().filter(|length| *length >= 0)),
            (1562, length) => Kind::Varbit(i32::try_from(length).ok().filter(|length| *length >= 0)),
            (142, _) => Kind::Xml,
            (oid, _) => match u32::try_from(oid).ok().and_then(Kind::from_oid) {
                Some(kind @ (Kind::Range(_) | Kind::Multirange(_))) => kind,
                _ => Kind::of_type(field.data_type()),
            },
        }
    }

    /// Returns the PostgreSQL type of a field in a result of PostgreSQL's catalog.
    pub(crate) fn of_catalog(data_type: &DataType) -> Kind {
        match data_type {
            DataType::UInt32 => Kind::Oid,
            DataType::List(item) if item.data_type() == &DataType::UInt32 => Kind::Array(Box::new(Kind::Oid)),
            other => Kind::of_type(other),
        }
    }

    /// Returns the PostgreSQL type of an Arrow type. Types that PostgreSQL lacks (structs, maps, lists of them) are JSON. Lists of lists are arrays
    /// of several dimensions.
    pub(crate) fn of_type(data_type: &DataType) -> Kind {
        match data_type {
            DataType::Boolean => Kind::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Kind::Int2,
            DataType::UInt16 | DataType::Int32 => Kind::Int4,
            DataType::UInt32 | DataType::Int64 => Kind::Int8,
            DataType::UInt64 => Kind::Numeric(Some((20, 0))),
            DataType::Float16 | DataType::Float32 => Kind::Float4,
            DataType::Float64 => Kind::Float8,
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => Kind::Numeric(Some((*precision, *scale))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Kind::Text,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Kind::Bytea,
            DataType::Date32 | DataType::Date64 => Kind::Date,
            DataType::Time32(_) | DataType::Time64(_) => Kind::Time,
            DataType::Timestamp(_, None) => Kind::Timestamp,
            DataType::Timestamp(_, Some(_)) => Kind::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => Kind::Interval,
            DataType::Dictionary(_, values) => Kind::of_type(values),
            DataType::RunEndEncoded(_, values) => Kind::of(values),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => match Kind::of(item) {
                Kind::Json if item.data_type().is_nested() => Kind::Json,
                Kind::Numeric(_) => Kind::Array(Box::new(Kind::Numeric(None))),
                Kind::Bit(_) => Kind::Array(Box::new(Kind::Bit(None))),
                Kind::Varbit(_) => Kind::Array(Box::new(Kind::Varbit(None))),
                item => Kind::Array(Box::new(item)),
            },
            DataType::Struct(_) | DataType::Map(_, _) | DataType::Union(_, _) => Kind::Json,
        }
    }

    /// Returns the kind with this OID in PostgreSQL, if it is supported.
    pub(crate) fn from_oid(oid: u32) -> Option<Kind> {
        let oid = ALIASES.iter().find(|(alias, _)| *alias == oid).map_or(oid, |(_, oid)| *oid);
        OIDS.iter().find_map(|(kind, own, array)| {
            if *own == oid {
                return Some(kind.clone());
            }
            (*array == oid).then(|| Kind::Array(Box::new(kind.clone())))
        })
    }

    /// Returns the OID in PostgreSQL.
    pub(crate) fn oid(&self) -> u32 {
        let mut plain = self;
        while let Kind::Array(item) = plain {
            plain = item;
        }
        plain = match plain {
            Kind::Numeric(_) => &Kind::Numeric(None),
            Kind::Bit(_) => &Kind::Bit(None),
            Kind::Varbit(_) => &Kind::Varbit(None),
            other => other,
        };
        let found = OIDS.iter().find(|(kind, _, _)| kind == plain);
        found.map_or(25, |(_, oid, array)| if matches!(self, Kind::Array(_)) { *array } else { *oid })
    }

    /// Returns the bytes of a value; -1 if they vary.
    pub(crate) fn size(&self) -> i16 {
        match self {
            Kind::Bool => 1,
            Kind::Int2 => 2,
            Kind::Int4 | Kind::Oid | Kind::Float4 | Kind::Date => 4,
            Kind::Int8 | Kind::Float8 | Kind::Time | Kind::Timestamp | Kind::Timestamptz => 8,
            Kind::Interval | Kind::Uuid => 16,
            Kind::Macaddr => 6,
            Kind::Macaddr8 => 8,
            Kind::Geometric(found) => found.size(),
            _ => -1,
        }
    }

    /// Returns PostgreSQL's type modifier: the bounds of a numeric, the length of a bit string; -1 for other types.
    pub(crate) fn modifier(&self) -> i32 {
        match self {
            Kind::Numeric(Some((precision, scale))) if *scale >= 0 => {
                ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
            }
            Kind::Bit(Some(length)) | Kind::Varbit(Some(length)) => *length,
            _ => -1,
        }
    }

    /// Returns the Arrow type that values are read from, which is also the type of parameters.
    pub(crate) fn arrow(&self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 => DataType::Int64,
            Kind::Oid => DataType::UInt32,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            Kind::Numeric(Some((precision, scale))) if *precision <= 38 => {
                DataType::Decimal128(*precision, *scale)
            }
            Kind::Numeric(Some((precision, scale))) => DataType::Decimal256(*precision, *scale),
            Kind::Numeric(None) => DataType::Decimal128(38, 10),
            Kind::Text | Kind::Uuid | Kind::Json | Kind::Jsonb | Kind::Xml => DataType::Utf8,
            Kind::Inet | Kind::Cidr | Kind::Macaddr | Kind::Macaddr8 => DataType::Utf8,
            Kind::Range(_) | Kind::Multirange(_) => DataType::Utf8,
            Kind::Tsvector | Kind::Tsquery => DataType::Utf8,
            Kind::Geometric(_) | Kind::Bit(_) | Kind::Varbit(_) => DataType::Utf8,
            Kind::Bytea => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Kind::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Kind::Array(item) => DataType::List(Arc::new(Field::new_list_field(item.arrow(), true))),
        }
    }

    /// Converts an array to one of the few types with a writer. Times are cut to microseconds.
    pub(crate) fn canonical(&self, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let target = match (self, array.data_type()) {
            // JSON is made from any type; UUIDs are bytes or text.
            (Kind::Json | Kind::Jsonb | Kind::Uuid, _) => return unpacked(array),
            (Kind::Inet | Kind::Cidr | Kind::Macaddr | Kind::Macaddr8, _) => return unpacked(array),
            (Kind::Range(_) | Kind::Multirange(_), _) => return unpacked(array),
            (Kind::Tsvector | Kind::Tsquery, _) => return unpacked(array),
            (Kind::Geometric(_) | Kind::Bit(_) | Kind::Varbit(_) | Kind::Xml, _) => return unpacked(array),
            (Kind::Numeric(_), DataType::UInt64) => DataType::Decimal128(20, 0),
            (
                Kind::Numeric(_),
                DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale),
            ) => DataType::Decimal128(*precision, *scale),
            (Kind::Numeric(_), DataType::Decimal128(_, _) | DataType::Decimal256(_, _)) => {
                return Ok(array.clone());
            }
            // The zone of the type is that in which times are shown.
            (Kind::Timestamptz, DataType::Timestamp(_, zone)) => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            (Kind::Interval, DataType::Duration(_)) => DataType::Duration(TimeUnit::Microsecond),
            (Kind::Text, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
                return Ok(array.clone());
            }
            // Items are made canonical one array at a time.
            (Kind::Array(_), DataType::List(_)) => return Ok(array.clone()),
            (Kind::Array(_), data_type) => return as_list(array, data_type),
            (kind, _) => kind.arrow(),
        };
        if array.data_type() == &target {
            return Ok(array.clone());
        }
        cast_with_options(array, &target, &CastOptions { safe: false, ..CastOptions::default() })
    }
}

/// Resolves a dictionary or runs.
fn unpacked(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, values) => arrow::compute::cast(array, values),
        DataType::RunEndEncoded(_, values) => arrow::compute::cast(array, values.data_type()),
        _ => Ok(array.clone()),
    }
}

/// Converts lists of any kind to lists with 32-bit offsets.
fn as_list(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let item = match data_type {
        DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => item,
        _ => {
            let array = unpacked(array)?;
            return match array.data_type() {
                DataType::List(_) => Ok(array),
                other if other == data_type => {
                    Err(ArrowError::InvalidArgumentError(format!("lists were expected, {other} was found")))
                }
                other => as_list(&array, &other.clone()),
            };
        }
    };
    arrow::compute::cast(array, &DataType::List(item.clone()))
}

/// Returns the columns of a result, in the formats that the client requested.
pub(crate) fn columns(schema: &SchemaRef, formats: &[Format]) -> Vec<Column> {
    let of_catalog = is_of_catalog(schema);
    let column = |(place, field): (usize, &Arc<Field>)| Column {
        name: field.name().clone(),
        kind: if of_catalog { Kind::of_catalog(field.data_type()) } else { Kind::of(field) },
        format: crate::message::format_at(formats, place),
        length_max: match postgres_type(field) {
            (oid, modifier) if oid == i64::from(VARCHAR) => i32::try_from(modifier - 4).ok(),
            _ => None,
        },
    };
    as_shown(schema).fields().iter().enumerate().map(column).collect()
}

/// Returns the items of lists.
pub(crate) fn items(array: &ArrayRef) -> &ArrayRef {
    array.as_list::<i32>().values()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_postgres() {
        let oid = |data_type: DataType| Kind::of_type(&data_type).oid();
        assert_eq!(oid(DataType::Int64), 20);
        assert_eq!(oid(DataType::Utf8View), 25);
        assert_eq!(oid(DataType::Decimal128(10, 2)), 1700);
        assert_eq!(oid(DataType::new_list(DataType::Decimal128(10, 2), true)), 1231);
        assert_eq!(oid(DataType::new_list(DataType::Int32, true)), 1007);
        assert_eq!(oid(DataType::new_list(DataType::new_list(DataType::Int32, true), true)), 1007);
        assert_eq!(Kind::Numeric(Some((10, 2))).modifier(), 655_366);
        for (kind, oid, array) in OIDS {
            assert_eq!(Kind::from_oid(*oid).as_ref(), Some(kind));
            assert_eq!(Kind::from_oid(*array), Some(Kind::Array(Box::new(kind.clone()))));
            assert_eq!(kind.oid(), *oid);
        }
        assert_eq!(Kind::from_oid(1043), Some(Kind::Text));
        assert_eq!(Kind::from_oid(790), None);
    }
}
