//! Pairs the deletes and inserts of an epoch by the key of their relation.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use millstream_delta::{Delta, RowEncoder};

use crate::{Error, OptionDoc, Options, Result, SinkSpec};

/// The sink option that names the columns of the key.
pub(crate) const PRIMARY_KEY: OptionDoc = OptionDoc {
    name: "primary_key",
    default: Some("the key of the relation, if known"),
    doc: "upsert_json and debezium_json: the columns, separated by commas, by which rows are changed and deleted.",
};

/// Pairs deleted rows with the inserted rows of the same key.
#[derive(Debug)]
pub struct ByKey {
    columns: SchemaRef,
    key: Vec<usize>,
    encoder: RowEncoder,
    /// The name of the part that needs the key, for messages.
    who: String,
}

/// The deletes and inserts of an epoch.
#[derive(Debug)]
pub struct Paired {
    /// Deleted rows.
    pub old: RecordBatch,
    /// Inserted rows.
    pub new: RecordBatch,
    /// The pairing of the two.
    pub places: Places,
}

/// Row numbers, each list in order.
#[derive(Debug, Default)]
pub struct Places {
    /// Rows of `old` whose key has no inserted row.
    pub deleted: Vec<u32>,
    /// Pairs of a row of `old` and the row of `new` with the same key.
    pub updated: Vec<(u32, u32)>,
    /// Rows of `new` whose key has no deleted row.
    pub inserted: Vec<u32>,
}

impl Places {
    /// Returns all rows of `new`, updated or inserted, in order.
    pub fn put(&self) -> Vec<u32> {
        let mut put = self.inserted.clone();
        put.extend(self.updated.iter().map(|(_, new)| *new));
        put.sort_unstable();
        put
    }
}

impl ByKey {
    /// Creates a pairing by the key of a sink: option `primary_key`, or else the known key of the relation.
    /// Fails if there is none. Messages name `who` as the part that needs a key, and end with the
    /// alternative `otherwise`.
    pub fn new(spec: &SinkSpec, who: &str, otherwise: &str) -> Result<ByKey> {
        let key = key(spec, who, otherwise)?;
        let wrong = |error: ArrowError| {
            Error::Invalid(format!(
                "the rows of sink '{}' can't be identified by their key: {error}",
                spec.name
            ))
        };
        let encoder =
            RowEncoder::new(&Arc::new(spec.columns.project(&key).map_err(wrong)?)).map_err(wrong)?;
        Ok(ByKey { columns: spec.columns.clone(), key, encoder, who: who.to_string() })
    }

    /// The column numbers of the key.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Pairs the net changes of an epoch. Fails if two rows have the same key.
    pub fn pair(&self, delta: &Delta) -> Result<Paired> {
        let wrong =
            |error: ArrowError| Error::Bug(format!("{} got rows of another schema: {error}", self.who));
        let (inserts, deletes) = delta.split_by_sign().map_err(wrong)?;
        let (old, new) = (self.rows(&deletes).map_err(wrong)?, self.rows(&inserts).map_err(wrong)?);
        let places = self.places(&old, &new)?;
        Ok(Paired { old, new, places })
    }

    fn rows(&self, delta: &Delta) -> Result<RecordBatch, ArrowError> {
        let rows = delta.chunks.iter().map(|chunk| chunk.expand()).collect::<Result<Vec<_>, _>>()?;
        let rows =
            rows.iter().map(|rows| RecordBatch::try_new(self.columns.clone(), rows.columns().to_vec()));
        concat_batches(&self.columns, &rows.collect::<Result<Vec<_>, _>>()?)
    }

    fn places(&self, old: &RecordBatch, new: &RecordBatch) -> Result<Places> {
        let keys = |rows: &RecordBatch| -> Result<arrow::row::Rows> {
            let keys = rows.project(&self.key).and_then(|keys| self.encoder.encode(&keys));
            keys.map_err(|error| Error::Bug(format!("keys of {} can't be compared: {error}", self.who)))
        };
        let (old_keys, new_keys) = (keys(old)?, keys(new)?);
        let mut going: HashMap<&[u8], u32> = HashMap::with_capacity(old.num_rows());
        for row in 0..old.num_rows() {
            if going.insert(old_keys.row(row).data(), row as u32).is_some() {
                return Err(self.not_unique(old, row));
            }
        }
        let mut places = Places::default();
        let mut coming: HashMap<&[u8], ()> = HashMap::with_capacity(new.num_rows());
        for row in 0..new.num_rows() {
            let key = new_keys.row(row).data();
            if coming.insert(key, ()).is_some() {
                return Err(self.not_unique(new, row));
            }
            match going.remove(key) {
                Some(before) => places.updated.push((before, row as u32)),
                None => places.inserted.push(row as u32),
            }
        }
        places.deleted = going.into_values().collect();
        places.deleted.sort_unstable();
        Ok(places)
    }

    fn not_unique(&self, rows: &RecordBatch, row: usize) -> Error {
        let key = rows.project(&self.key).map(|key| key.slice(row, 1));
        let text = key
            .and_then(|key| arrow::util::pretty::pretty_format_batches(&[key]).map(|text| text.to_string()));
        Error::Invalid(format!(
            "two rows have one key, so {} can't distinguish them:\n{}",
            self.who,
            text.unwrap_or_default()
        ))
    }
}

/// Returns the key columns of a sink's rows.
fn key(spec: &SinkSpec, who: &str, otherwise: &str) -> Result<Vec<usize>> {
    let names = |places: &[usize]| -> String {
        let names: Vec<&str> =
            places.iter().map(|place| spec.columns.field(*place).name().as_str()).collect();
        format!("({})", names.join(", "))
    };
    let hint = "deliver an aggregate grouped by the key columns, or a table with that PRIMARY KEY, which CREATE SINK … \
                INTO fills";
    let declared = columns_named("primary_key", &spec.options, &spec.columns)?;
    match (declared, spec.key.as_deref()) {
        (None, Some([])) => Err(Error::Invalid(format!(
            "sink '{}' delivers one row without a key, and {who} changes rows by their key: name the key \
             column with option primary_key",
            spec.name,
        ))),
        (None, Some(known)) => Ok(known.to_vec()),
        (Some(declared), Some(known)) if known.iter().all(|place| declared.contains(place)) => Ok(declared),
        (Some(declared), Some(known)) => Err(Error::Invalid(format!(
            "option 'primary_key' is {}, but two rows of sink '{}' may share its value: the known key is \
             {}; {hint}",
            names(&declared),
            spec.name,
            names(known)
        ))),
        (_, None) => Err(Error::Invalid(format!(
            "no key is known for the rows of sink '{}', and {who} changes rows by their key: {hint}{otherwise}",
            spec.name,
        ))),
    }
}

/// Returns the columns that an option names, separated by commas.
pub(crate) fn columns_named(
    option: &str,
    options: &Options,
    columns: &SchemaRef,
) -> Result<Option<Vec<usize>>> {
    let Some(text) = options.get(option) else { return Ok(None) };
    let place = |name: &str| {
        columns.index_of(name.trim()).map_err(|_| {
            let all: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
            Error::Invalid(format!(
                "option '{option}' names column '{}', but there are {}",
                name.trim(),
                all.join(", ")
            ))
        })
    };
    text.split(',').map(place).collect::<Result<Vec<usize>>>().map(Some)
}
