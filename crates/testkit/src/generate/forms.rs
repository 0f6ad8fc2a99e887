//! Operators and functions as text with holes, by the family of their result.
//!
//! A hole names one of these:
//!
//! - a family (`{integer}`),
//! - the family of the result (`{same}`),
//! - one ordered family for all holes of a form (`{any}`),
//! - a small integer (`{n}`),
//! - a pattern of LIKE (`{pattern}`),
//! - a part of a date (`{part}`),
//! - a positive divisor (`{divisor}`).

use super::family::Family;

/// The forms of each family.
pub const FORMS: &[(Family, &[&str])] = &[
    (Family::Boolean, BOOLEAN),
    (Family::Integer, INTEGER),
    (Family::Decimal, DECIMAL),
    (Family::Float, FLOAT),
    (Family::Text, TEXT),
    (Family::Bytes, BYTES),
    (Family::Date, DATE),
    (Family::Time, TIME),
    (Family::Timestamp, TIMESTAMP),
    (Family::Zoned, ZONED),
    (Family::Interval, INTERVAL),
    (Family::Integers, INTEGERS),
    (Family::Texts, TEXTS),
    (Family::Pair, PAIR),
];

/// Forms that return any family.
pub const GENERAL: &[&str] = &[
    "CASE WHEN {boolean} THEN {same} ELSE {same} END",
    "CASE WHEN {boolean} THEN {same} WHEN {boolean} THEN {same} END",
    "CASE {any} WHEN {any} THEN {same} WHEN {any} THEN {same} ELSE {same} END",
    "coalesce({same}, {same})",
    "coalesce({same}, {same}, {same})",
    "nullif({same}, {same})",
];

const BOOLEAN: &[&str] = &[
    "({any} = {any})",
    "({any} = {any})",
    "({any} <> {any})",
    "({any} < {any})",
    "({any} <= {any})",
    "({any} > {any})",
    "({any} >= {any})",
    "({any} IS NULL)",
    "({any} IS NOT NULL)",
    "({any} IS DISTINCT FROM {any})",
    "({any} IS NOT DISTINCT FROM {any})",
    "({any} BETWEEN {any} AND {any})",
    "({any} NOT BETWEEN {any} AND {any})",
    "({any} IN ({any}, {any}))",
    "({any} IN ({any}, {any}, {any}, {any}))",
    "({any} NOT IN ({any}, {any}))",
    "({integer} IN (1, 2, NULL))",
    "({integer} NOT IN (1, {integer}, NULL))",
    "({text} LIKE {pattern})",
    "({text} NOT LIKE {pattern})",
    "({text} ILIKE {pattern})",
    "starts_with({text}, {text})",
    "ends_with({text}, {text})",
    "contains({text}, {text})",
    "({boolean} AND {boolean})",
    "({boolean} OR {boolean})",
    "({boolean} AND {boolean} OR {boolean})",
    "(NOT {boolean})",
    "({boolean} IS TRUE)",
    "({boolean} IS NOT TRUE)",
    "({boolean} IS FALSE)",
    "({boolean} IS UNKNOWN)",
    "array_has({integers}, {integer})",
    "array_has({texts}, {text})",
    "({integers} = {integers})",
    "({pair} = {pair})",
    "(CAST({integer} AS BOOLEAN))",
    "isnan({float})",
];

const INTEGER: &[&str] = &[
    "({integer} + {integer})",
    "({integer} - {integer})",
    "({integer} * {integer})",
    "({integer} / {divisor})",
    "({integer} % {divisor})",
    "(- {integer})",
    "abs({integer})",
    "({integer} & {integer})",
    "({integer} | {integer})",
    "greatest({integer}, {integer})",
    "least({integer}, {integer}, {integer})",
    "length({text})",
    "octet_length({text})",
    "bit_length({text})",
    "strpos({text}, {text})",
    "ascii({text})",
    "levenshtein({text}, {text})",
    "CAST({boolean} AS INT)",
    "CAST({decimal} AS BIGINT)",
    "TRY_CAST({text} AS INT)",
    "TRY_CAST({integer} AS SMALLINT)",
    "TRY_CAST({float} AS BIGINT)",
    "CAST(extract({part} FROM {date}) AS INT)",
    "CAST(extract({part} FROM {timestamp}) AS INT)",
    "CAST(date_part('{part}', {zoned}) AS INT)",
    "cardinality({integers})",
    "array_length({texts})",
    "array_position({integers}, {integer})",
    "array_min({integers})",
    "array_max({integers})",
    "({integers})[{n}]",
    "({pair})['a']",
    "gcd({n}, {n})",
];

const DECIMAL: &[&str] = &[
    "({decimal} + {decimal})",
    "({decimal} - {decimal})",
    "(- {decimal})",
    "abs({decimal})",
    "round({decimal}, {n})",
    "trunc({decimal}, {n})",
    "CAST({integer} AS NUMERIC(20, 2))",
    "TRY_CAST({float} AS NUMERIC(12, 3))",
    "TRY_CAST({text} AS NUMERIC(8, 2))",
    "({decimal} * {n})",
    "({decimal} % CAST({divisor} AS NUMERIC(5, 0)))",
    "greatest({decimal}, {decimal})",
];

const FLOAT: &[&str] = &[
    "({float} + {float})",
    "({float} - {float})",
    "({float} * {float})",
    "({float} / {float})",
    "({float} / 4)",
    "sqrt({float})",
    "power({float}, {n})",
    "sin({float})",
    "ln({float})",
    "exp({float})",
    "(- {float})",
    "abs({float})",
    "floor({float})",
    "ceil({float})",
    "round({float})",
    "trunc({float})",
    "signum({float})",
    "CAST({integer} AS DOUBLE PRECISION)",
    "CAST({decimal} AS DOUBLE PRECISION)",
    "TRY_CAST({text} AS DOUBLE PRECISION)",
    "greatest({float}, {float})",
    "least({float}, {float})",
    "nanvl({float}, {float})",
    "atan({float})",
    "cbrt({float})",
];

const TEXT: &[&str] = &[
    "upper({text})",
    "lower({text})",
    "initcap({text})",
    "({text} || {text})",
    "concat({text}, {integer}, {text})",
    "concat_ws(',', {text}, {text}, {text})",
    "substr({text}, {n})",
    "substr({text}, {n}, {n})",
    "left({text}, {n})",
    "right({text}, {n})",
    "trim({text})",
    "btrim({text}, 'a')",
    "ltrim({text})",
    "rtrim({text})",
    "replace({text}, {text}, 'x')",
    "translate({text}, 'ab', 'ba')",
    "reverse({text})",
    "repeat({text}, {n})",
    "lpad({text}, {n}, '.')",
    "rpad({text}, {n}, '.')",
    "split_part({text}, ',', {divisor})",
    "md5({text})",
    "to_hex({integer})",
    "CAST({integer} AS TEXT)",
    "CAST({boolean} AS TEXT)",
    "CAST({decimal} AS TEXT)",
    "CAST({float} AS TEXT)",
    "CAST({date} AS TEXT)",
    "CAST({timestamp} AS TEXT)",
    "CAST({zoned} AS TEXT)",
    "CAST({time} AS TEXT)",
    "to_char({timestamp}, '%Y-%m')",
    "encode({bytes}, 'hex')",
    "array_to_string({integers}, '-')",
    "array_to_string({texts}, ',', '*')",
    "({texts})[{n}]",
    "({pair})['b']",
    "regexp_replace({text}, '[ab]+', '<\\0>')",
    "overlay({text} PLACING 'z' FROM {divisor})",
    "greatest({text}, {text})",
    "chr(CAST(abs({n}) AS INT) + 65)",
    "arrow_typeof({any})",
];

const BYTES: &[&str] = &["CAST({text} AS BYTEA)", "sha256({text})", "decode(encode({bytes}, 'hex'), 'hex')"];

const DATE: &[&str] = &[
    "CAST({timestamp} AS DATE)",
    "CAST({zoned} AS DATE)",
    "({date} + {interval})",
    "({date} - {interval})",
    "CAST(date_trunc('{part}', {timestamp}) AS DATE)",
    "make_date(2024, {divisor}, {divisor})",
    "greatest({date}, {date})",
];

const TIME: &[&str] = &["CAST({timestamp} AS TIME)", "CAST(CAST({time} AS TEXT) AS TIME)"];

const TIMESTAMP: &[&str] = &[
    "({timestamp} + {interval})",
    "({timestamp} - {interval})",
    "date_trunc('{part}', {timestamp})",
    "date_bin(INTERVAL '15 minutes', {timestamp})",
    "CAST({date} AS TIMESTAMP)",
    "CAST({zoned} AS TIMESTAMP)",
    "least({timestamp}, {timestamp})",
    "to_timestamp_seconds({n})",
];

const ZONED: &[&str] = &[
    "({zoned} + {interval})",
    "({zoned} - {interval})",
    "date_trunc('{part}', {zoned})",
    "CAST({timestamp} AS TIMESTAMPTZ)",
    "greatest({zoned}, {zoned})",
];

const INTERVAL: &[&str] = &["({interval} + {interval})", "({interval} - {interval})"];

const INTEGERS: &[&str] = &[
    "make_array({integer}, {integer})",
    "make_array({integer})",
    "array_append({integers}, {integer})",
    "array_prepend({integer}, {integers})",
    "array_concat({integers}, {integers})",
    "array_sort({integers})",
    "array_distinct({integers})",
    "array_reverse({integers})",
    "array_remove({integers}, {integer})",
    "array_slice({integers}, 1, {n})",
    "array_union({integers}, {integers})",
    "array_intersect({integers}, {integers})",
    "array_except({integers}, {integers})",
    "array_repeat({integer}, {n})",
    "range(0, {n})",
];

const TEXTS: &[&str] = &[
    "make_array({text}, {text})",
    "string_to_array({text}, ',')",
    "array_append({texts}, {text})",
    "array_sort({texts})",
    "array_distinct({texts})",
    "array_reverse({texts})",
    "regexp_match({text}, '([ab])(.?)')",
];

const PAIR: &[&str] = &["named_struct('a', CAST({integer} AS INT), 'b', {text})"];

/// Patterns of LIKE.
pub const PATTERNS: &[&str] = &["'a%'", "'%b'", "'%'", "'_'", "''", "'a\\_b'", "'%ä%'", "'a_'", "'%,%'"];

/// Parts of dates.
pub const PARTS: &[&str] = &["year", "month", "day", "hour", "quarter", "week"];
