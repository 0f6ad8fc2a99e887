//! The composition of a join's result from the rows of both sides.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::JoinType;

use crate::Result;

/// The presence of one side's rows in the result by themselves, once for each row whatever its matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Rows are not in the result by themselves.
    Never,
    /// A row without a match is in the result.
    Unmatched,
    /// A row with a match is in the result.
    Matched,
    /// Every row is in the result, with a column that is true if it has a match.
    Marked,
    /// A row is in the result if it expired without a match, so that none can follow.
    OnLeaving,
}

impl Alone {
    /// Returns the weight in the result of a row with `count` copies, with or without a match.
    pub fn weight(self, matched: bool, count: i64) -> i64 {
        match (self, matched) {
            (Alone::Matched, true) | (Alone::Unmatched, false) | (Alone::Marked, _) => count,
            _ => 0,
        }
    }
}

/// The composition of a result.
#[derive(Clone, Debug)]
pub struct Shape {
    /// True if pairs of matching rows are in the result.
    pub pairs: bool,
    /// The presence of each side's rows by themselves.
    pub alone: [Alone; 2],
    /// The columns of each side.
    pub sides: [SchemaRef; 2],
    /// The columns of the result.
    pub schema: SchemaRef,
}

impl Shape {
    /// Returns the shape of a kind of join.
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

    /// Returns the shape of pairs as the condition sees them: the columns of both sides.
    pub fn all_pairs(self) -> Shape {
        if self.pairs {
            return self;
        }
        let fields = self.sides.iter().flat_map(|side| side.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Shape { schema, ..self }
    }

    /// Returns the shape in which unmatched rows of a side are emitted when they expire.
    pub fn on_leaving(mut self, at: usize) -> Shape {
        if self.alone[at] == Alone::Unmatched {
            self.alone[at] = Alone::OnLeaving;
        }
        self
    }

    /// Returns true if inserts on either side never remove rows of the result.
    pub fn adds_only(&self) -> bool {
        self.alone.iter().all(|alone| matches!(alone, Alone::Never | Alone::Matched | Alone::OnLeaving))
    }

    /// Returns rows of a side paired with rows of the other.
    pub fn pair(&self, at: usize, mine: &RecordBatch, theirs: &RecordBatch) -> Result<RecordBatch> {
        let (left, right) = if at == 0 { (mine, theirs) } else { (theirs, mine) };
        self.batch(left.columns().iter().chain(right.columns()).cloned().collect(), mine.num_rows())
    }

    /// Returns rows of a side by themselves; `matched` is true for rows with a match.
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
