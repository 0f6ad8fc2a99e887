//! A MATCH_RECOGNIZE clause: as it was planned, and ready to be run over the rows of a partition.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{Fields, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::DFSchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;

use super::compile::{Call, Compiled};
use super::partition::{Partition, evaluate};
use super::pattern::Program;
use super::terms::Term;
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

/// An expression of DEFINE or MEASURES.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// What it is called in errors.
    pub(super) name: String,
    pub(super) terms: Vec<Term>,
    /// The columns of the terms.
    pub(super) columns: DFSchemaRef,
    /// Over these.
    pub(super) expr: Expr,
}

/// The clause as it was planned: what it is made ready of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    /// What it is called where a plan is shown.
    pub(super) text: String,
    /// The columns that it takes.
    pub(super) columns: DFSchemaRef,
    /// Those that it shows.
    pub(super) shown: Vec<usize>,
    pub(super) order: Vec<(Expr, SortOptions)>,
    pub(super) program: Program,
    /// By variable; none where DEFINE doesn't name it.
    pub(super) conditions: Vec<Option<Asked>>,
    pub(super) values: Vec<Expr>,
    pub(super) calls: Vec<Expr>,
    /// With their names.
    pub(super) measures: Vec<(String, Asked)>,
    pub(super) shows: Shows,
    pub(super) skip: Skip,
    /// The values that are the time of a row and the time before which a match that begins there ends.
    pub(super) within: Option<(usize, usize)>,
}

/// The clause, ready to be run.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) planned: Planned,
    /// The columns that it takes.
    pub(super) schema: SchemaRef,
    pub(super) order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// By variable.
    pub(super) conditions: Vec<Condition>,
    pub(super) values: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) calls: Vec<Call>,
    pub(super) measures: Vec<Compiled>,
    /// Of a row of the result: the measures, then the columns that it shows.
    pub(super) fields: Fields,
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
