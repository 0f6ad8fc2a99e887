//! State as tables: the form that a checkpoint writes and a start reads.

mod batches;
mod columns;
mod merging;
mod parts;
mod runs;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use millstream_delta::{Chunk, Delta};

use crate::lineage::Run;
use crate::{Error, Result};
pub use batches::Batches;
pub use columns::{Columns, Lists};
pub use merging::Runs;
pub use runs::RunSlots;
pub(crate) use runs::{COUNTS, ROW, SLOT};

/// The columns after all others: the number of copies of a row, and its stored number.
pub(crate) const WEIGHT: &str = "_weight";
pub(crate) const TALLY: &str = "_tally";

/// Named tables, numbers and texts. The state of a part has names such as `part.name`.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    tables: BTreeMap<String, Batches>,
    numbers: BTreeMap<String, i64>,
    texts: BTreeMap<String, String>,
    /// The tables that belong to runs: their names there, and the run.
    runs: BTreeMap<String, (String, Run)>,
}

impl Tables {
    /// Adds a table of batches of one schema. A table without rows is not stored.
    pub fn put(&mut self, name: &str, batches: Vec<RecordBatch>) {
        if batches.iter().any(|batch| batch.num_rows() > 0) {
            self.tables.insert(name.to_string(), batches.into());
        }
    }

    /// Removes and returns a table; one without rows has no batch.
    pub fn take(&mut self, name: &str) -> Result<Vec<RecordBatch>> {
        self.tables.remove(name).map_or_else(|| Ok(Vec::new()), Batches::into_vec)
    }

    /// Adds a table of columns of equal length. All columns may contain NULLs, and names may repeat.
    pub fn put_columns(&mut self, name: &str, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
        let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        self.put(name, vec![RecordBatch::try_new(Arc::new(schema), columns)?]);
        Ok(())
    }

    /// Removes a table with columns of these types, and returns each column in one piece. A missing table has
    /// empty columns.
    pub fn take_columns(&mut self, name: &str, types: &[DataType]) -> Result<Vec<ArrayRef>> {
        let batches = self.take(name)?;
        let fits = |batch: &RecordBatch| batch.columns().iter().map(|column| column.data_type()).eq(types);
        if !batches.iter().all(fits) {
            return Err(Error::Incomplete(format!("table '{name}' has columns of other types")));
        }
        let column = |(at, data_type)| match &batches[..] {
            [] => Ok(new_empty_array(data_type)),
            [batch] => Ok(batch.column(at).clone()),
            _ => {
                let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
                Ok(concat(&parts)?)
            }
        };
        types.iter().enumerate().map(column).collect()
    }

    /// Adds a table of columns of numbers of equal length.
    pub fn put_numbers(&mut self, name: &str, columns: Vec<(&str, Vec<i64>)>) -> Result<()> {
        let column = |(name, numbers)| (name, Arc::new(Int64Array::from(numbers)) as ArrayRef);
        self.put_columns(name, columns.into_iter().map(column).collect())
    }

    /// Removes and returns `columns` columns of numbers. A missing table has empty columns.
    pub fn take_numbers(&mut self, name: &str, columns: usize) -> Result<Vec<Vec<i64>>> {
        let columns = self.take_columns(name, &vec![DataType::Int64; columns])?;
        let numbers = |column: &ArrayRef| {
            let numbers = column.as_primitive_opt::<Int64Type>().filter(|numbers| numbers.null_count() == 0);
            let numbers = numbers.map(|numbers| numbers.values().to_vec());
            numbers.ok_or_else(|| Error::Incomplete(format!("a number of table '{name}' is missing")))
        };
        columns.iter().map(numbers).collect()
    }

    /// Adds rows with their weights; only the sum of the weights of equal rows counts.
    pub fn put_delta(&mut self, name: &str, delta: &Delta) -> Result<()> {
        let batches = delta.chunks.iter().map(with_weights).collect::<Result<_>>()?;
        self.put(name, batches);
        Ok(())
    }

    /// Removes and returns rows with their weights.
    pub fn take_delta(&mut self, name: &str) -> Result<Delta> {
        let mut delta = Delta::default();
        for batch in self.take(name)? {
            delta.push(without_weights(&batch).ok_or_else(|| missing(name, WEIGHT))?);
        }
        Ok(delta)
    }

    /// Adds rows with their weights, and one more column.
    pub fn put_beside(&mut self, name: &str, column: &str, rows: Vec<(Chunk, ArrayRef)>) -> Result<()> {
        let mut batches = Vec::with_capacity(rows.len());
        for (chunk, values) in rows {
            let mut fields: Vec<_> = chunk.rows.schema().fields().iter().cloned().collect();
            fields.push(Arc::new(Field::new(column, values.data_type().clone(), true)));
            let mut columns = chunk.rows.columns().to_vec();
            columns.push(values);
            let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
            batches.push(with_weights(&Chunk { rows, weights: chunk.weights })?);
        }
        self.put(name, batches);
        Ok(())
    }

    /// Removes and returns rows with their weights, and the additional column.
    pub fn take_beside(&mut self, name: &str, column: &str) -> Result<Vec<(Chunk, ArrayRef)>> {
        let mut all = Vec::new();
        for Chunk { rows, weights } in self.take_delta(name)?.chunks {
            let (rows, values) = without_last(&rows, column).ok_or_else(|| missing(name, column))?;
            all.push((Chunk { rows, weights }, values));
        }
        Ok(all)
    }

    /// Adds a number.
    pub fn put_number(&mut self, name: &str, number: i64) {
        self.numbers.insert(name.to_string(), number);
    }

    /// Adds a number, if there is one.
    pub fn put_number_if(&mut self, name: &str, number: Option<i64>) {
        self.numbers.extend(number.map(|number| (name.to_string(), number)));
    }

    /// Removes and returns a number; fails if it is missing.
    pub fn take_number(&mut self, name: &str) -> Result<i64> {
        self.take_number_if(name).ok_or_else(|| Error::Incomplete(format!("there is no number '{name}'")))
    }

    /// Removes and returns a number, if there is one.
    pub fn take_number_if(&mut self, name: &str) -> Option<i64> {
        self.numbers.remove(name)
    }

    /// Adds a text, if there is one.
    pub fn put_text_if(&mut self, name: &str, text: Option<&str>) {
        self.texts.extend(text.map(|text| (name.to_string(), text.to_string())));
    }

    /// Removes and returns a text, if there is one.
    pub fn take_text_if(&mut self, name: &str) -> Option<String> {
        self.texts.remove(name)
    }

    /// Adds the state of a part.
    pub fn put_part(&mut self, part: &str, tables: Tables) {
        let named = |name: String| format!("{part}.{name}");
        self.tables.extend(tables.tables.into_iter().map(|(name, batches)| (named(name), batches)));
        self.numbers.extend(tables.numbers.into_iter().map(|(name, number)| (named(name), number)));
        self.texts.extend(tables.texts.into_iter().map(|(name, text)| (named(name), text)));
        self.runs.extend(tables.runs.into_iter().map(|(name, run)| (named(name), run)));
    }

    /// Adds all other state to this one.
    pub fn put_all(&mut self, tables: Tables) {
        self.tables.extend(tables.tables);
        self.numbers.extend(tables.numbers);
        self.texts.extend(tables.texts);
        self.runs.extend(tables.runs);
    }

    /// Removes and returns the state of a part.
    pub fn take_part(&mut self, part: &str) -> Tables {
        let prefix = format!("{part}.");
        Tables {
            tables: take_under(&mut self.tables, &prefix),
            numbers: take_under(&mut self.numbers, &prefix),
            texts: take_under(&mut self.texts, &prefix),
            runs: take_under(&mut self.runs, &prefix),
        }
    }

    /// Returns the name of an entry not removed yet, if there is one: this version does not know its purpose.
    /// A deferred table counts even if it will have no rows.
    pub fn left(&self) -> Option<&str> {
        self.tables.keys().chain(self.numbers.keys()).chain(self.texts.keys()).next().map(String::as_str)
    }

    /// Returns the tables by name.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &Batches)> {
        self.tables.iter().map(|(name, batches)| (name.as_str(), batches))
    }

    /// Returns true if there is a number of this name.
    pub fn has_number(&self, name: &str) -> bool {
        self.numbers().any(|(other, _)| other == name)
    }

    /// Returns the numbers by name.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, i64)> {
        self.numbers.iter().map(|(name, number)| (name.as_str(), *number))
    }

    /// Returns the texts by name.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

fn take_under<T>(named: &mut BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
    let (under, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        std::mem::take(named).into_iter().partition(|(name, _)| name.starts_with(prefix));
    *named = rest;
    under.into_iter().map(|(name, value)| (name[prefix.len()..].to_string(), value)).collect()
}

fn missing(name: &str, column: &str) -> Error {
    Error::Incomplete(format!("table '{name}' has no column '{column}'"))
}

/// Returns the rows of a chunk with their weights as a column.
fn with_weights(chunk: &Chunk) -> Result<RecordBatch> {
    let mut fields: Vec<_> = chunk.rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
    let mut columns = chunk.rows.columns().to_vec();
    columns.push(Arc::new(chunk.weights_or_ones()));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The inverse of [`with_weights`].
fn without_weights(batch: &RecordBatch) -> Option<Chunk> {
    let (rows, weights) = without_last(batch, WEIGHT)?;
    let weights: &Int64Array = weights.as_primitive_opt::<Int64Type>()?;
    let plain = weights.null_count() == 0 && weights.values().iter().all(|weight| *weight == 1);
    Some(Chunk { rows, weights: (!plain).then(|| weights.clone()) })
}

/// Splits a batch into the other columns and its last one, if that has this name.
fn without_last(batch: &RecordBatch, name: &str) -> Option<(RecordBatch, ArrayRef)> {
    let (last, columns) = batch.columns().split_last()?;
    let schema = batch.schema();
    let (field, fields) = schema.fields().split_last()?;
    if field.name() != name {
        return None;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    Some((RecordBatch::try_new_with_options(schema, columns.to_vec(), &options).ok()?, last.clone()))
}

#[cfg(test)]
mod changed_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_taken_once() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
        let rows = RecordBatch::try_from_iter([("x", column.clone())]).unwrap();
        let mut part = Tables::default();
        let delta = Delta::of(Chunk { rows: rows.clone(), weights: Some(Int64Array::from(vec![1, 2])) });
        part.put_delta("rows", &delta).unwrap();
        part.put_columns("keys", vec![("a", column.clone()), ("a", column)]).unwrap();
        part.put_number("late", 7);
        part.put_number_if("first", None);
        part.put_text_if("failed", Some("overflow"));
        let mut all = Tables::default();
        all.put_part("join.left", part);
        assert_eq!(all.left(), Some("join.left.keys"));
        let mut part = all.take_part("join.left");
        assert_eq!(all.left(), None);
        let taken = part.take_delta("rows").unwrap();
        assert_eq!((taken.chunks[0].rows.clone(), taken.chunks[0].weight(1)), (rows, 2));
        assert_eq!(part.take("keys").unwrap()[0].num_columns(), 2);
        assert_eq!((part.take_number("late").unwrap(), part.take_number_if("first")), (7, None));
        assert_eq!(part.left(), Some("failed"));
        assert_eq!(part.take_text_if("failed").as_deref(), Some("overflow"));
        assert!(matches!(part.take_number("late"), Err(Error::Incomplete(_))));
        assert!(part.left().is_none() && part.take("keys").unwrap().is_empty());
    }

    #[test]
    fn a_column_beside_rows_is_none_of_theirs() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
        let rows = RecordBatch::try_from_iter([("_window", column.clone())]).unwrap();
        let windows: ArrayRef = Arc::new(Int64Array::from(vec![Some(9), None]));
        let chunk = Chunk { rows: rows.clone(), weights: Some(Int64Array::from(vec![1, -2])) };
        let mut tables = Tables::default();
        tables.put_beside("rows", "_window", vec![(chunk, windows.clone())]).unwrap();
        let mut copy = tables.clone();
        let (chunk, beside) = tables.take_beside("rows", "_window").unwrap().remove(0);
        assert_eq!((chunk.rows.clone(), chunk.weight(1), beside), (rows, -2, windows));
        assert!(matches!(copy.take_beside("rows", "_key"), Err(Error::Incomplete(_))));
    }

    #[test]
    fn columns_of_numbers_come_back_in_one_piece() {
        let mut tables = Tables::default();
        tables.put_numbers("totals", vec![("a", vec![1, -2]), ("b", vec![3, 4])]).unwrap();
        let mut batches = tables.take("totals").unwrap();
        batches.push(batches[0].slice(1, 1));
        tables.put("totals", batches);
        assert!(matches!(tables.clone().take_numbers("totals", 1), Err(Error::Incomplete(_))));
        assert_eq!(tables.take_numbers("totals", 2).unwrap(), [[1, -2, -2], [3, 4, 4]]);
        assert_eq!(tables.take_numbers("totals", 2).unwrap(), [[0i64; 0]; 2]);
        let gap: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1)]));
        tables.put_columns("totals", vec![("a", gap)]).unwrap();
        assert!(matches!(tables.take_numbers("totals", 1), Err(Error::Incomplete(_))));
    }

    #[test]
    fn rows_without_columns_are_kept_too() {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let rows =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
        let mut tables = Tables::default();
        let delta = Delta::of(Chunk { rows, weights: Some(Int64Array::from(vec![5])) });
        tables.put_delta("rows", &delta).unwrap();
        let taken = tables.take_delta("rows").unwrap();
        assert_eq!((taken.chunks[0].rows.num_rows(), taken.chunks[0].weight(0)), (1, 5));
    }
}
