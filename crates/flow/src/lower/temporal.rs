//! TemporalFilter for a filter that compares rows with `now()`.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::logical_plan::Filter;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::{Choice, Lowering};
use crate::expressions::is_time;
use crate::operator::Properties;
use crate::operators::temporal_filter::{Bound, Passing, TemporalFilter, TemporalFilterSpec};
use crate::sorted::Ordering;
use crate::{Driver, Error, Result};

/// The time's name in the compared expression, as EXPLAIN shows it.
const NOW: &str = "now()";

/// Returns true if an expression contains the time of the epoch. In a plan such an expression is a filter of
/// its own: it compares a value of the row with a monotonic function of the time.
pub(super) fn asks_for_time(expr: &Expr) -> datafusion::common::Result<bool> {
    expr.exists(|part| Ok(is_time(part)))
}

/// Returns true if a node is such a filter.
pub(super) fn is_temporal(plan: &LogicalPlan) -> datafusion::common::Result<bool> {
    match plan {
        LogicalPlan::Filter(filter) => asks_for_time(&filter.predicate),
        _ => Ok(false),
    }
}

impl Lowering<'_> {
    /// Returns the operator of such a filter.
    pub(super) fn temporal_filter(&mut self, filter: &Filter) -> Result<usize> {
        let Expr::BinaryExpr(BinaryExpr { left: value, op, right: bound }) = &filter.predicate else {
            return Err(Error::Bug(format!("{} is no comparison with the time", filter.predicate)));
        };
        let (passing, inclusive) = match op {
            Operator::Lt => (Passing::Enters, false),
            Operator::LtEq => (Passing::Enters, true),
            Operator::Gt => (Passing::Leaves, true),
            Operator::GtEq => (Passing::Leaves, false),
            _ => return Err(Error::Bug(format!("{op} is no comparison with the time"))),
        };
        let cheapest = match self.choice {
            Choice::Cheapest | Choice::EachWindow => self.lower(&filter.input)?,
            Choice::WholeOnly => None,
        };
        let input = match cheapest {
            Some(input) => input,
            None => self.whole(&filter.input, self.choice)?,
        };
        self.windows.filter_by_time(&self.builder.times_of(input));
        let (schema, append_only) = (filter.input.schema().inner().clone(), self.builder.append_only(input));
        let key = self.builder.properties(input).key.clone();
        // A key separates rows of one snapshot, but not a row from the one that it replaces.
        let ties = match &key {
            Some(key) if append_only => key.clone(),
            _ => (0..schema.fields().len()).collect(),
        };
        let value = self.driver.expression(value, &filter.input)?;
        let bound = bound_over_time(bound, self.driver)?;
        let detail = format!("{value} {op} {bound}");
        let append_only = append_only && passing == Passing::Enters;
        let order = SortOptions { descending: false, nulls_first: true };
        let parts = TemporalFilterSpec {
            properties: Properties { append_only, key, follows_time: true, ..Properties::of(schema) },
            ordering: Ordering { order: vec![(value, order)], ties, ..Ordering::default() },
            bound,
            passing,
            inclusive,
            detail,
            threads: self.driver.threads().clone(),
        };
        match TemporalFilter::new(parts)? {
            Some(operator) => Ok(self.builder.push(operator, vec![input])),
            None => Err(Error::Limit(
                "a comparison with now() over rows with values that have no order in bytes is not supported yet: leave \
                 columns such as maps out before"
                    .into(),
            )),
        }
    }
}

/// Returns the expression that a row's value is compared with, over the time as the only column.
fn bound_over_time(bound: &Expr, driver: &Driver) -> Result<Bound> {
    let mut time: Option<DataType> = None;
    let over_time = bound.clone().transform(|part| match is_time(&part) {
        true => {
            time = Some(part.get_type(&DFSchema::empty())?);
            Ok(Transformed::yes(Expr::Column(Column::from_name(NOW))))
        }
        false => Ok(Transformed::no(part)),
    })?;
    let time = time.ok_or_else(|| Error::Bug("a comparison with no time".into()))?;
    let schema = Schema::new(vec![Field::new(NOW, time, false)]);
    let expr = driver.expression_over(&over_time.data, &DFSchema::try_from(schema.clone())?)?;
    Bound::new(expr, Arc::new(schema))
}
