//! The table of functions: a statement can name those that it lists, besides DataFusion's.
//!
//! A function is a file in this folder and a line here.

#[cfg(test)]
mod initials;

use super::{
    Registry, coalesce, date_bin, date_part, flink, generators, hashes, java_patterns, json, lambdas, maps,
    marks, other_numbers, other_texts, other_times, postgres, present_time, ranges, read_text, round,
    rounding, row_casts, signed_results, sketches, spark, spark_aggregates, spark_arrays, spark_bytes,
    spark_csv, spark_numbers, spark_options, spark_random, spark_texts, spark_times, value_size_limit, xml,
    zoned_times,
};

/// Adds the functions of a file to a session.
type Register = fn(&mut Registry<'_>);

/// The functions by file. Of two functions with the same name, the first one stays.
pub(super) static FUNCTIONS: &[Register] = &[
    value_size_limit::register,
    read_text::register,
    coalesce::register,
    date_bin::register,
    date_part::register,
    json::register,
    marks::catalog::register,
    ranges::unnest::register,
    postgres::register,
    postgres::arrays::register,
    postgres::bytes::register,
    postgres::byte_forms::register,
    postgres::byte_strings::register,
    postgres::degrees::register,
    postgres::normalization::register,
    postgres::numbers::register,
    postgres::extract::register,
    postgres::formatting::register,
    postgres::interval::register,
    postgres::text::register,
    postgres::ordered_sets::register,
    postgres::periods::register,
    postgres::time::register,
    present_time::register,
    postgres::age::register,
    postgres::truncate::register,
    postgres::varchar::register,
    postgres::patterns::register,
    postgres::quantified::register,
    postgres::regexp::register,
    row_casts::register,
    round::register,
    rounding::register,
    flink::register,
    generators::register,
    hashes::register,
    java_patterns::register,
    lambdas::register,
    maps::register,
    other_numbers::register,
    other_texts::register,
    other_times::register,
    sketches::register,
    spark::register,
    spark_aggregates::register,
    spark_arrays::register,
    spark_bytes::register,
    spark_csv::register,
    spark_numbers::register,
    spark_options::register,
    spark_random::register,
    spark_texts::register,
    spark_times::register,
    signed_results::register,
    xml::register,
    zoned_times::register,
];

/// Adds the functions of these files to a session.
pub(super) fn register(registry: &mut Registry<'_>, functions: &[Register]) {
    functions.iter().for_each(|register| register(registry));
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// The table with the function that CONTRIBUTING.md adds.
    static WITH_INITIALS: &[Register] = &[postgres::register, initials::register];

    #[test]
    fn contributing_shows_the_example() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CONTRIBUTING.md");
        let contributing = std::fs::read_to_string(path).unwrap();
        let example = format!("```rust\n{}```", include_str!("table/initials.rs"));
        assert!(contributing.contains(&example), "CONTRIBUTING.md lacks the text of initials.rs");
    }

    #[test]
    fn a_file_and_a_line_add_a_function() {
        let mut state = SessionStateBuilder::new().with_default_features().build();
        register(&mut Registry { state: &mut state, unit: TimeUnit::Microsecond }, WITH_INITIALS);
        let context = SessionContext::new_with_state(state);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let query = "SELECT initials('Grace Brewster Hopper'), initials(NULL), num_nulls(NULL, 1)";
        let rows = runtime.block_on(millstream_batch::answer(&context, query));
        let shown = arrow::util::pretty::pretty_format_batches(&rows.unwrap()).unwrap().to_string();
        let row: Vec<&str> = shown.lines().nth(3).unwrap().split('|').map(str::trim).collect();
        assert_eq!(row, ["", "GBH", "", "1", ""]);
    }
}
