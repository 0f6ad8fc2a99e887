//! The body of a routine: one expression over its parameters.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, cast, when,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, Ident, ObjectName, SetExpr, Statement, TableAlias, TableFactor, TableWithJoins, Value,
    VisitorMut,
};
use millstream_delta::sql_type;

use super::Routine;
use super::argument_types::is_text;
use super::function::Parameter;
use crate::ast_walk::walk_mut;
use crate::dml::tree::{named_table, plain_from};
use crate::error::{Error, Result};
use crate::physical::checked_arithmetic::checked;
use crate::planner::{Planner, Raw};
use crate::reader::TokenReader;
use crate::relation::{Relation, Relations, RoutineCatalog, SearchPath};
use crate::rules::constants::computed;

/// The relation of the parameters. Users can't write this name.
const PARAMETERS: &str = "parameters of a routine";

/// An expression over the columns of its scope.
#[derive(Clone, Debug)]
pub(super) struct Body {
    /// The expression as written, cast to its type but not analysed.
    pub(super) expr: Expr,
    /// The physical expression, to be evaluated over rows of the parameters.
    pub(super) physical: Arc<dyn PhysicalExpr>,
    /// The input of physical expressions: one column per parameter.
    pub(super) schema: SchemaRef,
    /// The routines that the expression calls.
    pub(super) reads: Vec<String>,
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
    /// Plans `SELECT expression`, and casts its value to `returns` if given. `strict` makes it NULL if a
    /// parameter is NULL.
    pub(super) fn body(
        &self,
        text: &str,
        scope: &Scope<'_>,
        returns: Option<&DataType>,
        strict: bool,
    ) -> Result<Body> {
        let reader = TokenReader::new(text)?;
        let mut tree = match self.parser.parse(&reader)? {
            Statement::Query(tree) => tree,
            _ => return Err(Error::unsupported("a body that is no SELECT").at(0..text.len())),
        };
        let alone = tree.with.is_none() && tree.order_by.is_none() && tree.limit_clause.is_none();
        let SetExpr::Select(select) = tree.body.as_mut() else { return Err(one_expression(scope.routine)) };
        if !alone || !select.from.is_empty() || select.projection.len() != 1 || select.selection.is_some() {
            return Err(one_expression(scope.routine));
        }
        select.from = vec![parameters(scope.routine)];
        let mut marks =
            ParameterMarks { names: scope.parameters.iter().enumerate().map(column_name).collect() };
        if let ControlFlow::Break(error) = walk_mut(&mut tree, &mut marks) {
            return Err(error);
        }
        let inner = Within { scope, asked: Mutex::new(false) };
        let planned = self.translate(Statement::Query(tree), &[], &inner, text);
        if *inner.asked.lock().unwrap_or_else(PoisonError::into_inner) {
            let name = scope.routine;
            return Err(Error::invalid(format!("function \"{name}\" calls itself"))
                .hint("Recursion isn't supported: WITH RECURSIVE is, in a query."));
        }
        let Raw { plan, mut reads } = planned?;
        reads.retain(|name| name != PARAMETERS);
        let single = single_expression(plan).filter(|(expr, _)| !has_queries(expr));
        let (expr, input) = single.ok_or_else(|| one_expression(scope.routine))?;
        let mut expr = match returns {
            Some(returns) => self.returning(expr, &input, returns, scope.routine)?,
            None => expr,
        };
        if strict {
            expr = null_on_null(expr, &input)?;
        }
        let physical = self.physical_expression(&expr, &input)?;
        Ok(Body { expr, physical, schema: input.schema().inner().clone(), reads })
    }

    /// Casts the expression to the declared type.
    fn returning(&self, expr: Expr, input: &LogicalPlan, returns: &DataType, name: &str) -> Result<Expr> {
        let found = expr.get_type(input.schema())?;
        if found == *returns {
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

/// Makes the expression NULL if a column of the input is NULL.
fn null_on_null(expr: Expr, input: &LogicalPlan) -> Result<Expr> {
    let columns = input.schema().columns().into_iter().map(|column| Expr::Column(column).is_null());
    let Some(missing) = columns.reduce(Expr::or) else { return Ok(expr) };
    let null = Expr::Literal(ScalarValue::try_from(&expr.get_type(input.schema())?)?, None);
    Ok(when(missing, null).otherwise(expr)?)
}

fn one_expression(name: &str) -> Error {
    Error::unsupported(format!("a body of \"{name}\" that is more than one expression")).hint(
        "Write RETURN expression, or AS 'SELECT expression', without FROM, aggregates, OVER and subqueries.",
    )
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
    let found = expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
        ))
    });
    found.expect("looking doesn't fail")
}

/// Builds `"parameters of a routine" AS f`.
fn parameters(routine: &str) -> TableWithJoins {
    let mut factor = named_table(ObjectName::from(vec![Ident::with_quote('"', PARAMETERS)]));
    if let TableFactor::Table { alias, .. } = &mut factor {
        let name = Ident::with_quote('"', routine);
        *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
    }
    plain_from(factor)
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

/// Replaces `$1` and so on by the parameters' columns.
struct ParameterMarks {
    names: Vec<String>,
}

impl VisitorMut for ParameterMarks {
    type Break = Error;

    fn pre_visit_expr(&mut self, expression: &mut ExprTree) -> ControlFlow<Error> {
        if let ExprTree::Value(value) = expression
            && let Value::Placeholder(mark) = &value.value
        {
            let place = mark.strip_prefix('$').and_then(|place| place.parse::<usize>().ok());
            let name = place.and_then(|place| self.names.get(place.checked_sub(1)?));
            let Some(name) = name else {
                let count = self.names.len();
                let error = Error::invalid(format!("there is no parameter {mark}"));
                return ControlFlow::Break(error.hint(format!("There are {count}: $1 is the first.")));
            };
            *expression = ExprTree::Identifier(Ident::with_quote('"', name));
        }
        ControlFlow::Continue(())
    }
}

/// Adds the relation of the parameters to all relations.
struct Within<'a> {
    scope: &'a Scope<'a>,
    /// True if the routine itself was looked up.
    asked: Mutex<bool>,
}

impl Relations for Within<'_> {
    fn get(&self, name: &str) -> Option<Relation> {
        if name != PARAMETERS {
            return self.scope.relations.get(name);
        }
        let field = |(place, parameter): (usize, &Parameter)| {
            Field::new(column_name((place, parameter)), parameter.data_type.clone(), true)
        };
        let fields: Vec<Field> = self.scope.parameters.iter().enumerate().map(field).collect();
        Some(Relation::Rows { schema: Arc::new(Schema::new(fields)), key: None })
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.scope.relations.path()
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.scope.relations.names(schema)
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self
    }
}

impl RoutineCatalog for Within<'_> {
    fn routine(&self, name: &str) -> Option<Routine> {
        if name == self.scope.routine {
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
            return None;
        }
        self.scope.relations.routine_catalog().routine(name)
    }

    fn routine_names(&self) -> Vec<String> {
        self.scope.relations.routine_catalog().routine_names()
    }
}
