//! What an epoch changes, as the records of a change feed: one a key, which a source of the same format reads back.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, StructArray, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_delta::{Delta, RowEncoder};

use super::changes::Changes;
use crate::{Error, OptionDoc, Options, Result, SinkSpec};

/// The option of a sink that names the columns of its key.
pub(crate) const PRIMARY_KEY: OptionDoc = OptionDoc {
    name: "primary_key",
    default: Some("what is known of the relation"),
    doc: "upsert_json and debezium_json: the columns, separated by commas, by which rows are changed and deleted.",
};

/// Makes records of the changes of a relation whose rows have a key.
#[derive(Debug)]
pub(crate) struct Feed {
    changes: Changes,
    columns: SchemaRef,
    key: Vec<usize>,
    encoder: RowEncoder,
}

/// The rows of an epoch that go and those that come, by place: where both have one key they are a pair.
#[derive(Default)]
struct Paired {
    deleted: Vec<u32>,
    updated: Vec<(u32, u32)>,
    inserted: Vec<u32>,
}

impl Feed {
    /// The feed of a sink; fails where it has no key.
    pub fn new(changes: &Changes, spec: &SinkSpec) -> Result<Feed> {
        let key = key(changes, spec)?;
        let wrong = |error: ArrowError| {
            Error::Invalid(format!(
                "the rows of sink '{}' can't be told apart by their key: {error}",
                spec.name
            ))
        };
        let encoder =
            RowEncoder::new(&Arc::new(spec.columns.project(&key).map_err(wrong)?)).map_err(wrong)?;
        if let Changes::Upsert { operation } = changes
            && spec.columns.field_with_name(operation).is_ok()
        {
            return Err(Error::Invalid(format!(
                "column '{operation}' has the name of the field that says what a record does: name another field by \
                 option op_field, or rename the column"
            )));
        }
        Ok(Feed { changes: changes.clone(), columns: spec.columns.clone(), key, encoder })
    }

    /// The records of what an epoch changes in sum.
    pub fn records(&self, delta: &Delta) -> Result<Vec<RecordBatch>> {
        let wrong =
            |error: ArrowError| Error::Bug(format!("a change feed got rows of another schema: {error}"));
        let (inserts, deletes) = delta.split_by_sign().map_err(wrong)?;
        let (old, new) = (self.rows(&deletes).map_err(wrong)?, self.rows(&inserts).map_err(wrong)?);
        let paired = self.pair(&old, &new)?;
        match &self.changes {
            Changes::Upsert { operation } => self.upserts(operation, &old, &new, paired).map_err(wrong),
            Changes::Debezium => envelopes(&old, &new, paired).map_err(wrong),
        }
    }

    fn rows(&self, delta: &Delta) -> Result<RecordBatch, ArrowError> {
        let rows = delta.chunks.iter().map(|chunk| chunk.expand()).collect::<Result<Vec<_>, _>>()?;
        let rows =
            rows.iter().map(|rows| RecordBatch::try_new(self.columns.clone(), rows.columns().to_vec()));
        concat_batches(&self.columns, &rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Puts rows that go together with those that come in their place.
    fn pair(&self, old: &RecordBatch, new: &RecordBatch) -> Result<Paired> {
        let keys = |rows: &RecordBatch| -> Result<arrow::row::Rows> {
            let keys = rows.project(&self.key).and_then(|keys| self.encoder.encode(&keys));
            keys.map_err(|error| Error::Bug(format!("keys of a change feed can't be compared: {error}")))
        };
        let (old_keys, new_keys) = (keys(old)?, keys(new)?);
        let mut going: HashMap<&[u8], u32> = HashMap::with_capacity(old.num_rows());
        for row in 0..old.num_rows() {
            if going.insert(old_keys.row(row).data(), row as u32).is_some() {
                return Err(self.not_unique(old, row));
            }
        }
        let mut paired = Paired::default();
        let mut coming: HashMap<&[u8], ()> = HashMap::with_capacity(new.num_rows());
        for row in 0..new.num_rows() {
            let key = new_keys.row(row).data();
            if coming.insert(key, ()).is_some() {
                return Err(self.not_unique(new, row));
            }
            match going.remove(key) {
                Some(before) => paired.updated.push((before, row as u32)),
                None => paired.inserted.push(row as u32),
            }
        }
        paired.deleted = going.into_values().collect();
        paired.deleted.sort_unstable();
        Ok(paired)
    }

    fn not_unique(&self, rows: &RecordBatch, row: usize) -> Error {
        let key = rows.project(&self.key).map(|key| key.slice(row, 1));
        let text = key
            .and_then(|key| arrow::util::pretty::pretty_format_batches(&[key]).map(|text| text.to_string()));
        Error::Invalid(format!(
            "two rows have one key, so a change feed can't tell them apart:\n{}",
            text.unwrap_or_default()
        ))
    }

    fn upserts(
        &self,
        operation: &str,
        old: &RecordBatch,
        new: &RecordBatch,
        paired: Paired,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut put: Vec<u32> = paired.inserted;
        put.extend(paired.updated.into_iter().map(|(_, new)| new));
        put.sort_unstable();
        let mut records = Vec::new();
        let deleted = old.project(&self.key)?;
        for (word, rows, places) in [("delete", &deleted, paired.deleted), ("upsert", new, put)] {
            if places.is_empty() {
                continue;
            }
            let rows = take_record_batch(rows, &UInt32Array::from(places))?;
            let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(operation, DataType::Utf8View, false))];
            fields.extend(rows.schema().fields().iter().cloned());
            let words = StringViewArray::from_iter_values(std::iter::repeat_n(word, rows.num_rows()));
            let mut columns: Vec<ArrayRef> = vec![Arc::new(words)];
            columns.extend(rows.columns().iter().cloned());
            records.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        }
        Ok(records)
    }
}

/// Debezium's envelopes: deletes first, then updates, then inserts.
fn envelopes(old: &RecordBatch, new: &RecordBatch, paired: Paired) -> Result<Vec<RecordBatch>, ArrowError> {
    let (updated_old, updated_new): (Vec<u32>, Vec<u32>) = paired.updated.into_iter().unzip();
    let none = DataType::Struct(new.schema().fields().clone());
    let rows = |rows: &RecordBatch, places: Vec<u32>| -> Result<ArrayRef, ArrowError> {
        let rows = take_record_batch(rows, &UInt32Array::from(places))?;
        Ok(Arc::new(StructArray::from(rows)))
    };
    let mut records = Vec::new();
    let mut push = |operation: &str, before: ArrayRef, after: ArrayRef| -> Result<(), ArrowError> {
        let count = before.len();
        if count == 0 {
            return Ok(());
        }
        let fields = vec![
            Field::new("before", none.clone(), true),
            Field::new("after", none.clone(), true),
            Field::new("op", DataType::Utf8View, false),
        ];
        let operations = StringViewArray::from_iter_values(std::iter::repeat_n(operation, count));
        let columns: Vec<ArrayRef> = vec![before, after, Arc::new(operations)];
        records.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        Ok(())
    };
    let nothing = |count: usize| new_null_array(&none, count);
    let (deleted, inserted) = (paired.deleted.len(), paired.inserted.len());
    push("d", rows(old, paired.deleted)?, nothing(deleted))?;
    push("u", rows(old, updated_old)?, rows(new, updated_new)?)?;
    push("c", nothing(inserted), rows(new, paired.inserted)?)?;
    Ok(records)
}

/// The columns by which the rows of a sink are changed.
fn key(changes: &Changes, spec: &SinkSpec) -> Result<Vec<usize>> {
    let names = |places: &[usize]| -> String {
        let names: Vec<&str> =
            places.iter().map(|place| spec.columns.field(*place).name().as_str()).collect();
        format!("({})", names.join(", "))
    };
    let hint = "deliver an aggregate by what is to be the key, or a table with that PRIMARY KEY, which CREATE SINK … \
                INTO fills";
    let declared = declared_key(&spec.options, &spec.columns)?;
    match (declared, spec.key.as_deref()) {
        (None, Some([])) => Err(Error::Invalid(format!(
            "sink '{}' delivers one row without a key, and format '{}' changes rows by their key: name a column that \
             is to be it by option primary_key",
            spec.name,
            changes.name()
        ))),
        (None, Some(known)) => Ok(known.to_vec()),
        (Some(declared), Some(known)) if known.iter().all(|place| declared.contains(place)) => Ok(declared),
        (Some(declared), Some(known)) => Err(Error::Invalid(format!(
            "option 'primary_key' is {}, but two rows of sink '{}' may have that in common: the key that is known is \
             {}; {hint}",
            names(&declared),
            spec.name,
            names(known)
        ))),
        (_, None) => Err(Error::Invalid(format!(
            "no key is known of the rows of sink '{}', and format '{}' changes rows by their key: {hint}; or say \
             format = 'json' with changelog = 'true', which needs none",
            spec.name,
            changes.name()
        ))),
    }
}

fn declared_key(options: &Options, columns: &SchemaRef) -> Result<Option<Vec<usize>>> {
    let Some(text) = options.get("primary_key") else { return Ok(None) };
    let place = |name: &str| {
        columns.index_of(name.trim()).map_err(|_| {
            let all: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
            Error::Invalid(format!(
                "option 'primary_key' names column '{}', but there are {}",
                name.trim(),
                all.join(", ")
            ))
        })
    };
    text.split(',').map(place).collect::<Result<Vec<usize>>>().map(Some)
}
