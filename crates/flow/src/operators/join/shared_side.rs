//! Sides of a join in shared arrangements.

use std::sync::Arc;

use millstream_delta::Delta;
use millstream_state::{KeyIndex, Placed};

use super::side::Side;
use super::{Alone, Join};
use crate::Result;
use crate::arrangement::{Arrangement, By};
use crate::operator::ArrangesSides;

impl Join {
    /// Returns true if a side may move to an arrangement: the join keeps its rows by key, and no state of its
    /// own beside them.
    pub(crate) fn may_move_out(&self, at: usize) -> bool {
        let tallies = self.condition.is_some() && self.shape.alone[at] != Alone::Never;
        !self.keys.are_one() && self.sides[at].rows.is_some() && !tallies && self.interval_bounds.is_none()
    }

    /// Describes the state and its place for EXPLAIN.
    pub(super) fn state_text(&self) -> String {
        let rows = |side: &Side| side.rows.is_some() || side.elsewhere.is_some();
        let by_key = if self.keys.are_one() { "" } else { " by key" };
        let mut text = match self.sides.iter().filter(|side| rows(side)).count() {
            2 => format!("both sides{by_key}"),
            _ => format!("one side{by_key}, of the other the number of rows of each key"),
        };
        let [left, right] = &self.sides;
        match (&left.elsewhere, &right.elsewhere) {
            (None, None) => {}
            (Some(left), Some(right)) => {
                let (left, right) = (&left.arrangement, &right.arrangement);
                let same = Arc::ptr_eq(left, right);
                text += if same { " in one arrangement" } else { " in arrangements" };
                let readers = [shared_by(left), shared_by(right)];
                text += &if readers[0] == readers[1] { readers[0].clone() } else { readers.join(" and") };
            }
            (Some(left), None) => {
                text += &format!(", the left one in an arrangement{}", shared_by(&left.arrangement));
            }
            (None, Some(right)) => {
                text += &format!(", the right one in an arrangement{}", shared_by(&right.arrangement));
            }
        }
        text
    }
}

impl ArrangesSides for Join {
    fn move_out(&mut self, at: usize, arrangement: &Arc<Arrangement>, columns: Vec<usize>) -> Result<()> {
        let is_elsewhere = self.sides[at].elsewhere.is_some();
        self.sides[at].move_out(arrangement.clone(), columns);
        if is_elsewhere {
            return Ok(());
        }
        let other = &self.sides[1 - at];
        if other.elsewhere.is_some() {
            self.keys.reset()?;
            return Ok(());
        }
        let others = |index: &KeyIndex| {
            index.live().into_iter().filter(|slot| other.is_empty(*slot)).collect::<Vec<u32>>()
        };
        let gone = self.keys.index().map_or_else(Vec::new, others);
        if self.may_move_out(1 - at) && other.num_rows() <= gone.len() {
            // Inserting the remaining side's keys anew costs less than removing the others.
            let rows = self.content_of(1 - at)?;
            self.keys.reset()?;
            self.move_in(1 - at, rows)?;
        } else if let Some(index) = self.keys.index_mut() {
            gone.into_iter().for_each(|slot| index.free(slot));
        }
        Ok(())
    }

    fn move_in(&mut self, at: usize, rows: Delta) -> Result<()> {
        let keys = std::mem::take(&mut self.sides[at].keys);
        let mut side = Side::new(&self.shape, self.condition.is_some(), at, keys);
        for chunk in rows.chunks {
            let keys = crate::driver::evaluate(&side.keys, &chunk.rows)?;
            let mut slots = Vec::with_capacity(chunk.rows.num_rows());
            if let Some(index) = self.keys.index_mut() {
                index.slots(&keys, &mut slots)?;
            }
            side.take(Placed { chunk, slots, tallies: None })?;
        }
        self.sides[at] = side;
        Ok(())
    }

    fn arranged(
        &self,
        at: usize,
        by: By,
        columns: Vec<usize>,
        places: &[usize],
    ) -> Result<Option<Arrangement>> {
        let (Some(index), Some(rows)) = (self.keys.index(), &self.sides[at].rows) else { return Ok(None) };
        Arrangement::of_rows(by, columns, (index, rows.project(places)?))
    }

    fn content_of(&self, at: usize) -> Result<Delta> {
        self.sides[at].content(self.keys.index())
    }

    fn count_elsewhere(&mut self, at: usize, counted: bool) {
        if let Some(elsewhere) = &mut self.sides[at].elsewhere {
            elsewhere.counted = counted;
        }
    }
}

/// Describes the readers of an arrangement, if there are others than this query.
fn shared_by(arrangement: &Arrangement) -> String {
    match &arrangement.readers()[..] {
        [] | [_] => String::new(),
        readers => format!(" shared by {}", readers.join(", ")),
    }
}
