//! What rows of either side become in the result of a join.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::JoinType;

use crate::Result;

/// What becomes of the rows of one side by themselves, once for each row whatever its matches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Nothing.
    Never,
    /// A row that has no match is there.
    Unmatched,
    /// A row that has a match is there.
    Matched,
    /// Every row is there, with whether it has a match.
    Marked,
    /// A row is there that had no match when it went, since none was expected any more.
    OnLeaving,
}

impl Alone {
    /// The weight that a row which is there `count` times has in the result while it has a match, or has none.
    pub fn weight(self, matched: bool, count: i64) -> i64 {
        match (self, matched) {
            (Alone::Matched, true) | (Alone::Unmatched, false) | (Alone::Marked, _) => count,
            _ => 0,
        }
    }
}

/// How a result is put together.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Whether pairs of rows that match are in it.
    pub pairs: bool,
    /// Of each side, what becomes of its rows alone.
    pub alone: [Alone; 2],
    /// The columns of each side.
    pub sides: [SchemaRef; 2],
    /// The columns of the result.
    pub schema: SchemaRef,
}

impl Shape {
    /// That of a kind of join.
    pub fn of(kind: JoinType, sides: [SchemaRef; 2], schema: SchemaRef) -> Shape {
        use Alone::{Marked, Matched, Never, Unmatched};
        let (pairs, alone) = match kind {
            JoinType::Inner => (true, [Never, Never]),
            JoinType::Left => (true, [Unmatched, Never]),
            JoinType::Right => (true, [Never, Unmatched]),
            JoinType::Full => (true, [Unmatched, Unmatched]),
            JoinType::LeftSemi => (false, [Matched, Never]),
            JoinType::RightSemi => (false, [Never, Matched]),
            JoinType::LeftAnti => (false, [Unmatched, Never]),
            JoinType::RightAnti => (false, [Never, Unmatched]),
            JoinType::LeftMark => (false, [Marked, Never]),
            JoinType::RightMark => (false, [Never, Marked]),
        };
        Shape { pairs, alone, sides, schema }
    }

    /// The shape of pairs as the condition sees them: the columns of both sides.
    pub fn all_pairs(self) -> Shape {
        if self.pairs {
            return self;
        }
        let fields = self.sides.iter().flat_map(|side| side.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Shape { schema, ..self }
    }

    /// The same where the rows of a side that have no match are put out when they go.
    pub fn on_leaving(mut self, at: usize) -> Shape {
        if self.alone[at] == Alone::Unmatched {
            self.alone[at] = Alone::OnLeaving;
        }
        self
    }

    /// Whether rows that come to either side can't make rows of the result go.
    pub fn adds_only(&self) -> bool {
        self.alone.iter().all(|alone| matches!(alone, Alone::Never | Alone::Matched | Alone::OnLeaving))
    }

    /// Rows of a side beside the rows of the other that they are paired with.
    pub fn pair(&self, at: usize, mine: &RecordBatch, theirs: &RecordBatch) -> Result<RecordBatch> {
        let (left, right) = if at == 0 { (mine, theirs) } else { (theirs, mine) };
        self.batch(left.columns().iter().chain(right.columns()).cloned().collect(), mine.num_rows())
    }

    /// Rows of a side by themselves: `matched` says of each whether it has a match.
    pub fn single(&self, at: usize, rows: &RecordBatch, matched: &[bool]) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        if self.alone[at] == Alone::Marked {
            columns.push(Arc::new(BooleanArray::from(matched.to_vec())));
        }
        if self.pairs {
            let nulls = self.sides[1 - at].fields().iter();
            let nulls: Vec<ArrayRef> = nulls.map(|field| new_null_array(field.data_type(), count)).collect();
            columns = if at == 0 { [columns, nulls].concat() } else { [nulls, columns].concat() };
        }
        self.batch(columns, count)
    }

    fn batch(&self, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
