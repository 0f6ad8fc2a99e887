//! Families of types: the generator's knowledge of an expression's type.

/// Types that share operators and functions; the planner converts within a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// TRUE, FALSE, NULL.
    Boolean,
    /// Integers of every size, signed and unsigned.
    Integer,
    /// Numbers with a fixed scale.
    Decimal,
    /// REAL and DOUBLE PRECISION.
    Float,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// Days.
    Date,
    /// Times of a day.
    Time,
    /// Timestamps without a zone.
    Timestamp,
    /// Timestamps with a zone.
    Zoned,
    /// Intervals.
    Interval,
    /// Lists of whole numbers.
    Integers,
    /// Lists of texts.
    Texts,
    /// The struct of a whole number `a` and a text `b`.
    Pair,
}

/// Every family.
pub const ALL: &[Family] = &[
    Family::Boolean,
    Family::Integer,
    Family::Decimal,
    Family::Float,
    Family::Text,
    Family::Bytes,
    Family::Date,
    Family::Time,
    Family::Timestamp,
    Family::Zoned,
    Family::Interval,
    Family::Integers,
    Family::Texts,
    Family::Pair,
];

/// A declarable type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Its name in CREATE TABLE.
    pub spelling: &'static str,
    /// Its family.
    pub family: Family,
    /// Values as SQL that rarely cause errors in expressions.
    pub tame: &'static [&'static str],
    /// Values at the limits, which overflow easily.
    pub wild: &'static [&'static str],
}

const fn of(
    spelling: &'static str,
    family: Family,
    tame: &'static [&'static str],
    wild: &'static [&'static str],
) -> ColumnType {
    ColumnType { spelling, family, tame, wild }
}

const SMALL: &[&str] = &["0", "1", "2", "3", "5", "-1", "-2", "10"];
const NATURAL: &[&str] = &["0", "1", "2", "3", "5", "10"];
const FLOATS: &[&str] = &[
    "0.0",
    "1.0",
    "2.0",
    "0.1",
    "0.2",
    "-1.5",
    "2.25",
    "-0.0",
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "1e16",
];
const CENTS: &[&str] = &["0", "1.00", "1.50", "2.25", "-1.00", "-0.01", "3"];

/// All types of columns in generated tables.
pub const COLUMN_TYPES: &[ColumnType] = &[
    of("BOOLEAN", Family::Boolean, &["true", "false"], &[]),
    of("TINYINT", Family::Integer, SMALL, &["127", "-128"]),
    of("SMALLINT", Family::Integer, SMALL, &["32767", "-32768"]),
    of("INT", Family::Integer, SMALL, &["2147483647", "-2147483648"]),
    of("BIGINT", Family::Integer, SMALL, &["9223372036854775807", "-9223372036854775808"]),
    of("INT UNSIGNED", Family::Integer, NATURAL, &["4294967295"]),
    of("BIGINT UNSIGNED", Family::Integer, NATURAL, &["18446744073709551615"]),
    of("NUMERIC(10, 2)", Family::Decimal, CENTS, &["'99999999.99'", "'-99999999.99'"]),
    of("NUMERIC(5, 0)", Family::Decimal, SMALL, &["99999"]),
    of("NUMERIC(18, 6)", Family::Decimal, CENTS, &["'0.000001'", "'999999999999.999999'"]),
    of("NUMERIC(38, 10)", Family::Decimal, CENTS, &["'1234567890123456789012345678.0123456789'"]),
    of("NUMERIC(76, 20)", Family::Decimal, CENTS, &["'12345678901234567890123456789012345678901.5'"]),
    of("REAL", Family::Float, FLOATS, &["3.4e38", "1e-45"]),
    of(
        "DOUBLE PRECISION",
        Family::Float,
        FLOATS,
        &["1.7e308", "-1.7e308", "5e-324", "1e300", "-1e16", "1e-300"],
    ),
    of(
        "TEXT",
        Family::Text,
        &["''", "'a'", "'b'", "'ab'", "'B'", "' a '", "'a,b'", "'ä'", "'日本'", "'%'", "'10'"],
        &["'a longer text than fits inline'", "'\u{1F600}'", "'ß'", "'NULL'", "'a''b'"],
    ),
    of("VARCHAR", Family::Text, &["''", "'a'", "'b'", "'ab'", "'B'", "'a_b'"], &["'ÿ'"]),
    of("BYTEA", Family::Bytes, &["X''", "X'61'", "X'6162'", "X'00FF'"], &["X'00'"]),
    of(
        "DATE",
        Family::Date,
        &["'2024-02-29'", "'2024-03-01'", "'1969-12-31'", "'2023-12-31'"],
        &["'0001-01-01'", "'9999-12-31'"],
    ),
    of("TIME", Family::Time, &["'00:00:00'", "'12:30:45'", "'23:59:59.999999'"], &[]),
    of(
        "TIMESTAMP",
        Family::Timestamp,
        &[
            "'2024-02-29 12:30:45.123456'",
            "'2024-02-29 00:00:00'",
            "'1969-12-31 23:59:59.999999'",
            "'2024-03-01 00:00:00'",
        ],
        &["'1700-01-01 00:00:00'", "'2200-01-01 00:00:00'"],
    ),
    of(
        "TIMESTAMPTZ",
        Family::Zoned,
        &[
            "'2024-02-29 12:30:45+00'",
            "'2024-02-29 14:30:45+02'",
            "'1969-12-31 23:59:59Z'",
            "'2024-03-31 01:30:00-05'",
        ],
        &[],
    ),
    of(
        "INTERVAL",
        Family::Interval,
        &["INTERVAL '1 day'", "INTERVAL '1 month'", "INTERVAL '2 hours'", "INTERVAL '-3 days'"],
        &[],
    ),
    of("INT[]", Family::Integers, &["[]", "[1]", "[1, 2]", "[2, NULL]", "[3, 3]"], &[]),
    of("TEXT[]", Family::Texts, &["[]", "['a']", "['a', 'b']", "['', NULL]"], &[]),
    of(
        "STRUCT<a INT, b TEXT>",
        Family::Pair,
        &[
            "named_struct('a', 1, 'b', 'x')",
            "named_struct('a', 2, 'b', NULL)",
            "named_struct('a', NULL, 'b', '')",
        ],
        &[],
    ),
];

impl Family {
    /// Returns the type that literals of the family are cast to.
    pub fn spelling(self) -> &'static str {
        match self {
            Family::Boolean => "BOOLEAN",
            Family::Integer => "BIGINT",
            Family::Decimal => "NUMERIC(10, 2)",
            Family::Float => "DOUBLE PRECISION",
            Family::Text => "TEXT",
            Family::Bytes => "BYTEA",
            Family::Date => "DATE",
            Family::Time => "TIME",
            Family::Timestamp => "TIMESTAMP",
            Family::Zoned => "TIMESTAMPTZ",
            Family::Interval => "INTERVAL",
            Family::Integers => "INT[]",
            Family::Texts => "TEXT[]",
            Family::Pair => "STRUCT<a INT, b TEXT>",
        }
    }

    /// Returns values of the family as SQL that rarely cause errors.
    pub fn values(self) -> &'static [&'static str] {
        let wanted = self.spelling();
        let found = COLUMN_TYPES.iter().find(|column| column.spelling == wanted);
        found.map_or(&["NULL"], |column| column.tame)
    }

    /// Returns a value of the family as SQL with its type.
    pub fn typed(self, value: &str) -> String {
        let plain = match self {
            Family::Boolean | Family::Integer | Family::Text | Family::Interval => true,
            Family::Float => !value.starts_with('\''),
            _ => false,
        };
        match plain && value != "NULL" {
            true if value.starts_with('-') => format!("({value})"),
            true => value.to_string(),
            false => format!("CAST({value} AS {})", self.spelling()),
        }
    }

    /// Returns true if `<` applies to the family.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Family::Pair | Family::Integers | Family::Texts | Family::Interval)
    }

    /// Returns true if `+` applies to the family.
    pub fn is_number(self) -> bool {
        matches!(self, Family::Integer | Family::Decimal | Family::Float)
    }
}
