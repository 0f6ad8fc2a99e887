//! Compiles the expressions of a clause to physical ones. The analyzer's rules apply as in any query.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use millstream_delta::sql_type;

use super::clause::{Asked, Clause, Condition, Planned};
use super::terms::{RowPosition, Term, term_name};
use crate::determinism::CLOCKS;
use crate::error::{Error, Result};
use crate::physical::checked_arithmetic::checked;
use crate::planner::Planner;
use crate::rules::constants::computed;

/// Aggregates whose accumulators can be evaluated repeatedly.
const LASTING: [&str; 5] = ["count", "sum", "avg", "min", "max"];

/// A call of an aggregate function.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: Arc<AggregateFunctionExpr>,
    pub(super) arguments: Vec<Arc<dyn PhysicalExpr>>,
    /// True if an accumulator may add rows after it has returned a result.
    pub(super) lasts: bool,
}

/// A compiled expression over the columns of its terms.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) physical: Arc<dyn PhysicalExpr>,
    pub(super) terms: Vec<Term>,
    /// The columns of the terms.
    pub(super) schema: SchemaRef,
}

/// Compiles expressions.
pub(super) struct Compiler<'a> {
    pub(super) planner: &'a Planner,
}

impl Compiler<'_> {
    /// Compiles expressions over columns.
    pub(super) fn expressions(
        &self,
        written: &[Expr],
        schema: &DFSchemaRef,
    ) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        if written.is_empty() {
            return Ok(Vec::new());
        }
        written.iter().try_for_each(refuse_nondeterministic)?;
        let named = written.iter().enumerate().map(|(at, expr)| expr.clone().unalias().alias(at.to_string()));
        let plan = LogicalPlanBuilder::from(no_rows(schema)).project(named.collect::<Vec<_>>())?.build()?;
        let LogicalPlan::Projection(analysed) = self.planner.analysed(plan)? else {
            return Err(Error::unsupported("such an expression in MATCH_RECOGNIZE"));
        };
        analysed.expr.iter().map(|expr| self.physical(expr, analysed.input.schema())).collect()
    }

    /// Builds a physical expression. Some functions, such as coalesce, can only be evaluated in their
    /// simplified form.
    fn physical(&self, expr: &Expr, schema: &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
        let settings = SimplifyContext::builder()
            .with_config_options(Arc::clone(self.planner.state().config_options()))
            .with_schema(Arc::clone(schema))
            .build();
        let expr = computed(expr.clone().unalias(), self.planner.state().config_options())?;
        let expr = ExprSimplifier::new(settings).simplify(expr)?;
        let (props, context) = (self.planner.state().execution_props(), PhysicalPlanningContext::default());
        Ok(checked(create_physical_expr(&expr, schema, props, &context)?, schema.as_arrow())?)
    }

    /// Compiles an expression over its terms, and returns its type.
    fn asked(&self, asked: &Asked) -> Result<(Compiled, DataType)> {
        let physical = self.expressions(std::slice::from_ref(&asked.expr), &asked.columns)?.pop();
        let physical = physical.ok_or_else(|| Error::bug("an expression of MATCH_RECOGNIZE is gone"))?;
        let found = physical.data_type(asked.columns.as_arrow())?;
        let schema = asked.columns.inner().clone();
        Ok((Compiled { physical, terms: asked.terms.clone(), schema }, found))
    }

    /// Compiles a call of an aggregate function over columns. Its rows come in the partition's order, unless
    /// it sorts them itself.
    pub(super) fn call(&self, written: &Expr, schema: &DFSchemaRef) -> Result<Call> {
        refuse_nondeterministic(written)?;
        let none: [Expr; 0] = [];
        let plan = LogicalPlanBuilder::from(no_rows(schema)).aggregate(none, [written.clone()])?.build()?;
        let mut analysed = self.planner.analysed(plan)?;
        while let LogicalPlan::Projection(projection) = analysed {
            analysed = Arc::unwrap_or_clone(projection.input);
        }
        let unsupported = || Error::unsupported(format!("{written} in MATCH_RECOGNIZE"));
        let LogicalPlan::Aggregate(analysed) = analysed else { return Err(unsupported()) };
        let [call] = analysed.aggr_expr.as_slice() else { return Err(unsupported()) };
        if !matches!(analysed.input.as_ref(), LogicalPlan::EmptyRelation(_)) {
            return Err(unsupported());
        }
        let mut call = call.clone().unalias_nested().data;
        let Expr::AggregateFunction(function) = &mut call else { return Err(unsupported()) };
        function.params.order_by.clear();
        for argument in &mut function.params.args {
            *argument = computed(std::mem::take(argument), self.planner.state().config_options())?;
        }
        let schema = analysed.input.schema();
        let (props, context) = (self.planner.state().execution_props(), PhysicalPlanningContext::default());
        let builder = LoweredAggregateBuilder::new(&call, schema, schema.as_arrow(), props, &context);
        let function = builder.build()?.aggregate;
        let lasts = LASTING.contains(&function.fun().name()) && !function.is_distinct();
        let arguments = function.expressions().into_iter();
        let arguments = arguments.map(|argument| checked(argument, schema.as_arrow()));
        Ok(Call { arguments: arguments.collect::<datafusion::error::Result<_>>()?, function, lasts })
    }
}

impl Planned {
    /// Compiles the clause.
    pub(super) fn ready(self, planner: &Planner) -> Result<Clause> {
        let compiler = Compiler { planner };
        let (keys, options): (Vec<Expr>, Vec<SortOptions>) = self.order.iter().cloned().unzip();
        let order = compiler.expressions(&keys, &self.columns)?.into_iter().zip(options).collect();
        let values = compiler.expressions(&self.values, &self.columns)?;
        let calls = self.calls.iter().map(|call| compiler.call(call, &self.columns));
        let calls = calls.collect::<Result<Vec<Call>>>()?;
        let mut conditions = Vec::with_capacity(self.conditions.len());
        for (variable, asked) in self.conditions.iter().enumerate() {
            conditions.push(match asked {
                None => Condition::Always,
                Some(asked) => condition_of(&asked.name, variable, compiler.asked(asked)?)?,
            });
        }
        let (mut measures, mut fields) = (Vec::new(), Vec::new());
        for (name, asked) in &self.measures {
            let (measure, found) = compiler.asked(asked)?;
            measures.push(measure);
            fields.push(Field::new(name, found, true));
        }
        for at in &self.shown {
            let field = self
                .columns
                .fields()
                .get(*at)
                .ok_or_else(|| Error::bug("a column is shown that isn't taken"))?;
            fields.push(field.as_ref().clone().with_nullable(true));
        }
        let (schema, fields) = (self.columns.inner().clone(), Fields::from(fields));
        Ok(Clause { planned: self, schema, order, conditions, values, calls, measures, fields })
    }
}

/// Builds the condition of a variable from the expression and its type.
fn condition_of(name: &str, variable: usize, (condition, found): (Compiled, DataType)) -> Result<Condition> {
    if !matches!(found, DataType::Boolean | DataType::Null) {
        let found = sql_type(&found);
        return Err(Error::invalid(format!(
            "MATCH_RECOGNIZE: {name} AS … is {found}, but a condition was expected"
        )));
    }
    Ok(match condition.terms.iter().all(|term| is_of_row(term, variable)) {
        true => Condition::OfRow(condition),
        false => Condition::OfMatch(condition),
    })
}

/// True if a term in a variable's definition depends only on the row and its neighbours.
fn is_of_row(term: &Term, variable: usize) -> bool {
    let Term::Value(_, RowPosition { rows, last: true, skip: 0, .. }) = term else { return false };
    rows.among.as_ref().is_none_or(|among| among.contains(&variable))
}

/// Returns the columns of terms with these types.
pub(super) fn term_fields(types: Vec<DataType>) -> Vec<Field> {
    types.into_iter().enumerate().map(|(at, found)| Field::new(term_name(at), found, true)).collect()
}

/// Returns unqualified columns.
pub(super) fn columns(fields: Vec<Field>) -> Result<DFSchemaRef> {
    Ok(Arc::new(DFSchema::from_unqualified_fields(fields.into(), HashMap::new())?))
}

fn no_rows(schema: &DFSchemaRef) -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::clone(schema) })
}

/// Refuses functions that return another value each time: a match would depend on the time of the search.
fn refuse_nondeterministic(expr: &Expr) -> Result<()> {
    let mut found = None;
    expr.apply(|part| {
        if let Expr::ScalarFunction(call) = part
            && (CLOCKS.contains(&call.func.name())
                || call.func.signature().volatility == Volatility::Volatile)
        {
            found = Some(call.func.name().to_string());
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    match found {
        Some(name) => Err(Error::unsupported(format!("{name}() in MATCH_RECOGNIZE"))
            .hint("Its value would change without any change of the input: compare columns of the rows.")),
        None => Ok(()),
    }
}
