//! A MATCH_RECOGNIZE clause, ready to be run over the rows of a partition.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{Fields, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;

use super::compile::{Call, Compiled};
use super::partition::{Partition, evaluate};
use super::pattern::Program;
use crate::error::Error;
use crate::rules::orderable;

/// What a row must be to be taken as a variable.
#[derive(Debug)]
pub(super) enum Condition {
    /// Anything: DEFINE doesn't name it.
    Always,
    /// It depends on the row and its neighbours.
    OfRow(Compiled),
    /// It depends on what was taken before, too.
    OfMatch(Compiled),
}

/// What is shown of matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// ONE ROW PER MATCH.
    OneRow,
    /// ALL ROWS PER MATCH: with a row for each empty match, with rows that are in no match.
    AllRows { empty: bool, unmatched: bool },
}

/// Where the search goes on after a match. Variables are named for errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(String, Vec<usize>),
    ToLast(String, Vec<usize>),
}

/// The clause.
#[derive(Debug)]
pub(super) struct Clause {
    /// What it is called where a plan is shown.
    pub(super) text: String,
    /// What tells it from others, with the expressions in it.
    pub(super) identity: String,
    pub(super) written: Vec<Expr>,
    /// The columns that it takes.
    pub(super) schema: SchemaRef,
    /// Those that it shows.
    pub(super) shown: Vec<usize>,
    pub(super) order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    pub(super) program: Program,
    /// By variable.
    pub(super) conditions: Vec<Condition>,
    pub(super) values: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) calls: Vec<Call>,
    pub(super) measures: Vec<Compiled>,
    /// Of a row of the result: the measures, then the columns that it shows.
    pub(super) fields: Fields,
    pub(super) shows: Shows,
    pub(super) skip: Skip,
    /// The values that are the time of a row and the time before which a match that begins there ends.
    pub(super) within: Option<(usize, usize)>,
}

impl Clause {
    /// What is shown of a partition with these rows, in whatever order they are.
    pub(super) fn run(&self, rows: &RecordBatch) -> Result<StructArray> {
        Partition::new(self, self.sorted(rows)?)?.result()
    }

    /// Rows that tie are in the order of all their columns, so that it doesn't matter in which they came.
    fn sorted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let keys: Vec<Arc<dyn PhysicalExpr>> = self.order.iter().map(|(key, _)| key.clone()).collect();
        let mut columns = evaluate(&keys, rows)?;
        let mut options: Vec<SortOptions> = self.order.iter().map(|(_, options)| *options).collect();
        let rest = rows.columns().iter().filter(|column| orderable(column.data_type()));
        columns.extend(rest.cloned());
        options.resize(columns.len(), SortOptions { descending: false, nulls_first: false });
        let field = |(column, options): (&Arc<dyn Array>, &SortOptions)| {
            SortField::new_with_options(column.data_type().clone(), *options)
        };
        let converter = RowConverter::new(columns.iter().zip(&options).map(field).collect())?;
        let keys = converter.convert_columns(&columns)?;
        let count = u32::try_from(rows.num_rows())
            .map_err(|_| Error::invalid("MATCH_RECOGNIZE: a partition has more than 4 billion rows"))?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by(|left, right| keys.row(*left as usize).cmp(&keys.row(*right as usize)));
        Ok(take_record_batch(rows, &UInt32Array::from(order))?)
    }
}
