//! The types that SQL's type names stand for: PostgreSQL's names, and the most common of other systems.
//!
//! Some names say more than Arrow's types: `UUID`, `JSON`, `INET` and `VARCHAR(n)` are text that is checked on write.
//! A column keeps such a name in its metadata ([`millstream_delta::declared`]).
//!
//! Deliberately absent: MONEY, TIMETZ and user-defined domains, which are refused by name.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType as SqlType, ExactNumberInfo, IntervalFields, TimezoneInfo,
};
use millstream_delta::{BitType, declared};

use crate::compatibility_level::CompatibilityLevel;
use crate::error::{Error, Result};
use crate::functions::bits::value;
use crate::functions::marks::Mark;
use crate::functions::marks::enum_type::{RESOLVED, read_by};
use crate::suggestion;

/// Type names suggested for an unknown one.
const TYPES: [&str; 56] = [
    "boolean",
    "bool",
    "tinyint",
    "smallint",
    "int2",
    "int",
    "int4",
    "integer",
    "bigint",
    "int8",
    "int unsigned",
    "bigint unsigned",
    "real",
    "float4",
    "float",
    "float8",
    "double",
    "numeric",
    "decimal",
    "text",
    "varchar",
    "char",
    "string",
    "bytea",
    "uuid",
    "json",
    "jsonb",
    "xml",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "tsvector",
    "tsquery",
    "regconfig",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "bit",
    "varbit",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "interval",
    "array",
    "struct",
    "map",
    "double precision",
    "character varying",
    "float16",
    "tinyint unsigned",
];

/// The metadata of the type STRING in a cast as it was written. Elsewhere it is TEXT.
const STRING: &str = "millstream.string";

/// The most digits that a NUMERIC can have.
const DIGITS_MAX: u64 = 76;

/// Returns the error `type "x" not found`, with similar names.
pub(crate) fn unknown_type(written: &str) -> Error {
    let base = written.split(['(', '[', '<', ' ']).next().unwrap_or(written);
    Error::invalid(format!("type \"{written}\" not found")).maybe_hint(suggestion::hint(
        &base.to_lowercase(),
        "types",
        TYPES,
    ))
}

/// True if a type was written as STRING.
pub(crate) fn is_string(field: &Field) -> bool {
    field.metadata().contains_key(STRING)
}

/// Returns the type for which STRING stands, also within other types.
pub(crate) fn without_string(field: FieldRef) -> FieldRef {
    let inner = |field: &FieldRef| without_string(Arc::clone(field));
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::List(item) => DataType::List(inner(item)),
        other => other.clone(),
    };
    if !is_string(&field) && data_type == *field.data_type() {
        return field;
    }
    let mut field = Arc::unwrap_or_clone(field).with_data_type(data_type);
    field.metadata_mut().remove(STRING);
    Arc::new(field)
}

/// Resolves the types of SQL text, for columns and casts alike. Types of the user's session come first.
#[derive(Debug)]
pub(crate) struct Spellings {
    /// The type planner of the user's session.
    pub(crate) users: Option<Arc<dyn TypePlanner>>,
    /// The zone of a TIMESTAMPTZ.
    pub(crate) zone: Arc<str>,
    /// The meaning that SQL has.
    pub(crate) level: CompatibilityLevel,
}

impl TypePlanner for Spellings {
    fn plan_type_field(&self, sql_type: &SqlType) -> datafusion::error::Result<Option<FieldRef>> {
        if let Some(users) = &self.users
            && let Some(found) = users.plan_type_field(sql_type)?
        {
            return Ok(Some(found));
        }
        if self.level.has_postgres_numbers() && matches!(sql_type, SqlType::String(_)) {
            let marked = [(STRING.to_string(), String::new())].into();
            return Ok(Some(Arc::new(Field::new("", DataType::Utf8View, true).with_metadata(marked))));
        }
        let Some(data_type) = self.arrow_type(sql_type)? else { return Ok(None) };
        let field = Field::new("", data_type, true);
        Ok(Some(Arc::new(match Checked::of(sql_type) {
            Some(checked) => declared(field, &checked.to_string()),
            None => field,
        })))
    }
}

/// Types stored as text that restrict their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Values of a type in its canonical form.
    Marked(Mark),
    /// Bit strings of a length.
    Bits(BitType),
    /// Text of at most this many characters.
    Length(u64),
}

impl Checked {
    /// Returns the check that a type's name demands.
    pub(crate) fn of(sql_type: &SqlType) -> Option<Checked> {
        let length = |length: &Option<CharacterLength>, default: Option<u64>| match length {
            Some(CharacterLength::IntegerLength { length, .. }) => Some(Checked::Length(*length)),
            Some(CharacterLength::Max) => None,
            None => default.map(Checked::Length),
        };
        // A length that is too large is refused before it is used.
        let bits = |is_varying: bool, length: Option<u64>| {
            let length = length.map(|length| u32::try_from(length).unwrap_or(u32::MAX));
            Some(Checked::Bits(BitType { is_varying, length }))
        };
        match sql_type {
            SqlType::Uuid => Some(Checked::Marked(Mark::Uuid)),
            SqlType::JSON => Some(Checked::Marked(Mark::Json)),
            SqlType::JSONB => Some(Checked::Marked(Mark::Jsonb)),
            SqlType::Custom(name, modifiers) if name.to_string() == RESOLVED => {
                read_by(modifiers.first()?).map(|of| Checked::Marked(Mark::Enum(of)))
            }
            SqlType::TsVector => Some(Checked::Marked(Mark::Tsvector)),
            SqlType::TsQuery => Some(Checked::Marked(Mark::Tsquery)),
            SqlType::Bit(n) => bits(false, Some(n.unwrap_or(1))),
            SqlType::BitVarying(n) | SqlType::VarBit(n) => bits(true, *n),
            SqlType::Custom(name, modifiers) if modifiers.is_empty() && is_any_bit(&name.to_string()) => {
                bits(false, None)
            }
            SqlType::Custom(name, modifiers) if modifiers.is_empty() => {
                Mark::named(&type_word(&name.to_string())).map(Checked::Marked)
            }
            SqlType::Varchar(n) | SqlType::CharacterVarying(n) | SqlType::CharVarying(n) => length(n, None),
            SqlType::Nvarchar(n) => length(n, None),
            SqlType::Char(n) | SqlType::Character(n) => length(n, Some(1)),
            _ => None,
        }
    }

    /// Returns the check of a column's declared type.
    pub(crate) fn declared(field: &Field) -> Option<Checked> {
        let spelling = millstream_delta::declared_type(field)?;
        if let Some(of) = BitType::spelled(spelling) {
            return Some(Checked::Bits(of));
        }
        if let Some(mark) = Mark::spelled(spelling) {
            return Some(Checked::Marked(mark));
        }
        let digits = spelling.strip_prefix("VARCHAR(")?.strip_suffix(')')?;
        digits.parse().ok().map(Checked::Length)
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Checked::Marked(mark) => f.write_str(mark.type_name()),
            Checked::Bits(of) => of.fmt(f),
            Checked::Length(length) => write!(f, "VARCHAR({length})"),
        }
    }
}

impl Spellings {
    /// Returns the Arrow type of a name; none if DataFusion's own table of names has to resolve it.
    fn arrow_type(&self, sql_type: &SqlType) -> Result<Option<DataType>> {
        Ok(Some(match sql_type {
            SqlType::Varchar(_)
            | SqlType::Nvarchar(_)
            | SqlType::CharacterVarying(_)
            | SqlType::CharVarying(_)
            | SqlType::Character(_)
            | SqlType::Char(_)
            | SqlType::Clob(_)
            | SqlType::TinyText
            | SqlType::MediumText
            | SqlType::LongText
            | SqlType::Uuid
            | SqlType::JSON
            | SqlType::JSONB
            | SqlType::TsVector
            | SqlType::TsQuery => DataType::Utf8View,
            SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Blob(_) | SqlType::Bytes(_) => {
                DataType::Binary
            }
            SqlType::UTinyInt => DataType::UInt8,
            SqlType::USmallInt => DataType::UInt16,
            SqlType::UBigInt => DataType::UInt64,
            SqlType::Float(precision) => float(precision)?,
            SqlType::Double(_) => DataType::Float64,
            SqlType::Numeric(digits) | SqlType::Decimal(digits) | SqlType::Dec(digits) => numeric(digits)?,
            SqlType::Bit(length) | SqlType::BitVarying(length) | SqlType::VarBit(length) => {
                let name = if matches!(sql_type, SqlType::Bit(_)) { "bit" } else { "varbit" };
                length.map_or(Ok(1), |length| value::check_length(name, length))?;
                DataType::Utf8View
            }
            SqlType::Timestamp(..) | SqlType::Datetime(_) | SqlType::Time(..) | SqlType::Interval { .. } => {
                return self.time_type(sql_type);
            }
            SqlType::Array(_) | SqlType::Map(..) => return self.nested_type(sql_type),
            SqlType::Custom(name, modifiers) => return custom(&name.to_string(), modifiers),
            _ => return Ok(None),
        }))
    }

    fn time_type(&self, sql_type: &SqlType) -> Result<Option<DataType>> {
        Ok(Some(match sql_type {
            SqlType::Timestamp(precision, zone) => {
                let zoned = matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
                DataType::Timestamp(
                    unit(*precision, self.level.timestamp_unit())?,
                    zoned.then(|| Arc::clone(&self.zone)),
                )
            }
            SqlType::Datetime(precision) => {
                DataType::Timestamp(unit(*precision, self.level.timestamp_unit())?, None)
            }
            SqlType::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                match unit(*precision, TimeUnit::Nanosecond)? {
                    unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
                    unit => DataType::Time64(unit),
                }
            }
            SqlType::Time(..) => {
                return Err(Error::unsupported("TIMETZ, a time of day with a zone,")
                    .hint("Use TIMESTAMPTZ, or TIME and a column for the zone."));
            }
            SqlType::Interval { fields, precision: None } => DataType::Interval(match fields {
                None => IntervalUnit::MonthDayNano,
                Some(IntervalFields::YearToMonth) => IntervalUnit::YearMonth,
                Some(IntervalFields::DayToSecond) => IntervalUnit::DayTime,
                Some(fields) => return Err(Error::unsupported(format!("INTERVAL {fields}"))),
            }),
            _ => return Ok(None),
        }))
    }

    fn nested_type(&self, sql_type: &SqlType) -> Result<Option<DataType>> {
        Ok(Some(match sql_type {
            SqlType::Array(ArrayElemTypeDef::SquareBracket(inner, size)) => {
                let Some(item) = self.element(inner)? else { return Ok(None) };
                match size {
                    None => DataType::List(item),
                    Some(size) => {
                        let size = i32::try_from(*size);
                        let size = size.map_err(|_| Error::invalid("the length of an array is too large"))?;
                        DataType::FixedSizeList(item, size)
                    }
                }
            }
            SqlType::Array(ArrayElemTypeDef::AngleBracket(inner)) => {
                let Some(item) = self.element(inner)? else { return Ok(None) };
                DataType::List(item)
            }
            SqlType::Map(key, value) => {
                let (Some(key), Some(value)) = (self.inner(key)?, self.inner(value)?) else {
                    return Ok(None);
                };
                map(key, value)
            }
            _ => return Ok(None),
        }))
    }

    /// Returns the type of an array's, a map's or a struct's elements.
    fn inner(&self, sql_type: &SqlType) -> Result<Option<DataType>> {
        if let Some(checked) = Checked::of(sql_type) {
            return Err(Error::unsupported(format!("{checked} within another type")).hint("Use TEXT there."));
        }
        Ok(match self.arrow_type(sql_type)? {
            Some(found) => Some(found),
            None => simple(sql_type),
        })
    }

    fn element(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        Ok(self.inner(sql_type)?.map(|data_type| Arc::new(Field::new_list_field(data_type, true))))
    }
}

/// Resolves names that DataFusion resolves too, so that nested types are found here.
fn simple(sql_type: &SqlType) -> Option<DataType> {
    Some(match sql_type {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::TinyIntUnsigned(_) => DataType::UInt8,
        SqlType::SmallIntUnsigned(_) => DataType::UInt16,
        SqlType::IntUnsigned(_) | SqlType::IntegerUnsigned(_) => DataType::UInt32,
        SqlType::BigIntUnsigned(_) => DataType::UInt64,
        SqlType::Real | SqlType::Float4 => DataType::Float32,
        SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Text | SqlType::String(_) => DataType::Utf8View,
        SqlType::Bytea => DataType::Binary,
        SqlType::Date => DataType::Date32,
        _ => return None,
    })
}

fn map(key: DataType, value: DataType) -> DataType {
    // DataFusion finds keys only in this layout of text.
    let key = if key == DataType::Utf8View { DataType::Utf8 } else { key };
    let entries = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

/// Returns the name of a type in lower case, without PostgreSQL's schema.
fn type_word(name: &str) -> String {
    let name = name.to_lowercase();
    name.strip_prefix("pg_catalog.").map(str::to_string).unwrap_or(name)
}

/// True for the name of BIT without a length: BIT alone means BIT(1).
fn is_any_bit(name: &str) -> bool {
    matches!(type_word(name).as_str(), "bit" | "\"bit\"")
}

/// Resolves names that the parser has no keyword for.
fn custom(name: &str, modifiers: &[String]) -> Result<Option<DataType>> {
    let name = type_word(name);
    let found = match name.as_str() {
        RESOLVED => return Ok(Some(DataType::Utf8View)),
        name if Mark::named(name).is_some() || is_any_bit(name) => DataType::Utf8View,
        "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2" => {
            return Err(Error::unsupported(format!("type {name}"))
                .hint("Use INT or BIGINT, and give the numbers with INSERT."));
        }
        "money" => return Err(Error::unsupported("type money").hint("Use NUMERIC(19, 2).")),
        "jsonpath" | "bpchar" | "name" | "\"char\"" | "cstring" | "pg_node_tree" => DataType::Utf8View,
        "oid" | "xid" | "cid" => DataType::UInt32,
        "oidvector" => DataType::new_list(DataType::UInt32, true),
        "int2vector" => DataType::new_list(DataType::Int16, true),
        "float16" => DataType::Float16,
        _ => return Ok(None),
    };
    Ok(modifiers.is_empty().then_some(found))
}

/// Resolves FLOAT: DOUBLE PRECISION, as in PostgreSQL, but REAL for up to 24 binary digits.
fn float(precision: &ExactNumberInfo) -> Result<DataType> {
    match precision {
        ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53) => Ok(DataType::Float64),
        ExactNumberInfo::Precision(1..=24) => Ok(DataType::Float32),
        other => Err(Error::invalid(format!("FLOAT{other} has from 1 to 53 binary digits"))),
    }
}

fn numeric(digits: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match *digits {
        ExactNumberInfo::None => return Ok(DataType::Decimal128(38, 10)),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    if !(1..=DIGITS_MAX).contains(&precision) || !(0..=precision as i64).contains(&scale) {
        return Err(Error::invalid(format!(
            "NUMERIC({precision}, {scale}): there are from 1 to {DIGITS_MAX} digits, of which none to all come \
             after the point"
        )));
    }
    let (precision, scale) = (precision as u8, scale as i8);
    Ok(match precision {
        ..=38 => DataType::Decimal128(precision, scale),
        _ => DataType::Decimal256(precision, scale),
    })
}

/// Returns the time unit for this many digits of a second.
fn unit(digits: Option<u64>, default: TimeUnit) -> Result<TimeUnit> {
    match digits {
        Some(0) => Ok(TimeUnit::Second),
        Some(1..=3) => Ok(TimeUnit::Millisecond),
        Some(4..=6) => Ok(TimeUnit::Microsecond),
        Some(7..=9) => Ok(TimeUnit::Nanosecond),
        None => Ok(default),
        Some(more) => Err(Error::invalid(format!("{more} digits of a second: there are from 0 to 9"))),
    }
}

#[cfg(test)]
mod tests {
    use millstream_delta::sql_type_of;

    use crate::planner::Planner;

    fn spelled(written: &str, expected: &str) {
        let field = Planner::new().data_type(written).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(sql_type_of(&field), expected, "{written}");
    }

    fn fails(written: &str, expected: &str) {
        assert_eq!(Planner::new().data_type(written).unwrap_err().message, expected);
    }

    #[test]
    fn a_type_is_shown_as_it_can_be_written() {
        for text in [
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INT",
            "BIGINT",
            "TINYINT UNSIGNED",
            "SMALLINT UNSIGNED",
            "INT UNSIGNED",
            "BIGINT UNSIGNED",
            "FLOAT16",
            "REAL",
            "DOUBLE PRECISION",
            "NUMERIC(5, 0)",
            "NUMERIC(76, 76)",
            "TEXT",
            "VARCHAR(3)",
            "UUID",
            "JSON",
            "INET",
            "MACADDR8",
            "BYTEA",
            "BIT(3)",
            "BIT VARYING",
            "BIT VARYING(5)",
            "\"bit\"",
            "DATE",
            "TIME",
            "TIME(0)",
            "TIME(3)",
            "TIME(6)",
            "TIMESTAMP",
            "TIMESTAMP(0)",
            "TIMESTAMPTZ",
            "TIMESTAMPTZ(3)",
            "INTERVAL",
            "INTERVAL YEAR TO MONTH",
            "INTERVAL DAY TO SECOND",
            "INT[]",
            "TEXT[][]",
            "NUMERIC(5, 2)[3]",
            "STRUCT<a INT, b TEXT[]>",
            "MAP(TEXT, DOUBLE PRECISION)",
        ] {
            spelled(text, text);
        }
    }

    #[test]
    fn names_of_others_are_known() {
        for (written, expected) in [
            ("float", "DOUBLE PRECISION"),
            ("float(24)", "REAL"),
            ("dec(5)", "NUMERIC(5, 0)"),
            ("numeric", "NUMERIC(38, 10)"),
            ("character varying(7)", "VARCHAR(7)"),
            ("varchar", "TEXT"),
            ("char", "VARCHAR(1)"),
            ("bpchar", "TEXT"),
            ("bit", "BIT(1)"),
            ("varbit(7)", "BIT VARYING(7)"),
            ("varbit", "BIT VARYING"),
            ("jsonb", "JSONB"),
            ("timestamp(2) with time zone", "TIMESTAMPTZ(3)"),
            ("blob", "BYTEA"),
            ("ARRAY<INT>", "INT[]"),
        ] {
            spelled(written, expected);
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        fails("serial", "type serial is not supported yet");
        fails("timetz", "TIMETZ, a time of day with a zone, is not supported yet");
        fails("bit(3)[]", "BIT(3) within another type is not supported yet");
        fails("bit(0)", "length for type bit must be at least 1");
        fails("varbit(83886081)", "length for type varbit cannot exceed 83886080");
        fails("bit(2000000000000)", "length for type bit cannot exceed 83886080");
        fails("uuid[]", "UUID within another type is not supported yet");
        fails(
            "numeric(77, 2)",
            "NUMERIC(77, 2): there are from 1 to 76 digits, of which none to all come after the point",
        );
        fails("foo", "type \"foo\" not found");
    }
}
