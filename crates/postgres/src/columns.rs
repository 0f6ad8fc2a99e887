//! Maps the relation's columns to PostgreSQL's types.

use arrow::datatypes::{DataType, Field, TimeUnit};
use millstream_connect::{Error, Result};
use millstream_delta::{BitType, declared_type, sql_type_of};

/// The PostgreSQL type of a column's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    /// Whole numbers of this number of bytes.
    Integer(u8),
    Real,
    Double,
    /// Precision and scale.
    Numeric(u8, i8),
    Text,
    Uuid,
    /// A network address, a shape, XML, or a value of full text search, with the name of its type.
    Named(&'static str),
    /// A range or multirange: the names of the types that hold its values, of which the first is its own.
    Range(&'static [&'static str; 3]),
    Bits(BitType),
    /// JSON as it is written, or types that PostgreSQL lacks: structs, maps, lists of lists.
    Json,
    Bytea,
    Date,
    /// The next three have the number of digits of a second.
    Time(u8),
    Timestamp(u8),
    Timestamptz(u8),
    Interval,
    Array(Box<Kind>),
}

/// A column of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// Its type as PostgreSQL displays it.
    pub(crate) shown: String,
    /// The type for casts from text, without a length: a cast to a type with a length would cut a long text
    /// silently.
    pub(crate) cast: String,
    /// The name of its type; for a domain, of its base type.
    pub(crate) type_name: String,
    /// True if that is an enum.
    pub(crate) is_enum: bool,
    /// The name of the item type, if it is an array.
    pub(crate) item: Option<String>,
    /// The type modifier, -1 if the type is not bounded.
    pub(crate) modifier: i32,
    /// True if inserts must give a value: NOT NULL, without a default.
    pub(crate) is_needed: bool,
    /// True if PostgreSQL always generates the values.
    pub(crate) is_generated: bool,
}

/// The types of such values.
const NAMED: [&str; 14] = [
    "inet", "cidr", "macaddr", "macaddr8", "tsvector", "tsquery", "point", "line", "lseg", "box", "path",
    "polygon", "circle", "xml",
];

/// The types of ranges and multiranges, each with the types that hold its values.
static RANGES: [[&str; 3]; 12] = [
    ["int4range", "text", "varchar"],
    ["int8range", "text", "varchar"],
    ["numrange", "text", "varchar"],
    ["tsrange", "text", "varchar"],
    ["tstzrange", "text", "varchar"],
    ["daterange", "text", "varchar"],
    ["int4multirange", "text", "varchar"],
    ["int8multirange", "text", "varchar"],
    ["nummultirange", "text", "varchar"],
    ["tsmultirange", "text", "varchar"],
    ["tstzmultirange", "text", "varchar"],
    ["datemultirange", "text", "varchar"],
];

impl Kind {
    /// Returns the type of a column. Fails for types that can't be written.
    pub(crate) fn of(field: &Field) -> Result<Kind> {
        match declared_type(field) {
            Some("UUID") => return Ok(Kind::Uuid),
            Some("JSON" | "JSONB") => return Ok(Kind::Json),
            Some(spelling) => {
                if let Some(of) = BitType::spelled(spelling) {
                    return Ok(Kind::Bits(of));
                }
                let is_type = |name: &&&str| name.eq_ignore_ascii_case(spelling);
                if let Some(name) = NAMED.iter().find(is_type) {
                    return Ok(Kind::Named(name));
                }
                let is_range = |names: &&[&str; 3]| names[0].eq_ignore_ascii_case(spelling);
                if let Some(names) = RANGES.iter().find(is_range) {
                    return Ok(Kind::Range(names));
                }
            }
            _ => {}
        }
        Ok(match field.data_type() {
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Kind::Integer(2),
            DataType::UInt16 | DataType::Int32 => Kind::Integer(4),
            DataType::UInt32 | DataType::Int64 => Kind::Integer(8),
            DataType::UInt64 => Kind::Numeric(20, 0),
            DataType::Float16 | DataType::Float32 => Kind::Real,
            DataType::Float64 => Kind::Double,
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => Kind::Numeric(*precision, *scale),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Kind::Text,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Kind::Bytea,
            DataType::Date32 | DataType::Date64 => Kind::Date,
            DataType::Time32(unit) | DataType::Time64(unit) => Kind::Time(digits(*unit)),
            DataType::Timestamp(unit, None) => Kind::Timestamp(digits(*unit)),
            DataType::Timestamp(unit, Some(_)) => Kind::Timestamptz(digits(*unit)),
            DataType::Interval(_) | DataType::Duration(_) => Kind::Interval,
            DataType::Dictionary(_, values) => Kind::of(&Field::new(field.name(), (**values).clone(), true))?,
            DataType::RunEndEncoded(_, values) => {
                Kind::of(&Field::new(field.name(), values.data_type().clone(), true))?
            }
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => match Kind::of(item)? {
                // All inner arrays of a PostgreSQL array must have one length.
                Kind::Array(_) => Kind::Json,
                Kind::Json if item.data_type().is_nested() => Kind::Json,
                item => Kind::Array(Box::new(item)),
            },
            DataType::Struct(_) | DataType::Map(_, _) => Kind::Json,
            DataType::Union(_, _) => {
                return Err(Error::Invalid(format!(
                    "column '{}' is {}, for which connector 'postgres' has no type: cast it in a query",
                    field.name(),
                    sql_type_of(field)
                )));
            }
        })
    }

    /// Returns the type for CREATE TABLE.
    pub(crate) fn spelling(&self) -> String {
        match self {
            Kind::Boolean => "boolean".into(),
            Kind::Integer(2) => "smallint".into(),
            Kind::Integer(4) => "integer".into(),
            Kind::Integer(_) => "bigint".into(),
            Kind::Real => "real".into(),
            Kind::Double => "double precision".into(),
            Kind::Numeric(precision, scale) => match u8::try_from(*scale) {
                Ok(scale) => format!("numeric({},{scale})", precision.max(&scale)),
                // PostgreSQL supports negative scales only since recently.
                Err(_) => format!("numeric({},0)", i32::from(*precision) - i32::from(*scale)),
            },
            Kind::Text => "text".into(),
            Kind::Uuid => "uuid".into(),
            Kind::Named(name) => (*name).into(),
            Kind::Range(names) => names[0].into(),
            Kind::Bits(of) => of.to_string().to_lowercase(),
            Kind::Json => "json".into(),
            Kind::Bytea => "bytea".into(),
            Kind::Date => "date".into(),
            Kind::Time(_) => "time".into(),
            Kind::Timestamp(_) => "timestamp".into(),
            Kind::Timestamptz(_) => "timestamptz".into(),
            Kind::Interval => "interval".into(),
            Kind::Array(item) => format!("{}[]", item.spelling()),
        }
    }

    /// Returns the names of the types that hold all of its values.
    fn names(&self) -> &'static [&'static str] {
        match self {
            Kind::Boolean => &["bool"],
            Kind::Integer(2) => &["int2", "int4", "int8", "numeric", "float4", "float8"],
            Kind::Integer(4) => &["int4", "int8", "numeric", "float8"],
            Kind::Integer(_) => &["int8", "numeric"],
            Kind::Real => &["float4", "float8"],
            Kind::Double => &["float8"],
            Kind::Numeric(..) => &["numeric"],
            // Invalid JSON or UUIDs are noticed when the rows arrive. Types that treat different texts as
            // equal (citext, char(n)) or cut them (name) are left out.
            Kind::Text => &["text", "varchar", "json", "jsonb", "uuid", "xml"],
            Kind::Uuid => &["uuid", "text", "varchar"],
            Kind::Named("inet") => &["inet", "text", "varchar"],
            Kind::Named("cidr") => &["cidr", "inet", "text", "varchar"],
            Kind::Named("macaddr") => &["macaddr", "macaddr8", "text", "varchar"],
            Kind::Named("tsvector") => &["tsvector", "text", "varchar"],
            Kind::Named("tsquery") => &["tsquery", "text", "varchar"],
            Kind::Named("macaddr8") => &["macaddr8", "text", "varchar"],
            Kind::Named("point") => &["point", "text", "varchar"],
            Kind::Named("line") => &["line", "text", "varchar"],
            Kind::Named("lseg") => &["lseg", "text", "varchar"],
            Kind::Named("box") => &["box", "text", "varchar"],
            Kind::Named("path") => &["path", "text", "varchar"],
            Kind::Named("polygon") => &["polygon", "text", "varchar"],
            Kind::Named("xml") => &["xml", "text", "varchar"],
            Kind::Named("circle") => &["circle", "text", "varchar"],
            Kind::Named(_) => &["text", "varchar"],
            Kind::Range(names) => *names,
            Kind::Bits(BitType { is_varying: true, .. }) => &["varbit", "text", "varchar"],
            Kind::Bits(_) => &["bit", "varbit", "text", "varchar"],
            Kind::Json => &["json", "jsonb", "text", "varchar"],
            Kind::Bytea => &["bytea"],
            Kind::Date => &["date"],
            Kind::Time(_) => &["time"],
            Kind::Timestamp(_) => &["timestamp"],
            Kind::Timestamptz(_) => &["timestamptz"],
            Kind::Interval => &["interval"],
            Kind::Array(_) => &[],
        }
    }

    /// Returns true if a column of the table can hold its values unchanged.
    pub(crate) fn fits(&self, column: &TableColumn) -> bool {
        if let Kind::Array(item) = self {
            return column.item.as_deref().is_some_and(|name| item.names().contains(&name))
                && item.fits_modifier(column.modifier, column.item.as_deref().unwrap_or_default());
        }
        let named = self.names().contains(&column.type_name.as_str());
        (named || (*self == Kind::Text && column.is_enum))
            && self.fits_modifier(column.modifier, &column.type_name)
    }

    /// Returns true if the type modifier rounds no value. A text that is too long is rejected when it
    /// arrives.
    fn fits_modifier(&self, modifier: i32, type_name: &str) -> bool {
        if modifier < 0 {
            return true;
        }
        match (self, type_name) {
            (Kind::Time(digits) | Kind::Timestamp(digits) | Kind::Timestamptz(digits), _) => {
                modifier >= i32::from(*digits)
            }
            (Kind::Interval, _) => false,
            (Kind::Bits(of), "bit" | "varbit") => {
                match of.length.and_then(|length| i32::try_from(length).ok()) {
                    Some(length) if type_name == "bit" => modifier == length,
                    Some(length) => modifier >= length,
                    None => false,
                }
            }
            (_, "numeric") => {
                let (precision, scale) = numeric_modifier(modifier);
                let (own, own_scale) = match self {
                    Kind::Numeric(precision, scale) => (i32::from(*precision), i32::from(*scale)),
                    Kind::Integer(2) => (5, 0),
                    Kind::Integer(4) => (10, 0),
                    _ => (19, 0),
                };
                scale >= own_scale && precision - scale >= own - own_scale
            }
            _ => true,
        }
    }
}

/// Returns the precision and the scale of a `numeric(p,s)`, which PostgreSQL packs into the modifier.
fn numeric_modifier(modifier: i32) -> (i32, i32) {
    let packed = modifier - 4;
    // The scale has eleven bits with a sign.
    (packed >> 16 & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024)
}

/// Returns the relevant digits of a second, at most PostgreSQL's six.
fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_name: &str, modifier: i32) -> TableColumn {
        let (type_name, item) = match type_name.strip_suffix("[]") {
            Some(item) => (format!("_{item}"), Some(item.to_string())),
            None => (type_name.to_string(), None),
        };
        TableColumn {
            name: "a".into(),
            shown: String::new(),
            cast: String::new(),
            is_enum: type_name == "mood",
            type_name,
            item,
            modifier,
            is_needed: false,
            is_generated: false,
        }
    }

    #[test]
    fn a_column_holds_what_is_no_wider() {
        let check = |data_type: DataType, type_name: &str, modifier: i32, expect: bool| {
            let kind = Kind::of(&Field::new("a", data_type, true)).unwrap();
            assert_eq!(kind.fits(&column(type_name, modifier)), expect, "{kind:?} in {type_name} {modifier}");
        };
        let numeric = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        check(DataType::Int32, "int8", -1, true);
        check(DataType::Int64, "int4", -1, false);
        check(DataType::Int64, "numeric", numeric(18, 0), false);
        check(DataType::Int64, "numeric", numeric(19, 0), true);
        check(DataType::Decimal128(10, 2), "numeric", numeric(12, 4), true);
        check(DataType::Decimal128(10, 2), "numeric", numeric(11, 4), false);
        check(DataType::Decimal128(10, 2), "numeric", numeric(10, 1), false);
        check(DataType::Decimal128(10, 2), "numeric", numeric(10, -2), false);
        check(DataType::Decimal256(76, 10), "numeric", -1, true);
        check(DataType::Float64, "float4", -1, false);
        check(DataType::Utf8View, "varchar", 14, true);
        check(DataType::Utf8View, "mood", -1, true);
        check(DataType::Utf8View, "int4", -1, false);
        check(DataType::Timestamp(TimeUnit::Nanosecond, None), "timestamp", 3, false);
        check(DataType::Timestamp(TimeUnit::Millisecond, None), "timestamp", 3, true);
        check(DataType::Timestamp(TimeUnit::Millisecond, None), "timestamptz", -1, false);
        check(DataType::new_list(DataType::Int32, true), "int4[]", -1, true);
        check(DataType::new_list(DataType::Int32, true), "int4", -1, false);
        check(DataType::new_list(DataType::new_list(DataType::Int32, true), true), "jsonb", -1, true);
    }

    #[test]
    fn every_kind_has_a_type_that_it_fits() {
        let check = |data_type: DataType, expect: &str| {
            let kind = Kind::of(&Field::new("a", data_type, true)).unwrap();
            assert_eq!(kind.spelling(), expect);
        };
        check(DataType::UInt32, "bigint");
        check(DataType::UInt64, "numeric(20,0)");
        check(DataType::Decimal128(5, -2), "numeric(7,0)");
        check(DataType::Decimal128(2, 4), "numeric(4,4)");
        check(DataType::new_list(DataType::Date32, true), "date[]");
        check(DataType::Struct(vec![Field::new("x", DataType::Int8, true)].into()), "json");
    }
}
