//! The rows of a live view, at their places on the screen.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::state::{ROWS_MAX, Row, Values};

/// The rows of a result in display order, at most [`ROWS_MAX`]; further rows are only counted.
#[derive(Debug, Default)]
pub struct KeptRows {
    rows: BTreeMap<u64, Row>,
    /// The places of the kept rows, by hash.
    places: HashMap<u64, Vec<u64>>,
    /// Number of all rows.
    total: i64,
    /// Number of kept rows.
    kept: usize,
    /// The newest place.
    newest: u64,
}

/// The effect of a batch on the kept rows.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// The batch's inserted rows, by place.
    coming: HashMap<u64, usize>,
    /// The places of deleted rows.
    left: Vec<u64>,
}

impl KeptRows {
    /// Returns the number of all rows.
    pub fn total(&self) -> i64 {
        self.total
    }

    /// Returns the number of kept rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the kept rows, in display order.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Drops the rows; new ones get new places.
    pub(super) fn clear(&mut self) {
        *self = KeptRows { newest: self.newest, ..KeptRows::default() };
    }

    /// Removes a row. Returns its place if the row was kept.
    pub(super) fn remove(&mut self, hash: u64, moves: &mut Moves) -> Option<u64> {
        self.total -= 1;
        let places = self.places.get_mut(&hash)?;
        let place = places.pop()?;
        if places.is_empty() {
            self.places.remove(&hash);
        }
        self.kept -= 1;
        moves.coming.remove(&place);
        moves.left.push(place);
        Some(place)
    }

    /// Adds row number `row` of a batch: at the place just freed, or at a new one while there is room.
    pub(super) fn add(&mut self, hash: u64, row: usize, freed: Option<u64>, moves: &mut Moves) {
        self.total += 1;
        let place = freed.or_else(|| {
            (self.kept < ROWS_MAX).then(|| {
                self.newest += 1;
                self.newest
            })
        });
        if let Some(place) = place {
            self.places.entry(hash).or_default().push(place);
            self.kept += 1;
            moves.coming.insert(place, row);
        }
    }

    /// Drops the deleted rows of a batch, and formats the inserted ones.
    pub(super) fn settle(
        &mut self,
        moves: Moves,
        changed: Option<Instant>,
        mut values: impl FnMut(usize) -> Values,
    ) {
        let Moves { coming, left } = moves;
        for place in left.iter().filter(|place| !coming.contains_key(place)) {
            self.rows.remove(place);
        }
        for (place, row) in coming {
            let before = self.rows.remove(&place).map(|row| row.values);
            self.rows.insert(place, Row { values: values(row), before, changed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_that_another_has_freed() {
        let (mut rows, mut moves) = (KeptRows::default(), Moves::default());
        let value = |row: usize| -> Values { [Some(row.to_string())].into() };
        (0..3).for_each(|row| rows.add(row as u64, row, None, &mut moves));
        rows.settle(moves, None, value);
        let mut moves = Moves::default();
        let freed = rows.remove(1, &mut moves);
        rows.add(9, 7, freed, &mut moves);
        assert_eq!(rows.remove(2, &mut moves), Some(3));
        // A row that isn't kept only counts.
        assert_eq!(rows.remove(77, &mut moves), None);
        rows.settle(moves, None, value);
        let shown: Vec<_> = rows.iter().map(|row| row.values[0].clone().unwrap()).collect();
        assert_eq!((shown, rows.total()), (vec!["0".to_owned(), "7".to_owned()], 1));
        assert!(rows.iter().nth(1).is_some_and(|row| row.before.is_some()));
    }
}
