//! The body of a routine: an expression over its parameters, which may contain subqueries.
//!
//! A query with FROM, ORDER BY and so on is a scalar subquery, whose first row counts. Its references to the
//! parameters are references to an outer query.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::logical_expr::logical_plan::{FetchType, Subquery};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, cast, lit, when,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr as ExprTree, Query as QueryTree, SelectItem, SetExpr};
use millstream_delta::sql_type;

use super::argument_types::is_text;
use super::function::Parameter;
use super::statements::BodyPlanner;
use crate::complexity::subquery_of;
use crate::error::{Error, Result};
use crate::physical::checked_arithmetic::checked;
use crate::planner::{Planner, Raw};
use crate::relation::Relations;
use crate::rules::constants::computed;

/// An expression over the columns of its scope.
#[derive(Clone, Debug)]
pub(super) struct Body {
    /// The expression as written, cast to its type but not analysed.
    pub(super) expr: Expr,
    /// The physical expression, to be evaluated over rows of the parameters; none if the body has subqueries.
    physical: Option<Arc<dyn PhysicalExpr>>,
    /// The input of physical expressions: one column per parameter.
    pub(super) schema: SchemaRef,
    /// The routines that the expression calls.
    pub(super) reads: Vec<String>,
}

impl Body {
    /// Returns the body of a function that returns a table: a row of NULLs, which no query reads.
    pub(super) fn of_rows(scope: &Scope<'_>, returns: &DataType, reads: Vec<String>) -> Result<Body> {
        let expr = Expr::Literal(ScalarValue::try_from(returns)?, None);
        Ok(Body { expr, physical: None, schema: parameter_schema(scope.parameters), reads })
    }
}

/// An expression over the relation of the parameters.
struct BodyValue {
    expr: Expr,
    input: LogicalPlan,
    reads: Vec<String>,
}

impl Body {
    /// Returns the physical expression. `place` names the use of the body that needs it. Fails if the body has
    /// subqueries.
    pub(super) fn evaluable(&self, place: &str) -> Result<&Arc<dyn PhysicalExpr>> {
        self.physical.as_ref().ok_or_else(|| {
            Error::unsupported(format!("a body with a subquery, in {place},"))
                .hint("Use functions of arrays instead, such as array_sum and transform.")
        })
    }
}

/// The names that a body may use.
pub(super) struct Scope<'a> {
    /// The routine's name, which may qualify its parameters: `f.x`.
    pub(super) routine: &'a str,
    /// The parameters.
    pub(super) parameters: &'a [Parameter],
    /// All other names.
    pub(super) relations: &'a dyn Relations,
}

impl Planner {
    /// Plans a query as an expression, and casts its value to `returns` if given. `strict` makes it NULL if a
    /// parameter is NULL.
    pub(super) fn body(
        &self,
        text: &str,
        scope: &Scope<'_>,
        returns: Option<&DataType>,
        strict: bool,
    ) -> Result<Body> {
        let bodies = BodyPlanner { planner: self, scope };
        let tree = bodies.query_of(text)?;
        let BodyValue { expr, input, reads } = bodies.value(tree, text)?;
        let mut expr = match returns {
            Some(returns) => self.returning(expr, &input, returns, scope.routine)?,
            None => expr,
        };
        if strict {
            expr = null_on_null(expr, &input)?;
        }
        let physical = match has_queries(&expr) {
            true => {
                bodies.check_subqueries(&expr, &input)?;
                None
            }
            false => Some(self.physical_expression(&expr, &input)?),
        };
        Ok(Body { expr, physical, schema: input.schema().inner().clone(), reads })
    }

    /// Casts the expression to the declared type.
    fn returning(&self, expr: Expr, input: &LogicalPlan, returns: &DataType, name: &str) -> Result<Expr> {
        let found = expr.get_type(input.schema())?;
        // Planning can make a DOUBLE PRECISION of a REAL.
        if found == *returns && !returns.is_floating() {
            return Ok(expr);
        }
        let is_literal = matches!(expr, Expr::Literal(..));
        let castable = arrow::compute::can_cast_types(&found, returns)
            && (is_text(returns) == is_text(&found) || is_literal || found.is_null());
        if !castable {
            let (found, returns) = (sql_type(&found), sql_type(returns));
            return Err(Error::invalid(format!("\"{name}\" returns {returns}, but its body gives {found}"))
                .hint(format!("Cast it: (…)::{returns}.")));
        }
        Ok(cast(expr, returns.clone()))
    }

    /// Returns the physical form of an expression over rows of `input`.
    pub(crate) fn physical_expression(
        &self,
        expr: &Expr,
        input: &LogicalPlan,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let (expr, schema) = simplified_expression(self, expr, input)?;
        let (props, context) = (self.state().execution_props(), PhysicalPlanningContext::default());
        Ok(checked(create_physical_expr(&expr, &schema, props, &context)?, schema.as_arrow())?)
    }
}

/// Returns an expression over rows of `input` with resolved types and computed constants, and the columns of these rows.
pub(crate) fn simplified_expression(
    planner: &Planner,
    expr: &Expr,
    input: &LogicalPlan,
) -> Result<(Expr, DFSchemaRef)> {
    let plan = LogicalPlanBuilder::from(input.clone()).project([expr.clone().alias("body")])?.build()?;
    let analysed = planner.analysed(plan)?;
    let (expr, input) =
        single_expression(analysed).ok_or_else(|| Error::unsupported("a body that isn't one expression"))?;
    let schema = Arc::clone(input.schema());
    // Some functions, such as coalesce, can only be evaluated in their simplified form.
    let settings = SimplifyContext::builder()
        .with_config_options(Arc::clone(planner.state().config_options()))
        .with_schema(Arc::clone(&schema))
        .build();
    let expr = computed(expr, planner.state().config_options())?;
    Ok((ExprSimplifier::new(settings).simplify(expr)?, schema))
}

impl BodyPlanner<'_> {
    /// Plans a query as an expression over the relation of the parameters.
    fn value(&self, tree: Box<QueryTree>, text: &str) -> Result<BodyValue> {
        if is_expression(&tree) {
            let Raw { plan, reads } = self.over_parameters(tree.clone(), text)?;
            if plan.exists(|node| Ok(matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_))))? {
                return Err(without_from(self.scope.routine));
            }
            if let Some((expr, input)) = single_expression(plan) {
                return Ok(BodyValue { expr, input, reads });
            }
        }
        refuse_several_columns(&tree, self.scope.routine)?;
        let select = self.select_of_expression(ExprTree::Subquery(tree))?;
        let Raw { plan, reads } = self.over_parameters(select, text)?;
        let (expr, input) =
            single_expression(plan).ok_or_else(|| Error::bug("a subquery is no expression"))?;
        Ok(BodyValue { expr: first_row(expr)?, input, reads })
    }
}

/// Makes the expression NULL if a column of the input is NULL.
fn null_on_null(expr: Expr, input: &LogicalPlan) -> Result<Expr> {
    let columns = input.schema().columns().into_iter().map(|column| Expr::Column(column).is_null());
    let Some(missing) = columns.reduce(Expr::or) else { return Ok(expr) };
    let null = Expr::Literal(ScalarValue::try_from(&expr.get_type(input.schema())?)?, None);
    Ok(when(missing, null).otherwise(expr)?)
}

fn without_from(name: &str) -> Error {
    Error::unsupported(format!("an aggregate or OVER without FROM in the body of \"{name}\""))
        .hint("Write FROM, as in SELECT sum(x) FROM unnest(a) AS u(x).")
}

/// Returns the only expression of a projection of a relation under an alias, and that relation.
pub(crate) fn single_expression(plan: LogicalPlan) -> Option<(Expr, LogicalPlan)> {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else { return None };
    let scan = matches!(
        input.as_ref(),
        LogicalPlan::SubqueryAlias(alias) if matches!(alias.input.as_ref(), LogicalPlan::TableScan(_))
    );
    let [expr] = <[Expr; 1]>::try_from(expr).ok()?;
    scan.then(|| (expr.unalias(), input.as_ref().clone()))
}

/// True if an expression contains a subquery.
pub(crate) fn has_queries(expr: &Expr) -> bool {
    let found = expr.exists(|part| Ok(subquery_of(part).is_some()));
    found.expect("looking doesn't fail")
}

/// True if a query is one expression, so that it needs no subquery.
fn is_expression(tree: &QueryTree) -> bool {
    let SetExpr::Select(select) = tree.body.as_ref() else { return false };
    let is_alone = tree.with.is_none()
        && tree.order_by.is_none()
        && tree.limit_clause.is_none()
        && tree.fetch.is_none()
        && select.from.is_empty()
        && select.selection.is_none();
    let items = select.projection.as_slice();
    is_alone && matches!(items, [SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }])
}

fn refuse_several_columns(tree: &QueryTree, name: &str) -> Result<()> {
    let SetExpr::Select(select) = tree.body.as_ref() else { return Ok(()) };
    let is_one =
        |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    let count = select.projection.len();
    if count == 1 || !select.projection.iter().all(is_one) {
        return Ok(());
    }
    Err(Error::invalid(format!("the body of \"{name}\" has {count} columns, 1 was expected"))
        .hint("Return one value, as in SELECT struct(a, b)."))
}

/// Limits a scalar subquery to its first row, as PostgreSQL does for a function.
fn first_row(expr: Expr) -> Result<Expr> {
    let Expr::ScalarSubquery(Subquery { subquery, outer_ref_columns, spans }) = expr else { return Ok(expr) };
    let plan = match Arc::unwrap_or_clone(subquery) {
        LogicalPlan::Limit(mut limit) => {
            match limit.get_fetch_type()? {
                FetchType::Literal(Some(0 | 1)) | FetchType::UnsupportedExpr => {}
                FetchType::Literal(_) => limit.fetch = Some(Box::new(lit(1_i64))),
            }
            LogicalPlan::Limit(limit)
        }
        plan if has_one_row(&plan) => plan,
        plan => LogicalPlanBuilder::from(plan).limit(0, Some(1))?.build()?,
    };
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans }))
}

/// True if a plan obviously has one row at most.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(node) => has_one_row(&node.input),
        LogicalPlan::Filter(node) => has_one_row(&node.input),
        LogicalPlan::SubqueryAlias(node) => has_one_row(&node.input),
        LogicalPlan::Sort(node) => has_one_row(&node.input),
        LogicalPlan::Aggregate(node) => node.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        _ => false,
    }
}

/// Returns the columns of the parameters' relation.
pub(super) fn parameter_schema(parameters: &[Parameter]) -> SchemaRef {
    let field = |(place, parameter): (usize, &Parameter)| {
        Field::new(column_name((place, parameter)), parameter.data_type.clone(), true)
    };
    Arc::new(Schema::new(parameters.iter().enumerate().map(field).collect::<Vec<Field>>()))
}

/// Returns the name of a parameter's column.
pub(super) fn column_name((place, parameter): (usize, &Parameter)) -> String {
    parameter.name.clone().unwrap_or_else(|| format!("${}", place + 1))
}

/// Counts how often an expression uses each parameter.
pub(super) fn uses(expr: &Expr, parameters: &[Parameter]) -> Vec<usize> {
    let mut counts = vec![0; parameters.len()];
    let names: Vec<String> = parameters.iter().enumerate().map(column_name).collect();
    let counted = expr.apply(|part| {
        if let Expr::Column(Column { name, .. }) = part
            && let Some(place) = names.iter().position(|other| other == name)
        {
            counts[place] += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    counted.expect("counting doesn't fail");
    counts
}
