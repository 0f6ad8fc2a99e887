//! The connector `datagen`: rows generated from a seed, for tests, benchmarks and first steps.

mod column;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use crate::numbered::{Numbered, NumberedSource};
use crate::pace::Pace;
use crate::{Connector, Error, Limit, OptionDoc, Result, Source, SourceSpec};
use column::Column;

/// Default rate of an unbounded source, in rows a second.
const ROWS_PER_SECOND: f64 = 1000.0;

/// Maximum rows in one batch.
const BATCH_ROWS: u64 = 16 * 1024;

/// The connector `datagen`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Datagen;

const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "rows",
        default: Some("no end"),
        doc: "The number of rows, after which the source ends.",
    },
    OptionDoc {
        name: "rows_per_second",
        default: Some("1000; as fast as possible, where rows is given"),
        doc: "The number of rows a second.",
    },
    OptionDoc {
        name: "seed",
        default: Some("0"),
        doc: "A number. Row i depends on the seed, the columns and i alone: the same in every run.",
    },
    OptionDoc {
        name: "fields.<column>.kind",
        default: Some("random"),
        doc: "sequence: start, start + 1, and so on; random: values between min and max.",
    },
    OptionDoc {
        name: "fields.<column>.start",
        default: Some("0; for dates and timestamps 2000-01-01"),
        doc: "sequence: the first value. Dates go up by a day, timestamps by a second, booleans alternate; text is \
              the number.",
    },
    OptionDoc {
        name: "fields.<column>.end",
        default: Some("none"),
        doc: "sequence: the last value, after which it begins again at start.",
    },
    OptionDoc {
        name: "fields.<column>.min",
        default: Some("0; for dates and timestamps 2000-01-01"),
        doc: "random: the lowest value.",
    },
    OptionDoc {
        name: "fields.<column>.max",
        default: Some(
            "999,999 or the type's greatest; 1 for REAL and DOUBLE PRECISION; 2029-12-31 for dates",
        ),
        doc: "random: the greatest value.",
    },
    OptionDoc {
        name: "fields.<column>.length",
        default: Some("10"),
        doc: "random text: the number of characters (a-z) of a value.",
    },
    OptionDoc {
        name: "fields.<column>.cardinality",
        default: Some("no bound"),
        doc: "random: the maximum number of distinct values.",
    },
    OptionDoc {
        name: "fields.<column>.null_ratio",
        default: Some("0"),
        doc: "The share of NULL values, from 0 to 1.",
    },
];

impl Connector for Datagen {
    fn name(&self) -> &'static str {
        "datagen"
    }

    fn summary(&self) -> &'static str {
        "Generates rows from a seed, the same in every run."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        Ok(Box::new(Generator::open(spec)?))
    }
}

struct Generator {
    schema: SchemaRef,
    columns: Vec<Column>,
}

impl Generator {
    fn open(spec: &SourceSpec) -> Result<NumberedSource<Generator>> {
        let Some(schema) = spec.columns.clone().filter(|columns| !columns.fields().is_empty()) else {
            return Err(Error::Invalid(format!(
                "source '{}' declares no columns, and datagen can't infer them: declare its columns",
                spec.name
            )));
        };
        check_names(spec, &schema)?;
        let options = &spec.options;
        let rows: Option<u64> = options.parse("rows", "a number of rows")?;
        let pace = Pace::of(options, "rows_per_second", ROWS_PER_SECOND, rows.is_some())?;
        let seed: u64 = options.parse("seed", "a whole number from 0 on")?.unwrap_or(0);
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| Column::new(field, options, column::mix(seed, index as u64)))
            .collect::<Result<_>>()?;
        Ok(NumberedSource::new(Generator { schema, columns }, rows, pace, spec.health.clone()))
    }
}

impl Numbered for Generator {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self, from: u64, to: u64) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut at = from;
        while at < to {
            let end = to.min(at + BATCH_ROWS);
            let columns = self.columns.iter().map(|column| column.values(at..end)).collect::<Result<_>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some((end - at) as usize));
            let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
            batches.push(
                batch.map_err(|error| Error::Bug(format!("datagen made rows of another schema: {error}")))?,
            );
            at = end;
        }
        Ok(batches)
    }

    fn within(&self, from: u64, limit: Limit) -> u64 {
        let row_bytes: usize = self.columns.iter().map(Column::value_bytes).sum::<usize>().max(1);
        from.saturating_add(limit.rows.min(limit.bytes.div_ceil(row_bytes)).max(1) as u64)
    }
}

/// Fails if an option names a column that doesn't exist.
fn check_names(spec: &SourceSpec, schema: &SchemaRef) -> Result<()> {
    for name in spec.options.0.keys() {
        let Some((column, _)) = name.strip_prefix("fields.").and_then(|rest| rest.rsplit_once('.')) else {
            continue;
        };
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if names.iter().all(|name| !name.eq_ignore_ascii_case(column)) {
            let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, column));
            let near = near.filter(|name| strsim::damerau_levenshtein(name, column) <= 3);
            let near = near.map_or_else(String::new, |near| format!(" Did you mean '{near}'?"));
            return Err(Error::Invalid(format!(
                "option '{name}' is about column '{column}', which source '{}' doesn't have.{near} Its columns are: {}.",
                spec.name,
                names.join(", ")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
