//! A MATCH_RECOGNIZE clause as planned, and compiled to run over the rows of a partition.

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

/// The condition for mapping a row to a variable.
#[derive(Debug)]
pub(super) enum Condition {
    /// Always true: DEFINE doesn't name the variable.
    Always,
    /// The condition depends on the row and its neighbours.
    OfRow(Compiled),
    /// The condition also depends on the rows matched before.
    OfMatch(Compiled),
}

/// The output of matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// ONE ROW PER MATCH.
    OneRow,
    /// ALL ROWS PER MATCH, with a row for each empty match, and with unmatched rows.
    AllRows { empty: bool, unmatched: bool },
}

/// The point at which the search continues after a match. Variable names are kept for errors.
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
    /// The name in errors.
    pub(super) name: String,
    pub(super) terms: Vec<Term>,
    /// The columns of the terms.
    pub(super) columns: DFSchemaRef,
    /// The expression over these columns.
    pub(super) expr: Expr,
}

/// The clause as planned, from which it is compiled.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    /// The text for a displayed plan.
    pub(super) text: String,
    /// The input columns that it needs.
    pub(super) columns: DFSchemaRef,
    /// The input columns in its output.
    pub(super) shown: Vec<usize>,
    pub(super) order: Vec<(Expr, SortOptions)>,
    pub(super) program: Program,
    /// The condition of each variable; none if DEFINE doesn't name it.
    pub(super) conditions: Vec<Option<Asked>>,
    pub(super) values: Vec<Expr>,
    pub(super) calls: Vec<Expr>,
    /// The measures with their names.
    pub(super) measures: Vec<(String, Asked)>,
    pub(super) shows: Shows,
    pub(super) skip: Skip,
    /// The indexes of two values for WITHIN: a row's time, and the time at which a match from that row
    /// expires.
    pub(super) within: Option<(usize, usize)>,
}

/// The compiled clause.
#[derive(Debug)]
pub(super) struct Clause {
    pub(super) planned: Planned,
    /// The input columns that it needs.
    pub(super) schema: SchemaRef,
    pub(super) order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// The condition of each variable.
    pub(super) conditions: Vec<Condition>,
    pub(super) values: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) calls: Vec<Call>,
    pub(super) measures: Vec<Compiled>,
    /// The output columns: the measures, then the input columns.
    pub(super) fields: Fields,
}

impl Clause {
    /// Computes the output for a partition with these rows, in any order.
    pub(super) fn run(&self, rows: &RecordBatch) -> Result<StructArray> {
        Partition::new(self, self.sorted(rows)?)?.result()
    }

    /// Sorts the rows. Ties are broken by all columns, so the input order doesn't matter.
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
