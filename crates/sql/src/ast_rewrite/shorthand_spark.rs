//! More functions of Spark as templates, for [`super::shorthand`]: times, variants, chance and aggregates.

/// The name, the number of arguments, and the template.
pub(super) const SPARK: &[(&str, usize, &str)] = &[
    // Aggregates.
    ("first", 1, "first_value($1)"),
    ("last", 1, "last_value($1)"),
    ("mode", 2, "mode_of(array_agg($1), $2)"),
    ("try_sum", 1, "sum_or_null(array_agg($1))"),
    ("bitmap_construct_agg", 1, "bitmap_of_bits(array_agg($1))"),
    ("bitmap_and_agg", 1, "bitmaps_and(array_agg($1))"),
    ("bitmap_or_agg", 1, "bitmaps_or(array_agg($1))"),
    ("vector_sum", 1, "vectors_sum(array_agg($1))"),
    ("vector_avg", 1, "vectors_avg(array_agg($1))"),
    ("schema_of_variant_agg", 1, "schema_of_variants(array_agg($1))"),
    // Times.
    ("current_timezone", 0, "current_setting('TimeZone')"),
    ("time", 1, "CAST($1 AS TIME)"),
    ("try_to_date", 2, "CAST(timestamp_or_null($1, java_pattern($2)) AS DATE)"),
    ("try_to_time", 2, "time_or_null($1, java_pattern($2))"),
    ("try_to_timestamp", 2, "timestamp_or_null($1, java_pattern($2))"),
    ("try_make_timestamp", 1, "CAST($1 AS TIMESTAMP WITH TIME ZONE)"),
    ("try_make_timestamp", 2, "CAST((CAST($1 AS DATE) + CAST($2 AS TIME)) AS TIMESTAMP WITH TIME ZONE)"),
    ("try_make_timestamp", 3, "timezone($3, (CAST($1 AS DATE) + CAST($2 AS TIME)))"),
    (
        "try_make_timestamp",
        6,
        "CAST(timestamp_from_parts_or_null($1, $2, $3, $4, $5, $6) AS TIMESTAMP WITH TIME ZONE)",
    ),
    ("try_make_timestamp", 7, "timezone($7, timestamp_from_parts_or_null($1, $2, $3, $4, $5, $6))"),
    ("try_make_timestamp_ltz", 2, "CAST((CAST($1 AS DATE) + CAST($2 AS TIME)) AS TIMESTAMP WITH TIME ZONE)"),
    ("try_make_timestamp_ltz", 3, "timezone($3, (CAST($1 AS DATE) + CAST($2 AS TIME)))"),
    (
        "try_make_timestamp_ltz",
        6,
        "CAST(timestamp_from_parts_or_null($1, $2, $3, $4, $5, $6) AS TIMESTAMP WITH TIME ZONE)",
    ),
    ("try_make_timestamp_ltz", 7, "timezone($7, timestamp_from_parts_or_null($1, $2, $3, $4, $5, $6))"),
    ("try_make_timestamp_ntz", 2, "(CAST($1 AS DATE) + CAST($2 AS TIME))"),
    ("try_make_timestamp_ntz", 6, "timestamp_from_parts_or_null($1, $2, $3, $4, $5, $6)"),
    ("window_time", 1, "(get_field($1, 'end') - INTERVAL '1 microsecond')"),
    // Variants.
    ("to_variant_object", 1, "parse_json(to_json($1))"),
    ("variant_get", 2, "variant_at($1, $2)"),
    ("variant_get", 3, "variant_as($1, $2, $3)"),
    ("try_variant_get", 2, "variant_at($1, $2)"),
    ("try_variant_get", 3, "variant_as_or_null($1, $2, $3)"),
    ("variant_insert", 3, "variant_insert_json($1, $2, to_json($3))"),
    ("try_variant_insert", 3, "try_variant_insert_json($1, $2, to_json($3))"),
    ("variant_set", 3, "variant_set_json($1, $2, to_json($3))"),
    ("variant_set", 4, "variant_set_json($1, $2, to_json($3), $4)"),
    ("try_variant_set", 3, "try_variant_set_json($1, $2, to_json($3))"),
    ("try_variant_set", 4, "try_variant_set_json($1, $2, to_json($3), $4)"),
    ("variant_array_append", 3, "variant_append_json($1, $2, to_json($3))"),
    ("try_variant_array_append", 3, "try_variant_append_json($1, $2, to_json($3))"),
    // Chance: functions of a random number.
    ("randn", 0, "(sqrt((-2 * ln((1 - random())))) * cos((2 * pi() * random())))"),
    ("uniform", 2, "number_between($1, $2, random())"),
    ("randstr", 1, "text_of_chance($1, random())"),
    ("shuffle", 1, "array_shuffled($1, random())"),
    // Texts and bytes.
    ("schema_of_xml", 1, "schema_of_xml_with($1, TRUE)"),
    ("hmac", 2, "hmac_of($1, $2, 'SHA-256')"),
    ("hmac", 3, "hmac_of($1, $2, $3)"),
    ("to_binary", 1, "bytes_of_text($1, 'hex')"),
    ("to_binary", 2, "bytes_of_text($1, $2)"),
    ("try_to_binary", 1, "bytes_of_text_or_null($1, 'hex')"),
    ("try_to_binary", 2, "bytes_of_text_or_null($1, $2)"),
];

/// Forms of functions that are known with other arguments.
pub(super) const SPARK_FORMS: &[(&str, usize, &str)] = &[
    ("months_between", 3, "months_between_rounded($1, $2, $3)"),
    ("to_time", 2, "time_of_text($1, java_pattern($2))"),
];
