//! Many similar parts, such as the panes of a window: each of their tables becomes one table, whatever their
//! number.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::Tables;
use crate::{Error, Result};

/// The first column: the part that a row belongs to.
const PART: &str = "_part";
/// The number of parts.
const COUNT: &str = "_parts";
/// The tables of the parts' numbers and texts.
const NUMBERS: &str = "_numbers";
const TEXTS: &str = "_texts";

impl Tables {
    /// Adds the state of similar parts, in order.
    pub fn put_parts(&mut self, name: &str, parts: Vec<Tables>) -> Result<()> {
        let mut all = Tables::default();
        all.put_number(COUNT, parts.len() as i64);
        let mut tables: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for (place, part) in parts.into_iter().enumerate() {
            let place = place as i64;
            for (table, batches) in part.tables {
                let batches = batches.into_vec()?;
                let batches = batches.iter().map(|batch| with_part(batch, place));
                tables.entry(table).or_default().extend(batches.collect::<Result<Vec<_>>>()?);
            }
            numbers.extend(part.numbers.into_iter().map(|(name, number)| (place, name, number)));
            texts.extend(part.texts.into_iter().map(|(name, text)| (place, name, text)));
        }
        tables.into_iter().for_each(|(table, batches)| all.put(&table, batches));
        let of = Int64Array::from_iter_values(numbers.iter().map(|(place, ..)| *place));
        let names = StringArray::from_iter_values(numbers.iter().map(|(_, name, _)| name));
        let values = Int64Array::from_iter_values(numbers.iter().map(|(.., number)| *number));
        all.put_columns(
            NUMBERS,
            vec![(PART, Arc::new(of)), ("name", Arc::new(names)), ("number", Arc::new(values))],
        )?;
        let of = Int64Array::from_iter_values(texts.iter().map(|(place, ..)| *place));
        let names = StringArray::from_iter_values(texts.iter().map(|(_, name, _)| name));
        let values = StringArray::from_iter_values(texts.iter().map(|(.., text)| text));
        all.put_columns(
            TEXTS,
            vec![(PART, Arc::new(of)), ("name", Arc::new(names)), ("text", Arc::new(values))],
        )?;
        self.put_part(name, all);
        Ok(())
    }

    /// Removes and returns the state of such parts.
    pub fn take_parts(&mut self, name: &str) -> Result<Vec<Tables>> {
        let mut all = self.take_part(name);
        let count = all.take_number(COUNT)?;
        let mut parts: Vec<Tables> = (0..count).map(|_| Tables::default()).collect();
        let numbers = all.take_table(NUMBERS)?;
        let (of, names) = (numbers.numbers::<Int64Type>(PART)?, numbers.texts("name")?);
        for (row, number) in numbers.numbers::<Int64Type>("number")?.values().iter().enumerate() {
            at(&mut parts, of.value(row), name)?.put_number(names.value(row), *number);
        }
        let texts = all.take_table(TEXTS)?;
        let (of, names, values) =
            (texts.numbers::<Int64Type>(PART)?, texts.texts("name")?, texts.texts("text")?);
        for row in 0..texts.num_rows() {
            at(&mut parts, of.value(row), name)?.put_text_if(names.value(row), Some(values.value(row)));
        }
        for (table, batches) in std::mem::take(&mut all.tables) {
            let mut of_parts: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
            for batch in batches.into_vec()? {
                for (part, rows) in without_part(&batch).ok_or_else(|| super::missing(&table, PART))? {
                    of_parts.entry(part).or_default().push(rows);
                }
            }
            for (part, batches) in of_parts {
                at(&mut parts, part, name)?.put(&table, batches);
            }
        }
        match all.left() {
            None => Ok(parts),
            Some(left) => Err(Error::Incomplete(format!("'{name}' has '{left}' besides its parts"))),
        }
    }
}

fn at<'a>(parts: &'a mut [Tables], part: i64, name: &str) -> Result<&'a mut Tables> {
    let count = parts.len();
    let found = usize::try_from(part).ok().and_then(|place| parts.get_mut(place));
    found.ok_or_else(|| Error::Incomplete(format!("'{name}' has {count} parts, and rows of part {part}")))
}

/// Returns rows with the column of their part.
fn with_part(batch: &RecordBatch, part: i64) -> Result<RecordBatch> {
    let mut fields = vec![Arc::new(Field::new(PART, DataType::Int64, false))];
    fields.extend(batch.schema().fields().iter().cloned());
    let mut columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(Int64Array::from_value(part, batch.num_rows()))];
    columns.extend_from_slice(batch.columns());
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The inverse of [`with_part`]: splits a batch into the rows of each part, which are adjacent.
fn without_part(batch: &RecordBatch) -> Option<Vec<(i64, RecordBatch)>> {
    let (of, columns) = batch.columns().split_first()?;
    let schema = batch.schema();
    let (first, fields) = schema.fields().split_first()?;
    let of = of.as_primitive_opt::<Int64Type>().filter(|_| first.name() == PART)?;
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema, columns.to_vec(), &options).ok()?;
    let mut start = 0;
    let part = |same: &[i64]| {
        let rows = rows.slice(start, same.len());
        start += same.len();
        (same[0], rows)
    };
    Some(of.values().chunk_by(|a, b| a == b).map(part).collect())
}

#[cfg(test)]
mod tests {
    use super::super::Lists;
    use super::*;
    use arrow::array::ArrayRef;
    use arrow::datatypes::Float64Type;

    fn part(values: &[i64]) -> Tables {
        let mut part = Tables::default();
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        part.put_columns("values", vec![("v", column)]).unwrap();
        part.put_number("end", values.len() as i64);
        part.put_number_if("least", values.iter().min().copied());
        part.put_text_if("failed", values.is_empty().then_some("nothing"));
        part
    }

    #[test]
    fn parts_that_are_alike_are_told_by_their_order() {
        let all = [&[3, 4][..], &[], &[5], &[6, 7, 8]];
        let mut kept = Tables::default();
        kept.put_parts("panes", all.iter().map(|values| part(values)).collect()).unwrap();
        kept.put_parts("none", Vec::new()).unwrap();
        assert_eq!(kept.tables().filter(|(name, _)| *name == "panes.values").count(), 1);
        assert!(kept.take_parts("none").unwrap().is_empty());
        let parts = kept.take_parts("panes").unwrap();
        assert!(kept.left().is_none() && parts.len() == 4);
        for (mut part, values) in parts.into_iter().zip(all) {
            let kept = part.take_rows("values", values.len()).unwrap();
            assert_eq!(kept.numbers::<Int64Type>("v").unwrap().values(), values);
            assert_eq!(part.take_number("end").unwrap(), values.len() as i64);
            assert_eq!(part.take_number_if("least"), values.iter().min().copied());
            assert_eq!(part.take_text_if("failed").is_some(), values.is_empty());
            assert!(part.left().is_none());
        }
    }

    #[test]
    fn columns_are_of_the_type_that_is_asked_for() {
        let mut lists = Lists::<Float64Type>::default();
        lists.push(|_| {});
        lists.push(|list| list.extend([-0.0, f64::INFINITY]));
        let mut kept = Tables::default();
        kept.put_columns("sums", vec![("terms", lists.column().unwrap())]).unwrap();
        assert!(matches!(kept.clone().take_rows("sums", 3), Err(Error::Incomplete(_))));
        let columns = kept.take_rows("sums", 2).unwrap();
        let lists = columns.lists::<Float64Type>("terms").unwrap();
        let bits: Vec<Vec<u64>> =
            lists.iter().map(|list| list.iter().map(|term| term.to_bits()).collect()).collect();
        assert_eq!(bits, [vec![], vec![(-0.0f64).to_bits(), f64::INFINITY.to_bits()]]);
        assert!(matches!(columns.lists::<Int64Type>("terms"), Err(Error::Incomplete(_))));
        assert!(matches!(columns.numbers::<Int64Type>("terms"), Err(Error::Incomplete(_))));
        assert!(matches!(columns.booleans("sums"), Err(Error::Incomplete(_))));
        let nothing = kept.take_table("sums").unwrap();
        assert!(nothing.is_empty() && nothing.numbers::<Int64Type>("any").unwrap().is_empty());
    }
}
