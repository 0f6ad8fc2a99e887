//! Point lookups: some rows of a result, found by their key.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;

use crate::Result;

/// The maximum number of keys of one lookup.
const KEYS_MAX: usize = 1000;

/// The wanted values of some columns, by the columns' places. A reader gets all rows that have a wanted value
/// in each column, and perhaps others.
pub type Wanted = Vec<(usize, ArrayRef)>;

/// Returns all keys whose values are all wanted, one array for each key column. Returns `None` if not every
/// key column has wanted values, or if there are too many keys.
pub fn keys_wanted(
    wanted: &[(usize, ArrayRef)],
    key: impl Iterator<Item = usize>,
) -> Option<Result<Vec<ArrayRef>>> {
    let columns =
        key.map(|place| wanted.iter().find(|(column, _)| *column == place).map(|(_, values)| values));
    let columns: Vec<&ArrayRef> = columns.collect::<Option<_>>()?;
    let count = columns.iter().try_fold(1_usize, |count, values| {
        count.checked_mul(values.len()).filter(|count| *count <= KEYS_MAX)
    })?;
    if columns.is_empty() {
        return None;
    }
    let mut every = count as u32;
    let mut keys = Vec::with_capacity(columns.len());
    for values in columns {
        let length = values.len() as u32;
        every = every.checked_div(length).unwrap_or(0);
        if count == values.len() && every == 1 {
            keys.push(Arc::clone(values));
            continue;
        }
        let places = (0..count as u32).map(|place| (place / every.max(1)) % length.max(1));
        match take(values, &UInt32Array::from_iter_values(places), None) {
            Ok(column) => keys.push(column),
            Err(error) => return Some(Err(error.into())),
        }
    }
    Some(Ok(keys))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn check(wanted: &[(usize, Vec<i32>)], key: &[usize], expected: Option<&[&[i32]]>) {
        let wanted: Wanted = wanted
            .iter()
            .map(|(place, values)| (*place, Arc::new(Int32Array::from(values.clone())) as ArrayRef))
            .collect();
        let found = keys_wanted(&wanted, key.iter().copied()).map(|keys| {
            let keys = keys.unwrap();
            keys.iter().map(|key| key.as_primitive::<Int32Type>().values().to_vec()).collect::<Vec<_>>()
        });
        assert_eq!(found, expected.map(|keys| keys.iter().map(|key| key.to_vec()).collect()));
    }

    #[test]
    fn keys_are_all_combinations() {
        check(&[(1, vec![5])], &[1], Some(&[&[5]]));
        check(
            &[(0, vec![1, 2]), (2, vec![7, 8, 9])],
            &[2, 0],
            Some(&[&[7, 7, 8, 8, 9, 9], &[1, 2, 1, 2, 1, 2]]),
        );
        check(&[(0, vec![1, 2]), (1, vec![])], &[0, 1], Some(&[&[], &[]]));
        check(&[(0, vec![1])], &[0, 1], None);
        check(&[(0, vec![1])], &[], None);
        check(&[(0, vec![1; 100]), (1, vec![1; 100])], &[0, 1], None);
    }
}
