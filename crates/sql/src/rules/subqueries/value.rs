//! Replaces a subquery in an expression by columns that are joined to the expression's rows.
//!
//! | subquery | joined columns | value |
//! | --- | --- | --- |
//! | scalar | its one row; or its row count and a value | the value; fails if the count is above one |
//! | `EXISTS` | its row count, or a mark on values that have rows | a comparison |
//! | `x IN`, uncorrelated | a mark on the values that match; its row count with and without NULL | TRUE on a match, FALSE over no rows, NULL if `x` or a row is NULL, else FALSE |
//! | `x op ANY`, `x op ALL`, `x IN` correlated | the number of rows, of rows that compare TRUE, of rows that compare FALSE | the same for any comparison |

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, JoinType, NullEquality, ScalarValue, TableReference};
use datafusion::error::Result;
use datafusion::functions_aggregate::count::{count_all, count_udaf};
use datafusion::functions_aggregate::first_last::first_value;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Operator, Projection,
    binary_expr, lit, when,
};

use super::AliasGenerator;
use super::dependent::{Domain, cross, join_on_values, last_column};
use super::references::{Rows, outer_columns};
use crate::complexity::refuse_twice;
use crate::functions::single_row::single_row;

/// Rows to which the columns of subqueries are joined.
pub(super) struct Lift<'a> {
    /// The rows with all columns joined so far. The number of rows never changes.
    pub(super) plan: LogicalPlan,
    names: &'a AliasGenerator,
}

impl<'a> Lift<'a> {
    pub(super) fn new(plan: LogicalPlan, names: &'a AliasGenerator) -> Lift<'a> {
        Lift { plan, names }
    }

    /// Returns the value of an expression that is a subquery. Other expressions stay.
    pub(super) fn value(&mut self, expression: Expr) -> Result<Expr> {
        match expression {
            Expr::ScalarSubquery(subquery) => self.scalar(&subquery.subquery),
            Expr::Exists(Exists { subquery, negated }) => {
                let exists = self.exists(&subquery.subquery)?;
                Ok(negate(exists, negated))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let within = self.within(*expr, &subquery.subquery)?;
                Ok(negate(within, negated))
            }
            Expr::SetComparison(comparison) => self.comparison(comparison),
            other => Ok(other),
        }
    }

    /// Returns the columns of these rows that a subquery refers to.
    pub(super) fn refers(&self, subquery: &LogicalPlan) -> Result<Vec<Column>> {
        let mut columns = outer_columns(subquery)?;
        columns.retain(|column| self.plan.schema().has_column(column));
        Ok(columns)
    }

    fn scalar(&mut self, subquery: &LogicalPlan) -> Result<Expr> {
        let outer = self.refers(subquery)?;
        let domain = self.domain(outer)?;
        let rows = match &domain {
            Some(domain) => domain.rows_of(subquery, self.names)?,
            None => subquery.clone(),
        };
        let value = last_column(&rows);
        let count = Rows::of(subquery);
        if count != Rows::Many {
            let [value] = self.join_columns(domain.as_ref(), rows, [value], count == Rows::One)?;
            return Ok(value);
        }
        let least = match orderable_by_min(&value.get_type(rows.schema().as_ref())?) {
            true => min_udaf().call(vec![value]),
            false => first_value(value, Vec::new()),
        };
        let counts = self.aggregated(domain.as_ref(), rows, vec![least, count_all()])?;
        let [value, count] = self.join_counts(domain.as_ref(), counts)?;
        Ok(single_row(value, count))
    }

    fn exists(&mut self, subquery: &LogicalPlan) -> Result<Expr> {
        if Rows::of(subquery) == Rows::One {
            return Ok(lit(true));
        }
        let outer = self.refers(subquery)?;
        let Some(domain) = self.domain(outer)? else {
            let counts = self.aggregated(None, subquery.clone(), vec![count_all()])?;
            let [count] = last_columns(&counts);
            let [exists] = self.join_columns(None, counts, [count.gt(lit(0_i64))], true)?;
            return Ok(exists);
        };
        let rows = domain.rows_of(subquery, self.names)?;
        let values = Projection::try_new(domain.columns(), Arc::new(rows))?;
        let found = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Projection(values))));
        let [mark] = self.join_columns(Some(&domain), found, [lit(true)], false)?;
        Ok(mark.is_not_null())
    }

    fn within(&mut self, value: Expr, subquery: &LogicalPlan) -> Result<Expr> {
        let outer = self.refers(subquery)?;
        if !outer.is_empty() {
            return self.compared(value, Operator::Eq, SetQuantifier::Any, subquery, outer);
        }
        refuse_twice(subquery)?;
        let found = last_column(subquery);
        let counts = self.aggregated(None, subquery.clone(), vec![count_all(), count_of(found.clone())])?;
        let qualifier = self.names.next("found");
        let items = vec![
            found.alias_qualified(Some(qualifier.clone()), "value"),
            lit(true).alias_qualified(Some(qualifier.clone()), "mark"),
        ];
        let found = Projection::try_new(items, Arc::new(subquery.clone()))?;
        let found = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Projection(found))));
        let same = (value.clone(), column(&qualifier, "value"));
        // A constant can't be a key. It becomes a filter, which any kind of join supports.
        let (keys, filter) = match value.any_column_refs() {
            true => (vec![same], None),
            false => (Vec::new(), Some(same.0.eq(same.1))),
        };
        self.plan = LogicalPlan::Join(Join::try_new(
            Arc::new(self.plan.clone()),
            Arc::new(found),
            keys,
            filter,
            JoinType::Left,
            JoinConstraint::On,
            NullEquality::NullEqualsNothing,
            false,
        )?);
        // The counts change with every row, but these comparisons rarely do.
        let [rows, values] = last_columns(&counts);
        let asked = [rows.clone().eq(lit(0_i64)), values.lt(rows)];
        let [empty, with_null] = self.join_columns(None, counts, asked, true)?;
        when(column(&qualifier, "mark").is_not_null(), lit(true))
            .when(empty, lit(false))
            .when(value.is_null().or(with_null), unknown())
            .otherwise(lit(false))
    }

    fn comparison(&mut self, comparison: SetComparison) -> Result<Expr> {
        let SetComparison { expr, subquery, op, quantifier } = comparison;
        match (op, &quantifier) {
            (Operator::Eq, SetQuantifier::Any) => self.within(*expr, &subquery.subquery),
            (Operator::NotEq, SetQuantifier::All) => {
                let within = self.within(*expr, &subquery.subquery)?;
                Ok(negate(within, true))
            }
            _ => {
                let outer = self.refers(&subquery.subquery)?;
                self.compared(*expr, op, quantifier, &subquery.subquery, outer)
            }
        }
    }

    /// Compares `value` with every row of the subquery, and counts the results for each combination of
    /// `value` and the outer columns.
    fn compared(
        &mut self,
        value: Expr,
        op: Operator,
        quantifier: SetQuantifier,
        subquery: &LogicalPlan,
        mut outer: Vec<Column>,
    ) -> Result<Expr> {
        let value = self.as_column(value)?;
        if !outer.contains(&value) {
            outer.push(value.clone());
        }
        let domain = Domain::new(&self.plan, outer, self.names)?;
        let rows = domain.rows_of(subquery, self.names)?;
        let value = domain.column_of(&value).unwrap_or(value);
        let compared = binary_expr(Expr::Column(value), op, last_column(&rows));
        let when_true = |condition: Expr| {
            Ok::<_, datafusion::error::DataFusionError>(count_of(when(condition, lit(true)).end()?))
        };
        let counted = vec![count_all(), when_true(compared.clone())?, when_true(!compared)?];
        let counts = self.aggregated(Some(&domain), rows, counted)?;
        let [rows, yes, no] = self.join_counts(Some(&domain), counts)?;
        let (decides, rest, answer) = match quantifier {
            SetQuantifier::Any => (yes, no, true),
            SetQuantifier::All => (no, yes, false),
        };
        // Over no rows all counts are NULL, and so is every comparison with them.
        when(decides.gt(lit(0_i64)), lit(answer)).when(rows.gt(rest), unknown()).otherwise(lit(!answer))
    }

    fn domain(&self, outer: Vec<Column>) -> Result<Option<Domain>> {
        if outer.is_empty() { Ok(None) } else { Domain::new(&self.plan, outer, self.names).map(Some) }
    }

    /// Returns the value as a column of the rows. Adds the column if the value isn't one.
    fn as_column(&mut self, value: Expr) -> Result<Column> {
        if let Expr::Column(column) = value {
            return Ok(column);
        }
        let qualifier = self.names.next("value");
        let mut items: Vec<Expr> = self.plan.schema().columns().into_iter().map(Expr::Column).collect();
        items.push(value.alias_qualified(Some(qualifier.clone()), "value"));
        self.plan = LogicalPlan::Projection(Projection::try_new(items, Arc::new(self.plan.clone()))?);
        Ok(Column::new(Some(qualifier), "value"))
    }

    /// Computes one row of aggregates, or one for each combination of the domain's values that has rows.
    fn aggregated(
        &self,
        domain: Option<&Domain>,
        rows: LogicalPlan,
        calls: Vec<Expr>,
    ) -> Result<LogicalPlan> {
        let groups = domain.map(Domain::columns).unwrap_or_default();
        let calls = calls.into_iter().enumerate().map(|(at, call)| call.alias(format!("a{at}"))).collect();
        Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), groups, calls)?))
    }

    /// Joins the last `N` columns of aggregates from [`Lift::aggregated`].
    fn join_counts<const N: usize>(
        &mut self,
        domain: Option<&Domain>,
        counts: LogicalPlan,
    ) -> Result<[Expr; N]> {
        let columns = last_columns(&counts);
        self.join_columns(domain, counts, columns, true)
    }

    /// Joins columns of a plan that has at most one row, or at most one for each combination of values.
    /// `always` is true if a plan without a domain always has a row.
    fn join_columns<const N: usize>(
        &mut self,
        domain: Option<&Domain>,
        rows: LogicalPlan,
        columns: [Expr; N],
        always: bool,
    ) -> Result<[Expr; N]> {
        let qualifier = self.names.next("subquery");
        let mut items = domain.map(Domain::columns).unwrap_or_default();
        for (at, item) in columns.into_iter().enumerate() {
            items.push(item.alias_qualified(Some(qualifier.clone()), format!("v{at}")));
        }
        let rows = LogicalPlan::Projection(Projection::try_new(items, Arc::new(rows))?);
        let plan = self.plan.clone();
        self.plan = match domain {
            None if always => cross(plan, rows)?,
            None => LogicalPlan::Join(join_on_values(plan, rows, Vec::new(), JoinType::Left)?),
            Some(domain) => LogicalPlan::Join(join_on_values(plan, rows, domain.keys(), JoinType::Left)?),
        };
        Ok(std::array::from_fn(|at| column(&qualifier, &format!("v{at}"))))
    }
}

fn column(qualifier: &TableReference, name: &str) -> Expr {
    Expr::Column(Column::new(Some(qualifier.clone()), name))
}

fn last_columns<const N: usize>(plan: &LogicalPlan) -> [Expr; N] {
    let schema = plan.schema();
    let first = schema.fields().len() - N;
    std::array::from_fn(|at| Expr::Column(Column::from(schema.qualified_field(first + at))))
}

fn count_of(value: Expr) -> Expr {
    count_udaf().call(vec![value])
}

fn unknown() -> Expr {
    Expr::Literal(ScalarValue::Boolean(None), None)
}

fn negate(value: Expr, negated: bool) -> Expr {
    if negated { !value } else { value }
}

/// True if `min` supports a type. Over a single row, `min` returns the row's value.
fn orderable_by_min(data_type: &DataType) -> bool {
    data_type.is_numeric()
        || data_type.is_temporal()
        || data_type.is_string()
        || data_type.is_binary()
        || matches!(data_type, DataType::Boolean | DataType::Null)
}
