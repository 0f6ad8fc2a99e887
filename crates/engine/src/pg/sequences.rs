//! The tables of sequences: `pg_sequence`, `pg_sequences`, `information_schema.sequences`.

use arrow::datatypes::DataType;
use millstream_sql::{Identity, SequenceOptions};

use super::facts::Facts;
use super::pg_types as types;
use super::rows::Rows;
use crate::catalog::Definition;

/// A sequence as these tables list it.
struct Listed {
    /// Its OID; 0 for one of an identity column, which is no object.
    oid: i64,
    schema: String,
    name: String,
    options: SequenceOptions,
    last: Option<i64>,
}

/// Fills a table. Returns false if the table is none of these.
pub(super) fn fill(facts: &Facts, table: &str, rows: &mut Rows) -> bool {
    match table {
        "pg_sequence" => all(facts).iter().filter(|sequence| sequence.oid != 0).for_each(|sequence| {
            let SequenceOptions { start, increment, min, max, cycle, .. } = sequence.options;
            rows.push(&[
                ("seqrelid", sequence.oid.into()),
                ("seqtypid", type_oid(&sequence.options).into()),
                ("seqstart", start.into()),
                ("seqincrement", increment.into()),
                ("seqmax", max.into()),
                ("seqmin", min.into()),
                ("seqcache", 1.into()),
                ("seqcycle", cycle.into()),
            ]);
        }),
        "pg_sequences" => all(facts).iter().for_each(|sequence| {
            let SequenceOptions { start, increment, min, max, cycle, .. } = sequence.options;
            rows.push(&[
                ("schemaname", sequence.schema.as_str().into()),
                ("sequencename", sequence.name.as_str().into()),
                ("sequenceowner", facts.variables().user.into()),
                ("data_type", type_oid(&sequence.options).into()),
                ("start_value", start.into()),
                ("min_value", min.into()),
                ("max_value", max.into()),
                ("increment_by", increment.into()),
                ("cycle", cycle.into()),
                ("cache_size", 1.into()),
                ("last_value", sequence.last.into()),
            ]);
        }),
        _ => return false,
    }
    true
}

/// Fills `information_schema.sequences`.
pub(super) fn information(facts: &Facts, database: &str, rows: &mut Rows) {
    for sequence in all(facts) {
        let SequenceOptions { start, increment, min, max, cycle, .. } = sequence.options;
        let digits = match sequence.options.data_type {
            DataType::Int16 => 16,
            DataType::Int32 => 32,
            _ => 64,
        };
        rows.push(&[
            ("sequence_catalog", database.into()),
            ("sequence_schema", sequence.schema.as_str().into()),
            ("sequence_name", sequence.name.as_str().into()),
            ("data_type", types::format(type_oid(&sequence.options), None).into()),
            ("numeric_precision", digits.into()),
            ("numeric_precision_radix", 2.into()),
            ("numeric_scale", 0.into()),
            ("start_value", start.to_string().into()),
            ("minimum_value", min.to_string().into()),
            ("maximum_value", max.to_string().into()),
            ("increment", increment.to_string().into()),
            ("cycle_option", if cycle { "YES" } else { "NO" }.into()),
        ]);
    }
}

/// Returns all sequences by name: objects, and those of identity columns.
fn all(facts: &Facts) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut list = |oid: i64, full: &str, options: SequenceOptions| {
        let (schema, name) = facts.catalog.schemas().place_of(full);
        let (schema, name) = (schema.to_string(), name.to_string());
        listed.push(Listed { oid, schema, name, options, last: facts.sequences.last(full) });
    };
    for object in facts.catalog.objects() {
        if let Definition::Sequence(options) = &object.definition {
            list(facts.catalog.oid(&object.name), &object.name, options.clone());
        }
        for field in object.definition.schema().into_iter().flat_map(|schema| schema.fields()) {
            if let Some(Identity { start, increment, sequence, .. }) = Identity::of(field) {
                let options = SequenceOptions::of_identity(field.data_type(), start, increment);
                list(0, &sequence, options);
            }
        }
    }
    listed.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    listed
}

fn type_oid(options: &SequenceOptions) -> i64 {
    match options.data_type {
        DataType::Int16 => 21,
        DataType::Int32 => 23,
        _ => 20,
    }
}
