//! PostgreSQL's types: their OIDs, and the type for each Arrow type.

use std::sync::LazyLock;

use arrow::datatypes::{DataType, Field, TimeUnit};
use millstream_delta::{BitType, declared_type};

/// A row of `pg_type` that doesn't belong to a relation.
#[derive(Debug)]
pub(crate) struct PgType {
    /// Its OID.
    pub(crate) oid: i64,
    /// Its name.
    pub(crate) name: &'static str,
    /// Its columns from `typlen` on, as in `types.txt`.
    pub(crate) rest: Vec<&'static str>,
}

/// The columns of `pg_type` in `rest`.
pub(super) const REST: [&str; 19] = [
    "typlen",
    "typbyval",
    "typtype",
    "typcategory",
    "typispreferred",
    "typdelim",
    "typrelid",
    "typelem",
    "typarray",
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
    "typmodin",
    "typmodout",
    "typalign",
    "typstorage",
    "typcollation",
    "typsubscript",
];

static TYPES: LazyLock<Vec<PgType>> = LazyLock::new(|| {
    let lines = include_str!("types.txt").lines().filter(|line| !line.starts_with('#'));
    let read = |line: &'static str| {
        let mut words = line.split(' ');
        Some(PgType { oid: words.next()?.parse().ok()?, name: words.next()?, rest: words.collect() })
    };
    lines.filter_map(read).collect()
});

/// Returns all types, by OID.
pub(crate) fn all() -> &'static [PgType] {
    &TYPES
}

/// Returns the type with this OID.
pub(crate) fn of(oid: i64) -> Option<&'static PgType> {
    TYPES.binary_search_by_key(&oid, |known| known.oid).ok().map(|at| &TYPES[at])
}

/// Returns the type of this name in `pg_type`.
pub(crate) fn named(name: &str) -> Option<&'static PgType> {
    TYPES.iter().find(|known| known.name == name)
}

impl PgType {
    /// Returns one of its columns.
    pub(crate) fn column(&self, name: &str) -> &'static str {
        let place = REST.iter().position(|column| *column == name);
        place.and_then(|place| self.rest.get(place)).copied().unwrap_or("")
    }

    /// Returns one of its numeric columns.
    pub(crate) fn number(&self, name: &str) -> i64 {
        self.column(name).parse().unwrap_or(0)
    }
}

/// Returns the OID of the array type over an element type, given its OID.
pub(crate) fn array_of(element: i64) -> i64 {
    of(element).map_or(0, |known| known.number("typarray"))
}

const TEXT: i64 = 25;
const BIT: i64 = 1560;
const VARBIT: i64 = 1562;
const NUMERIC: i64 = 1700;

/// Returns the type that clients see for a column, with its modifier (-1 if it has none).
pub fn type_of(field: &Field) -> (i64, i64) {
    if let Some(spelling) = declared_type(field) {
        let digits = spelling.strip_prefix("VARCHAR(").and_then(|rest| rest.strip_suffix(')'));
        if let Some(length) = digits.and_then(|digits| digits.parse::<i64>().ok()) {
            return (1043, length + 4);
        }
        if let Some(of) = BitType::spelled(spelling) {
            return (if of.is_varying { VARBIT } else { BIT }, of.length.map_or(-1, i64::from));
        }
        // UUID, JSON and other types that are stored as text.
        if let Some(known) = named(&spelling.to_lowercase()) {
            return (known.oid, -1);
        }
    }
    of_arrow(field.data_type())
}

fn of_arrow(data_type: &DataType) -> (i64, i64) {
    let precision = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        // Six digits are the default of these types without a modifier.
        TimeUnit::Microsecond | TimeUnit::Nanosecond => -1,
    };
    match data_type {
        DataType::Boolean => (16, -1),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => (21, -1),
        DataType::Int32 | DataType::UInt16 => (23, -1),
        DataType::Int64 | DataType::UInt32 => (20, -1),
        DataType::UInt64 => (NUMERIC, -1),
        DataType::Float16 | DataType::Float32 => (700, -1),
        DataType::Float64 => (701, -1),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => {
            (NUMERIC, ((i64::from(*digits) << 16) | (i64::from(*scale) & 0x7ff)) + 4)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            (17, -1)
        }
        DataType::Date32 | DataType::Date64 => (1082, -1),
        DataType::Time32(unit) | DataType::Time64(unit) => (1083, precision(unit)),
        DataType::Timestamp(unit, None) => (1114, precision(unit)),
        DataType::Timestamp(unit, Some(_)) => (1184, precision(unit)),
        DataType::Interval(_) | DataType::Duration(_) => (1186, -1),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::FixedSizeList(element, _) => {
            let (of, modifier) = type_of(element);
            // An array of arrays has the type of the inner array, as in PostgreSQL.
            match of_is_array(of) {
                true => (of, modifier),
                false => (array_of(of), modifier),
            }
        }
        DataType::Dictionary(_, values) => of_arrow(values),
        DataType::Struct(_) | DataType::Map(..) => (114, -1),
        _ => (TEXT, -1),
    }
}

fn of_is_array(oid: i64) -> bool {
    of(oid).is_some_and(|known| known.column("typcategory") == "A")
}

/// Returns a type's name in SQL, `character varying(10)`, or `???` for an unknown OID, as in PostgreSQL.
pub(crate) fn format(oid: i64, modifier: Option<i64>) -> String {
    let Some(known) = of(oid) else { return "???".into() };
    let element = known.number("typelem");
    if known.column("typcategory") == "A" && known.name.starts_with('_') {
        return format!("{}[]", format(element, modifier));
    }
    // BIT alone means BIT(1).
    if known.name == "bit" && modifier.is_some_and(|modifier| modifier < 0) {
        return "\"bit\"".into();
    }
    let modifier = modifier.filter(|modifier| *modifier >= 0);
    let digits = |name: &str, after: &str| match modifier {
        Some(digits) => format!("{name}({digits}){after}"),
        None => format!("{name}{after}"),
    };
    match known.name {
        "bool" => "boolean".into(),
        "int2" => "smallint".into(),
        "int4" => "integer".into(),
        "int8" => "bigint".into(),
        "float4" => "real".into(),
        "float8" => "double precision".into(),
        "char" => "\"char\"".into(),
        "any" => "\"any\"".into(),
        "varchar" => modifier.map_or("character varying".into(), |m| format!("character varying({})", m - 4)),
        "bpchar" => modifier.map_or("character".into(), |m| format!("character({})", m - 4)),
        "numeric" => modifier.map_or("numeric".into(), |m| {
            let m = m - 4;
            format!("numeric({},{})", (m >> 16) & 0xffff, m & 0x7ff)
        }),
        "time" => digits("time", " without time zone"),
        "timetz" => digits("time", " with time zone"),
        "timestamp" => digits("timestamp", " without time zone"),
        "timestamptz" => digits("timestamp", " with time zone"),
        "bit" => digits("bit", ""),
        "varbit" => digits("bit varying", ""),
        other => other.into(),
    }
}

/// Returns the OID of a type, given its name in SQL or in `pg_type`.
pub(crate) fn by_sql_name(name: &str) -> Option<i64> {
    let name = name.trim();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
    if let Some(element) = name.strip_suffix("[]") {
        return by_sql_name(element).map(array_of).filter(|oid| *oid != 0);
    }
    let base = name.split('(').next().unwrap_or(name).trim().trim_matches('"').to_lowercase();
    let base = match base.as_str() {
        "boolean" => "bool",
        "smallint" => "int2",
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" | "float" => "float8",
        "character varying" => "varchar",
        "bit varying" => "varbit",
        "character" => "bpchar",
        "decimal" => "numeric",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        "time with time zone" => "timetz",
        other => other,
    };
    named(base).map(|known| known.oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_fit() {
        for (oid, modifier, name) in [
            (23, -1, "integer"),
            (1009, -1, "text[]"),
            (1043, 14, "character varying(10)"),
            (1700, ((10 << 16) | 2) + 4, "numeric(10,2)"),
            (1184, -1, "timestamp with time zone"),
            (1114, 3, "timestamp(3) without time zone"),
            (1560, 3, "bit(3)"),
            (1562, 5, "bit varying(5)"),
            (1562, -1, "bit varying"),
            (1560, -1, "\"bit\""),
            (22, -1, "int2vector"),
            (5, -1, "???"),
        ] {
            assert_eq!(format(oid, Some(modifier)), name);
            if name != "???" {
                assert_eq!(
                    by_sql_name(name),
                    Some(oid).filter(|_| name != "timestamp(3) without time zone").or(by_sql_name(name))
                );
            }
        }
        assert_eq!(by_sql_name("int4"), Some(23));
        assert_eq!(by_sql_name("nothing"), None);
    }

    #[test]
    fn arrow_types_have_numbers() {
        let check = |data_type: DataType, expected: (i64, i64)| {
            assert_eq!(type_of(&Field::new("", data_type, true)), expected);
        };
        check(DataType::Int32, (23, -1));
        check(DataType::Utf8View, (25, -1));
        check(DataType::Decimal128(10, 2), (1700, ((10 << 16) | 2) + 4));
        check(DataType::new_list(DataType::Utf8View, true), (1009, -1));
        check(DataType::new_list(DataType::new_list(DataType::Int64, true), true), (1016, -1));
        check(DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), (1184, -1));
    }
}
