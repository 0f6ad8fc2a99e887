//! Saving and loading arranged rows as a table.

use millstream_delta::Delta;

use super::Arranged;
use crate::lineage::Bits;
use crate::store::table::{Told, untold};
use crate::{Error, Result, Tables};

impl Arranged {
    /// Adds the rows of some slots as a table. Each row refers to its slot by the slot's index in `slots`.
    pub fn save(&self, slots: &[u32], name: &str, to: &mut Tables) -> Result<()> {
        let of = |(place, slot): (i64, &u32)| self.ids(*slot).iter().map(move |id| (*id, place));
        to.put(name, self.store.told((0..).zip(slots).flat_map(of))?);
        Ok(())
    }

    /// Adds the changes since the newest checkpoint as a table, or all rows if the checkpoint holds the
    /// complete state. In that case `slots` returns all slots that have rows. Rows refer to their slots;
    /// another table maps these to indices.
    pub fn save_changed(&self, slots: impl FnOnce() -> Vec<u32>, name: &str, to: &mut Tables) -> Result<()> {
        let run = self.marks.run();
        let touched = if run.is_whole() { slots() } else { Bits::slots(self.marks.since(&run)) };
        let from = self.store.new_from(&run);
        let mut new = Vec::new();
        for slot in touched {
            let ids = self.ids(slot);
            let first = ids.partition_point(|id| *id < from);
            new.extend(ids[first..].iter().map(|id| (*id, slot)));
        }
        self.store.save_run(&run, Some(new), name, to);
        Ok(())
    }

    /// Like [`Arranged::save_changed`], but without slots, which follow from the rows. Merged runs have the
    /// form of [`Tables::put_delta`].
    pub fn save_changed_rows(&self, name: &str, to: &mut Tables) -> Result<()> {
        self.store.save_run(&self.marks.run(), None, name, to);
        Ok(())
    }

    /// Returns the rows of some slots with their numbers of copies, in order of arrival.
    pub fn delta(&self, slots: &[u32]) -> Result<Delta> {
        let ids = slots.iter().flat_map(|slot| self.ids(*slot)).map(|id| (*id, self.count(*id)));
        let mut delta = Delta::default();
        self.store.weighted(ids)?.into_iter().for_each(|chunk| delta.push(chunk));
        Ok(delta)
    }

    /// Loads such a table into an empty multiset. The slots are now 0, 1, 2 and so on, below `slots`. The
    /// rows of each slot keep their order of arrival.
    pub fn load(&mut self, slots: usize, name: &str, from: &mut Tables) -> Result<()> {
        for batch in from.take(name)? {
            let Told { rows, keys, counts, tallies } = untold(&batch, self.store.schema())?;
            let slot = |key: &i64| u32::try_from(*key).ok().filter(|slot| (*slot as usize) < slots);
            let owners: Option<Vec<u32>> = keys.iter().map(slot).collect();
            match owners.filter(|_| counts.iter().all(|count| *count > 0)) {
                Some(owners) => self.append(&rows, Some(&counts), Some(tallies), &owners)?,
                None => return Err(Error::Incomplete(format!("a row of table '{name}' has no key"))),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use millstream_delta::Chunk;

    use super::*;
    use crate::Placed;

    fn schema(names: &[&str]) -> SchemaRef {
        let field = |name: &&str| Field::new(*name, DataType::Int64, true);
        Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
    }

    /// Returns rows with one column, which encodes the slot and the number of the row.
    fn change(rows: &[(u32, i64, i64)], tallies: Option<Vec<i64>>) -> Placed {
        let column =
            Int64Array::from_iter_values(rows.iter().map(|(slot, row, _)| i64::from(*slot) * 1000 + row));
        let weights = Some(rows.iter().map(|(.., weight)| *weight).collect());
        let rows_of = RecordBatch::try_new(schema(&["x"]), vec![Arc::new(column)]).unwrap();
        let slots = rows.iter().map(|(slot, ..)| *slot).collect();
        Placed { chunk: Chunk { rows: rows_of, weights }, slots, tallies }
    }

    /// Returns each slot's rows in order, with their copies and stored numbers.
    fn all(rows: &Arranged, slots: &[u32]) -> Vec<Vec<(RecordBatch, i64, i64)>> {
        let one = |id: &u64| {
            let (batch, counts) = rows.gather_counted(&[*id], &[0]).unwrap();
            (batch, counts[0], rows.tally(*id))
        };
        slots.iter().map(|slot| rows.ids(*slot).iter().map(one).collect()).collect()
    }

    #[test]
    fn each_slot_has_its_rows_in_their_order() {
        for tallied in [false, true] {
            let mut rows = Arranged::new(schema(&["x"]));
            for round in 0..40i64 {
                let some: Vec<(u32, i64, i64)> =
                    (0..60).map(|row| (((row * 7 + round) % 11) as u32, row, 1 + row % 3)).collect();
                let tallies = tallied.then(|| some.iter().map(|(_, row, _)| row % 4).collect());
                rows.apply(vec![change(&some, tallies)]).unwrap();
                let gone: Vec<(u32, i64, i64)> = some
                    .iter()
                    .filter(|(_, row, _)| row % 5 == 0)
                    .map(|(slot, row, _)| (*slot, *row, -1))
                    .collect();
                rows.apply(vec![change(&gone, None)]).unwrap();
            }
            // The slots include one without rows, and omit one with rows.
            let slots: Vec<u32> = vec![8, 2, 50, 0, 1, 3, 4, 5, 6, 7, 9];
            let mut tables = Tables::default();
            rows.save(&slots, "rows", &mut tables).unwrap();
            let columns = tables.tables().next().unwrap().1.get().unwrap()[0].num_columns();
            assert_eq!(columns, if tallied { 4 } else { 3 });
            let mut new = Arranged::new(schema(&["x"]));
            assert!(matches!(new.load(3, "rows", &mut tables.clone()), Err(Error::Incomplete(_))));
            let mut new = Arranged::new(new.schema().clone());
            new.load(slots.len(), "rows", &mut tables).unwrap();
            assert_eq!(all(&new, &(0..slots.len() as u32).collect::<Vec<_>>()), all(&rows, &slots));
            assert_eq!(tables.left(), None);
            let delta = new.delta(&[1, 4]).unwrap();
            let copies: i64 =
                delta.chunks.iter().map(|chunk| chunk.weights_or_ones().values().iter().sum::<i64>()).sum();
            let expected =
                all(&rows, &[2, 1]).into_iter().flatten().map(|(_, copies, _)| copies).sum::<i64>();
            assert_eq!(copies, expected);
            // Rows are still found by their content.
            let there = all(&new, &[1]).swap_remove(0);
            let gone = there.iter().map(|(row, copies, _)| Placed {
                chunk: Chunk { rows: row.clone(), weights: Some(vec![-copies].into()) },
                slots: vec![1],
                tallies: None,
            });
            new.apply(gone.collect()).unwrap();
            assert_eq!(new.rows_of(1), 0);
        }
    }

    #[test]
    fn rows_with_other_columns_do_not_fit() {
        let mut rows = Arranged::new(schema(&["x"]));
        rows.apply(vec![change(&[(0, 1, 1), (1, 2, 1)], None)]).unwrap();
        let mut tables = Tables::default();
        rows.save(&[0, 1], "rows", &mut tables).unwrap();
        for names in [&[][..], &["x", "y"], &["x", "y", "z"]] {
            let mut other = Arranged::new(schema(names));
            assert!(matches!(other.load(2, "rows", &mut tables.clone()), Err(Error::Incomplete(_))));
        }
        let mut none = Arranged::new(schema(&["x"]));
        none.load(0, "rows", &mut Tables::default()).unwrap();
        assert_eq!(none.num_rows(), 0);
    }
}
