//! Folds rows into the states of their groups: many groups at once, each in the order of its rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, concat, interleave, take};
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;

/// The function that adds a row to a state.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    /// Computes the new state from the old one and the row's values.
    pub(super) physical: Arc<dyn PhysicalExpr>,
    /// The columns of the old state and the values.
    pub(super) schema: SchemaRef,
    /// True if rows with a NULL are skipped.
    pub(super) strict: bool,
    /// True if the first row's first value is the initial state.
    pub(super) first_is_state: bool,
}

/// The states of some groups.
#[derive(Debug)]
pub(super) struct States {
    pub(super) values: ArrayRef,
    /// True for each group that has added a row.
    pub(super) begun: Vec<bool>,
}

/// The rows of a batch by group, in their order within each group. Groups with more rows come first.
struct Rounds {
    /// The groups.
    groups: Vec<u32>,
    /// For each group, the start of its rows in `rows`, and their number.
    ranges: Vec<(usize, usize)>,
    rows: Vec<u32>,
}

impl Rounds {
    fn new(groups: &[usize], count: usize, counts: impl Fn(usize) -> bool) -> Rounds {
        let mut sizes = vec![0_usize; count];
        let rows = || groups.iter().enumerate().filter(|(row, _)| counts(*row));
        rows().for_each(|(_, group)| sizes[*group] += 1);
        let mut touched: Vec<u32> =
            (0..count).filter(|group| sizes[*group] > 0).map(|group| group as u32).collect();
        touched.sort_by_key(|group| std::cmp::Reverse(sizes[*group as usize]));
        let mut next = vec![0_usize; count];
        let mut ranges = Vec::with_capacity(touched.len());
        let mut total = 0;
        for group in &touched {
            let size = sizes[*group as usize];
            next[*group as usize] = total;
            ranges.push((total, size));
            total += size;
        }
        let mut sorted = vec![0; total];
        for (row, group) in rows() {
            sorted[next[*group]] = row as u32;
            next[*group] += 1;
        }
        Rounds { groups: touched, ranges, rows: sorted }
    }

    /// Returns the rows of a round, one for each of the first groups.
    fn round(&self, round: usize) -> UInt32Array {
        let having = self.ranges.iter().take_while(|(_, size)| *size > round);
        UInt32Array::from_iter_values(having.map(|(start, _)| self.rows[start + round]))
    }
}

impl Fold {
    /// Adds rows to their groups' states, in as many evaluations as the largest group has rows.
    pub(super) fn fold(&self, states: &mut States, values: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let complete = |row: usize| !self.strict || values.iter().all(|value| value.is_valid(row));
        let rounds = Rounds::new(groups, states.begun.len(), complete);
        if rounds.groups.is_empty() {
            return Ok(());
        }
        let mut current = take(&states.values, &UInt32Array::from(rounds.groups.clone()), None)?;
        let mut done = Vec::new();
        for round in 0..rounds.ranges[0].1 {
            let rows = rounds.round(round);
            if rows.len() < current.len() {
                done.push(current.slice(rows.len(), current.len() - rows.len()));
                current = current.slice(0, rows.len());
            }
            let values: Vec<ArrayRef> =
                values.iter().map(|value| take(value, &rows, None)).collect::<Result<_, _>>()?;
            let begun = |place: usize| round > 0 || states.begun[rounds.groups[place] as usize];
            current = self.step(&current, values, begun)?;
        }
        done.push(current);
        done.reverse();
        let new = concat(&done.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let mut places: Vec<(usize, usize)> = (0..states.begun.len()).map(|group| (0, group)).collect();
        for (place, group) in rounds.groups.iter().enumerate() {
            places[*group as usize] = (1, place);
            states.begun[*group as usize] = true;
        }
        states.values = interleave(&[states.values.as_ref(), new.as_ref()], &places)?;
        Ok(())
    }

    /// Adds one row to each state.
    fn step(
        &self,
        current: &ArrayRef,
        values: Vec<ArrayRef>,
        begun: impl Fn(usize) -> bool,
    ) -> Result<ArrayRef> {
        let count = current.len();
        let first = match values.first() {
            Some(first) if self.first_is_state => Some(cast(first, current.data_type())?),
            _ => None,
        };
        let mask = BooleanArray::from_iter((0..count).map(|place| Some(begun(place))));
        if let Some(first) = &first
            && !mask.has_true()
        {
            return Ok(first.clone());
        }
        let mut columns = vec![current.clone()];
        columns.extend(values);
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let new = self.physical.evaluate(&rows)?.into_array(count)?;
        match first {
            Some(first) if mask.has_false() => Ok(zip(&mask, &new, &first)?),
            _ => Ok(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;

    /// Computes state * 10 + value.
    fn digits(strict: bool, first_is_state: bool) -> Fold {
        let fields = ["s", "v"].map(|name| Field::new(name, DataType::Int64, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let tenfold = binary(col("s", &schema).unwrap(), Operator::Multiply, lit(10_i64), &schema).unwrap();
        let physical = binary(tenfold, Operator::Plus, col("v", &schema).unwrap(), &schema).unwrap();
        Fold { physical, schema, strict, first_is_state }
    }

    fn check(fold: &Fold, states: &[Option<i64>], rows: &[(usize, Option<i64>)], expect: &[Option<i64>]) {
        let mut states = States {
            values: Arc::new(Int64Array::from(states.to_vec())),
            begun: states.iter().map(Option::is_some).collect(),
        };
        let values: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|(_, value)| *value)));
        let groups: Vec<usize> = rows.iter().map(|(group, _)| *group).collect();
        fold.fold(&mut states, &[values], &groups).unwrap();
        let found: Vec<Option<i64>> = states.values.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn rows_are_taken_in_their_order_group_by_group() {
        let rows = [(1, Some(1)), (0, Some(5)), (1, Some(2)), (3, Some(7)), (1, Some(3))];
        let states = [Some(0), Some(9), Some(4), Some(0)];
        check(&digits(false, false), &states, &rows, &[Some(5), Some(9123), Some(4), Some(7)]);
        check(&digits(false, false), &states, &[], &states);
    }

    #[test]
    fn a_strict_fold_passes_nulls_over_and_may_begin_with_a_value() {
        let rows = [(0, None), (0, Some(1)), (0, None), (0, Some(2)), (1, Some(3)), (2, None)];
        check(&digits(true, true), &[None, Some(4), None], &rows, &[Some(12), Some(43), None]);
        check(&digits(false, false), &[Some(0), Some(0), Some(0)], &rows, &[None, Some(3), None]);
    }
}
