//! Functions of Spark and Flink as templates, for [`super::shorthand`].

/// The name, the number of arguments, and the template.
pub(super) const OTHERS: &[(&str, usize, &str)] = &[
    // Aggregates.
    ("collect_list", 1, "without_nulls(array_agg($1))"),
    ("collect_set", 1, "without_nulls(array_agg(DISTINCT $1))"),
    // Arrays and maps.
    ("array_size", 1, "array_length($1)"),
    ("size", 1, "cardinality($1)"),
    ("get", 2, "($1)[($2 + 1)]"),
    ("sort_array", 1, "array_sort($1)"),
    ("sequence", 2, "array_sequence($1, $2)"),
    ("sequence", 3, "generate_series($1, $2, $3)"),
    // Numbers.
    ("bit_get", 2, "(($1 >> $2) & 1)"),
    ("getbit", 2, "(($1 >> $2) & 1)"),
    ("nullifzero", 1, "nullif($1, 0)"),
    ("zeroifnull", 1, "coalesce($1, 0)"),
    ("csc", 1, "(1.0 / sin($1))"),
    ("sec", 1, "(1.0 / cos($1))"),
    ("equal_null", 2, "($1 IS NOT DISTINCT FROM $2)"),
    // Times.
    ("date", 1, "CAST($1 AS DATE)"),
    ("date_diff", 2, "(CAST($1 AS DATE) - CAST($2 AS DATE))"),
    ("datediff", 2, "(CAST($1 AS DATE) - CAST($2 AS DATE))"),
    ("dateadd", 2, "(CAST($1 AS DATE) + $2)"),
    ("date_from_unix_date", 1, "(DATE '1970-01-01' + $1)"),
    ("unix_date", 1, "(CAST($1 AS DATE) - DATE '1970-01-01')"),
    ("day", 1, "date_part('day', $1)"),
    ("dayname", 1, "to_char(CAST($1 AS TIMESTAMP), 'Dy')"),
    ("monthname", 1, "to_char(CAST($1 AS TIMESTAMP), 'Mon')"),
    ("weekday", 1, "((date_part('dow', $1) + 6) % 7)"),
    ("from_utc_timestamp", 2, "timezone('UTC', timezone($2, CAST($1 AS TIMESTAMP WITH TIME ZONE)))"),
    ("to_utc_timestamp", 2, "timezone($2, CAST($1 AS TIMESTAMP))"),
    ("timestamp_seconds", 1, "to_timestamp($1)"),
    ("timestamp_millis", 1, "to_timestamp_ltz($1, 3)"),
    ("timestamp_micros", 1, "to_timestamp_ltz($1, 6)"),
    ("unix_seconds", 1, "CAST(floor(extract_exact('epoch', CAST($1 AS TIMESTAMP))) AS BIGINT)"),
    ("unix_millis", 1, "CAST(floor((extract_exact('epoch', CAST($1 AS TIMESTAMP)) * 1000)) AS BIGINT)"),
    ("unix_micros", 1, "CAST((extract_exact('epoch', CAST($1 AS TIMESTAMP)) * 1000000) AS BIGINT)"),
    ("unix_timestamp", 1, "CAST(floor(extract_exact('epoch', CAST($1 AS TIMESTAMP))) AS BIGINT)"),
    ("to_unix_timestamp", 1, "CAST(floor(extract_exact('epoch', CAST($1 AS TIMESTAMP))) AS BIGINT)"),
    // Texts.
    ("base64", 1, "encode($1, 'base64pad')"),
    ("unbase64", 1, "decode($1, 'base64')"),
    ("from_base64", 1, "convert_from(decode($1, 'base64'), 'UTF8')"),
    ("startswith", 2, "starts_with($1, $2)"),
    ("endswith", 2, "ends_with($1, $2)"),
    ("locate", 2, "strpos($2, $1)"),
    ("locate", 3, "text_position($2, $1, $3, 1)"),
    ("space", 1, "repeat(' ', $1)"),
    ("split", 2, "postgres_regexp_split_to_array($1, $2)"),
];

/// Forms of functions that are known with other arguments.
pub(super) const OTHER_FORMS: &[(&str, usize, &str)] =
    &[("instr", 3, "text_position($1, $2, $3, 1)"), ("instr", 4, "text_position($1, $2, $3, $4)")];
