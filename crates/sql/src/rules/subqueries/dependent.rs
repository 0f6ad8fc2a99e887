//! Evaluates a subquery for many outer rows at once.
//!
//! The result of a correlated subquery depends on a few columns of the outer row. The set of their values is
//! its *domain*. The subquery is computed for all of them at once, and its rows are returned with the values
//! they belong to. For that, the domain is joined with the subquery and pushed down until no node below
//! refers to an outer row. Each node keeps the values apart: an aggregate groups by them, a window is
//! partitioned by them, a LIMIT counts within them. (Neumann and Kemper, *Unnesting Arbitrary Queries*, BTW
//! 2015.)

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, TableReference};
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{Case, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::logical_plan::{FetchType, SkipType};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, EmptyRelation, Expr, Filter, Join, JoinConstraint, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, Projection, Sort, SortExpr, SubqueryAlias, Union, Unnest, Values, Window,
    WindowFunctionDefinition, binary_expr, lit, when,
};

use super::AliasGenerator;
use super::recursive::WorkTable;
use super::references::outer_columns;
use crate::error::Error;
use crate::rules::orderings::ordered;
use crate::tree_rewrite::TreeRewrite;

/// The outer columns that a subquery depends on, and all combinations of their values.
#[derive(Clone, Debug)]
pub(super) struct Domain {
    plan: LogicalPlan,
    /// The qualifier of the domain's own columns: `__outer_1.__outer_1_0`, … (a union drops the qualifier).
    qualifier: TableReference,
    outer: Vec<Column>,
}

impl Domain {
    /// Creates the domain of `columns` from `rows`.
    pub(super) fn new(rows: &LogicalPlan, columns: Vec<Column>, names: &AliasGenerator) -> Result<Domain> {
        let qualifier = names.next("outer");
        let values = columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let own = own_column(&qualifier, at);
                Expr::Column(column.clone()).alias_qualified(own.relation, own.name)
            })
            .collect();
        let values = Projection::try_new(values, Arc::new(narrowest(rows, &columns).clone()))?;
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Projection(values))));
        Ok(Domain { plan, qualifier, outer: columns })
    }

    /// Returns the domain's columns, in the order of the outer columns.
    pub(super) fn columns(&self) -> Vec<Expr> {
        (0..self.outer.len()).map(|at| Expr::Column(self.column(at))).collect()
    }

    /// Returns the domain's column for an outer column.
    pub(super) fn column_of(&self, outer: &Column) -> Option<Column> {
        self.outer.iter().position(|column| column == outer).map(|at| self.column(at))
    }

    /// Returns pairs of an outer column and its domain column: the keys of a join in which NULLs are equal.
    pub(super) fn keys(&self) -> Vec<(Expr, Expr)> {
        self.outer.iter().cloned().map(Expr::Column).zip(self.columns()).collect()
    }

    /// Returns the subquery's rows for each combination of values: the domain's columns, then the subquery's.
    pub(super) fn rows_of(&self, subquery: &LogicalPlan, names: &AliasGenerator) -> Result<LogicalPlan> {
        Dependent { domain: self, names, work: Vec::new() }.push(subquery)
    }

    fn column(&self, at: usize) -> Column {
        own_column(&self.qualifier, at)
    }

    /// Returns the same domain under a new qualifier.
    fn again(&self, plan: LogicalPlan, names: &AliasGenerator) -> Result<(Domain, LogicalPlan)> {
        let other =
            Domain { plan: self.plan.clone(), qualifier: names.next("outer"), outer: self.outer.clone() };
        let mut items = Vec::new();
        for (at, (qualifier, field)) in plan.schema().iter().enumerate() {
            let column = Expr::Column(Column::from((qualifier, field)));
            items.push(match at < self.outer.len() {
                true => column.alias_qualified(Some(other.qualifier.clone()), other.column(at).name),
                false => column,
            });
        }
        let plan = LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?);
        Ok((other, plan))
    }
}

/// Returns the part of `rows` that has all of `columns`, if the rest is only cross-joined with it. Tables of
/// a FROM list are so, while their conditions are still above them. A domain may contain values that no outer
/// row has.
fn narrowest<'a>(rows: &'a LogicalPlan, columns: &[Column]) -> &'a LogicalPlan {
    let mut rows = rows;
    while let LogicalPlan::Join(join) = rows
        && join.join_type == JoinType::Inner
        && join.on.is_empty()
        && join.filter.is_none()
    {
        let has_all = |side: &LogicalPlan| columns.iter().all(|column| side.schema().has_column(column));
        rows = match (has_all(&join.left), has_all(&join.right)) {
            (true, _) => &join.left,
            (_, true) => &join.right,
            _ => break,
        };
    }
    rows
}

fn own_column(qualifier: &TableReference, at: usize) -> Column {
    Column::new(Some(qualifier.clone()), format!("{}_{at}", qualifier.table()))
}

pub(super) struct Dependent<'a> {
    pub(super) domain: &'a Domain,
    pub(super) names: &'a AliasGenerator,
    /// The enclosing recursions.
    pub(super) work: Vec<WorkTable>,
}

impl Dependent<'_> {
    /// Returns the plan for each value of the domain: the domain's columns, then the plan's own columns.
    pub(super) fn push(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if !self.depends(plan)? {
            return self.beside(plan);
        }
        let pushed = match plan {
            LogicalPlan::Subquery(node) => return self.push(&node.subquery),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => self.push(input)?,
            LogicalPlan::Sort(Sort { input, fetch: None, .. }) => self.push(input)?,
            LogicalPlan::Projection(node) => return self.projection(node),
            LogicalPlan::Filter(node) => {
                let condition = self.inner(node.predicate.clone())?;
                LogicalPlan::Filter(Filter::try_new(condition, Arc::new(self.push(&node.input)?))?)
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                LogicalPlan::Distinct(Distinct::All(Arc::new(self.push(input)?)))
            }
            LogicalPlan::Distinct(Distinct::On(node)) => self.distinct_on(node)?,
            LogicalPlan::Aggregate(node) => self.aggregate(node)?,
            LogicalPlan::Window(node) => self.window(node)?,
            LogicalPlan::Limit(node) => return self.limit(plan, node),
            LogicalPlan::Union(node) => {
                let inputs = node.inputs.iter().map(|input| self.push(input).map(Arc::new));
                LogicalPlan::Union(Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?)
            }
            LogicalPlan::Join(node) => self.join(node)?,
            LogicalPlan::Unnest(node) => {
                let input = Arc::new(self.push(&node.input)?);
                LogicalPlan::Unnest(Unnest::try_new(input, node.exec_columns.clone(), node.options.clone())?)
            }
            LogicalPlan::Values(node) => self.values(node)?,
            LogicalPlan::RecursiveQuery(node) => self.recursive(node)?,
            LogicalPlan::TableScan(scan) => match self.work.iter().find_map(|work| work.rows_for(scan)) {
                Some(rows) => rows.clone(),
                None => return Err(unsupported(plan).into()),
            },
            other => return Err(unsupported(other).into()),
        };
        self.under(pushed, plan.schema())
    }

    fn depends(&self, plan: &LogicalPlan) -> Result<bool> {
        for work in &self.work {
            if work.is_read_by(plan)? {
                return Ok(true);
            }
        }
        Ok(outer_columns(plan)?.iter().any(|column| self.domain.outer.contains(column)))
    }

    /// Combines a plan that doesn't depend on the domain with its values.
    fn beside(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema })
                if schema.fields().is_empty() =>
            {
                Ok(self.domain.plan.clone())
            }
            plan => cross(self.domain.plan.clone(), plan.clone()),
        }
    }

    /// Replaces outer columns in an expression by the domain's columns.
    fn inner(&self, expression: Expr) -> Result<Expr> {
        let replaced = expression.rewrite_up(|part| match &part {
            Expr::OuterReferenceColumn(_, column) => match self.domain.column_of(column) {
                Some(column) => Ok(Transformed::yes(Expr::Column(column))),
                None => Ok(Transformed::no(part)),
            },
            _ => Ok(Transformed::no(part)),
        })?;
        Ok(replaced.data)
    }

    fn all_inner(&self, expressions: &[Expr]) -> Result<Vec<Expr>> {
        expressions.iter().map(|expression| self.inner(expression.clone())).collect()
    }

    /// Gives a plan the names of `schema` after the domain's columns.
    fn under(&self, plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
        let own = (0..self.domain.outer.len()).map(|at| self.domain.column(at));
        let names = own.chain(schema.columns());
        let named = names.zip(plan.schema().columns()).map(|(name, found)| match found == name {
            true => Expr::Column(found),
            false => Expr::Column(found).alias_qualified(name.relation, name.name),
        });
        let items = named.collect();
        Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?))
    }

    fn projection(&self, node: &Projection) -> Result<LogicalPlan> {
        let mut items = self.domain.columns();
        for (expression, (qualifier, field)) in node.expr.iter().zip(node.schema.iter()) {
            let item = self.inner(expression.clone().unalias())?;
            items.push(item.alias_qualified(qualifier.cloned(), field.name()));
        }
        Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(self.push(&node.input)?))?))
    }

    fn distinct_on(&self, node: &DistinctOn) -> Result<LogicalPlan> {
        let domain = self.domain.columns();
        let with_domain = |own: Vec<Expr>| domain.iter().cloned().chain(own).collect::<Vec<_>>();
        let sorts = match &node.sort_expr {
            None => None,
            Some(own) => {
                let own = self.orders(own)?;
                Some(domain.iter().map(|column| column.clone().sort(true, false)).chain(own).collect())
            }
        };
        let on = DistinctOn::try_new(
            with_domain(self.all_inner(&node.on_expr)?),
            with_domain(self.all_inner(&node.select_expr)?),
            sorts,
            Arc::new(self.push(&node.input)?),
        )?;
        Ok(LogicalPlan::Distinct(Distinct::On(on)))
    }

    fn orders(&self, sorts: &[SortExpr]) -> Result<Vec<SortExpr>> {
        let order = |sort: &SortExpr| Ok(SortExpr { expr: self.inner(sort.expr.clone())?, ..*sort });
        sorts.iter().map(order).collect()
    }

    /// Groups by the values too. An aggregate without GROUP BY returns a row for every value, also for an
    /// empty input. Its input therefore gets a row that the aggregates don't count.
    fn aggregate(&self, node: &Aggregate) -> Result<LogicalPlan> {
        if node.group_expr.iter().any(|group| matches!(group, Expr::GroupingSet(_))) {
            return Err(
                Error::unsupported("GROUPING SETS in a subquery that refers to rows outside it").into()
            );
        }
        let input = self.push(&node.input)?;
        let mut aggregates = self.all_inner(&node.aggr_expr)?;
        let (input, groups) = if node.group_expr.is_empty() {
            let counted = Column::new(Some(self.names.next("counted")), "c");
            aggregates =
                aggregates.into_iter().map(|call| only_where(call, &counted)).collect::<Result<_>>()?;
            (self.with_every_value(input, &counted)?, self.domain.columns())
        } else {
            let own = self.all_inner(&node.group_expr)?;
            (input, self.domain.columns().into_iter().chain(own).collect())
        };
        Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), groups, aggregates)?))
    }

    /// Returns `input`'s rows, marked in a column `counted`, and an unmarked row for each value without any.
    fn with_every_value(&self, input: LogicalPlan, counted: &Column) -> Result<LogicalPlan> {
        let (inner, input) = self.domain.again(input, self.names)?;
        let mut items: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        items.push(lit(true).alias_qualified(counted.relation.clone(), counted.name.clone()));
        let marked = LogicalPlan::Projection(Projection::try_new(items, Arc::new(input))?);
        let keys = self.domain.columns().into_iter().zip(inner.columns()).collect();
        let every = self.domain.plan.clone();
        Ok(LogicalPlan::Join(join_on_values(every, marked, keys, JoinType::Left)?))
    }

    fn window(&self, node: &Window) -> Result<LogicalPlan> {
        let apart = |expression: Expr| {
            let own = expression.rewrite_up(|part| match part {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(self.domain.columns());
                    Ok(Transformed::new(Expr::WindowFunction(call), true, TreeNodeRecursion::Continue))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(own.data)
        };
        let calls = self.all_inner(&node.window_expr)?.into_iter().map(apart).collect::<Result<_>>()?;
        Ok(LogicalPlan::Window(Window::try_new(calls, Arc::new(self.push(&node.input)?))?))
    }

    /// Numbers the rows of each value in their order, and keeps those that LIMIT and OFFSET select.
    fn limit(&self, plan: &LogicalPlan, node: &Limit) -> Result<LogicalPlan> {
        // The order is that of a Sort below, so the LIMIT moves down to it.
        let below = |input: &Arc<LogicalPlan>| {
            LogicalPlan::Limit(Limit {
                input: Arc::clone(input),
                skip: node.skip.clone(),
                fetch: node.fetch.clone(),
            })
        };
        match node.input.as_ref() {
            LogicalPlan::Projection(inner) if ordered(&inner.input) => {
                let mut inner = inner.clone();
                inner.input = Arc::new(below(&inner.input));
                return self.push(&LogicalPlan::Projection(inner));
            }
            LogicalPlan::SubqueryAlias(inner) if ordered(&inner.input) => {
                let mut inner = inner.clone();
                inner.input = Arc::new(below(&inner.input));
                return self.push(&LogicalPlan::SubqueryAlias(inner));
            }
            _ => {}
        }
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (node.get_skip_type()?, node.get_fetch_type()?)
        else {
            return Err(Error::unsupported(
                "LIMIT by an expression in a subquery that refers to rows outside it",
            )
            .into());
        };
        let call = Expr::from(WindowFunction {
            fun: WindowFunctionDefinition::WindowUDF(row_number_udwf()),
            params: WindowFunctionParams {
                partition_by: self.domain.columns(),
                order_by: self.orders(&order_of(&node.input))?,
                ..WindowFunction::new(row_number_udwf(), Vec::new()).params
            },
        });
        let input = Arc::new(self.push(&node.input)?);
        let numbered = Window::try_new(vec![call], input)?;
        let numbered = LogicalPlan::Window(numbered);
        let number = last_column(&numbered);
        let mut condition = number.clone().gt(lit(skip as u64));
        if let Some(fetch) = fetch {
            condition = condition.and(number.lt_eq(lit((skip as u64).saturating_add(fetch as u64))));
        }
        let taken = Filter::try_new(condition, Arc::new(numbered))?;
        self.under(LogicalPlan::Filter(taken), plan.schema())
    }

    /// Numbers the rows, and selects each column's value by the number.
    fn values(&self, node: &Values) -> Result<LogicalPlan> {
        let numbers = (0..node.values.len()).map(|number| vec![lit(number as i64)]).collect();
        let numbers = LogicalPlanBuilder::values(numbers)?.build()?;
        let number = Column::new(Some(self.names.next("row")), "number");
        let named = last_column(&numbers).alias_qualified(number.relation.clone(), number.name.clone());
        let numbers = LogicalPlan::Projection(Projection::try_new(vec![named], Arc::new(numbers))?);
        let mut items = self.domain.columns();
        for (at, field) in node.schema.fields().iter().enumerate() {
            let mut choices = Vec::with_capacity(node.values.len());
            for (row, values) in node.values.iter().enumerate() {
                choices.push((Box::new(lit(row as i64)), Box::new(self.inner(values[at].clone())?)));
            }
            let choice = Case::new(Some(Box::new(Expr::Column(number.clone()))), choices, None);
            items.push(Expr::Case(choice).alias(field.name()));
        }
        let rows = cross(self.domain.plan.clone(), numbers)?;
        Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(rows))?))
    }

    /// Joins for each value. A side needs the values if a missing match would drop or extend its rows. If
    /// both sides have the values, only rows of the same value match.
    fn join(&self, join: &Join) -> Result<LogicalPlan> {
        let (left, right) = (self.depends(&join.left)?, self.depends(&join.right)?);
        use JoinType::*;
        let (on_left, on_right) = match join.join_type {
            Inner => (left || !right, right),
            Left | LeftSemi | LeftAnti | LeftMark => (true, right),
            Right | RightSemi | RightAnti | RightMark => (left, true),
            Full => (true, true),
        };
        let mut keys = Vec::new();
        let mut on_values = Vec::new();
        let mut domain = self.domain.clone();
        let new_left = if on_left { self.push(&join.left)? } else { join.left.as_ref().clone() };
        let mut new_right = if on_right { self.push(&join.right)? } else { join.right.as_ref().clone() };
        if on_left && on_right {
            (domain, new_right) = self.domain.again(new_right, self.names)?;
            on_values = self.domain.columns().into_iter().zip(domain.columns()).collect();
        }
        for (left, right) in &join.on {
            keys.push((self.inner(left.clone())?, self.inner(right.clone())?));
        }
        let mut filter = join.filter.clone().map(|filter| self.inner(filter)).transpose()?;
        let mut null_equality = join.null_equality;
        if keys.is_empty() && !on_values.is_empty() {
            keys = on_values.clone();
            null_equality = NullEquality::NullEqualsNull;
        } else {
            for (left, right) in &on_values {
                let same = binary_expr(left.clone(), Operator::IsNotDistinctFrom, right.clone());
                filter = Some(match filter {
                    Some(filter) => filter.and(same),
                    None => same,
                });
            }
        }
        let joined = Join::try_new(
            Arc::new(new_left),
            Arc::new(new_right),
            keys,
            filter,
            join.join_type,
            JoinConstraint::On,
            null_equality,
            join.null_aware,
        )?;
        self.joined(LogicalPlan::Join(joined), join, &on_values, &domain)
    }

    /// Returns the columns of a join for each value: the domain's, then those of the original join.
    fn joined(
        &self,
        plan: LogicalPlan,
        join: &Join,
        on_values: &[(Expr, Expr)],
        right: &Domain,
    ) -> Result<LogicalPlan> {
        let values: Vec<Expr> = match join.join_type {
            _ if on_values.is_empty() => self.domain.columns(),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                right.columns()
            }
            JoinType::Full => {
                let either = |(left, right): &(Expr, Expr)| {
                    when(left.clone().is_null(), right.clone()).otherwise(left.clone())
                };
                on_values.iter().map(either).collect::<Result<_>>()?
            }
            _ => self.domain.columns(),
        };
        let mut items = Vec::new();
        for (at, value) in values.into_iter().enumerate() {
            let column = self.domain.column(at);
            items.push(match &value {
                Expr::Column(own) if *own == column => value,
                _ => value.alias_qualified(column.relation, column.name),
            });
        }
        items.extend(join.schema.columns().into_iter().map(Expr::Column));
        Ok(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?))
    }
}

/// Returns the order of a LIMIT's input.
fn order_of(plan: &LogicalPlan) -> Vec<SortExpr> {
    match plan {
        LogicalPlan::Sort(sort) => sort.expr.clone(),
        LogicalPlan::Limit(limit) => order_of(&limit.input),
        _ => Vec::new(),
    }
}

/// Returns the last column of a plan.
pub(super) fn last_column(plan: &LogicalPlan) -> Expr {
    let schema = plan.schema();
    Expr::Column(Column::from(schema.qualified_field(schema.fields().len() - 1)))
}

/// Restricts an aggregate call to marked rows.
fn only_where(call: Expr, counted: &Column) -> Result<Expr> {
    let marked = call.rewrite_up(|part| match part {
        Expr::AggregateFunction(mut call) => {
            let is_counted = Expr::Column(counted.clone());
            call.params.filter = Some(Box::new(match call.params.filter.take() {
                Some(filter) => is_counted.and(*filter),
                None => is_counted,
            }));
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(marked.data)
}

/// Combines every row of one plan with every row of another.
pub(super) fn cross(left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Join(join_on_values(left, right, Vec::new(), JoinType::Inner)?))
}

/// Joins rows with equal keys. NULL is equal to NULL.
pub(super) fn join_on_values(
    left: LogicalPlan,
    right: LogicalPlan,
    keys: Vec<(Expr, Expr)>,
    kind: JoinType,
) -> Result<Join> {
    let nulls = match keys.is_empty() {
        true => NullEquality::NullEqualsNothing,
        false => NullEquality::NullEqualsNull,
    };
    Join::try_new(Arc::new(left), Arc::new(right), keys, None, kind, JoinConstraint::On, nulls, false)
}

fn unsupported(plan: &LogicalPlan) -> Error {
    let what = match plan {
        LogicalPlan::Extension(node) => {
            format!("{} in a subquery that refers to rows outside it", node.node.name())
        }
        other => format!("a subquery that refers to rows outside it within {}", other.display()),
    };
    Error::unsupported(what)
}
