//! Tells numbers that are NUMERIC in PostgreSQL from those that are DOUBLE PRECISION.
//!
//! Here, `0.5` is a DOUBLE PRECISION, and so is `v * 0.5` of an INT and the `avg` of integers. In PostgreSQL they are NUMERIC, whose
//! halves are rounded away from zero, while those of a DOUBLE PRECISION are rounded to the even number.

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Cast, TryCast, WindowFunctionDefinition};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, Operator,
};

use crate::functions::rounding::leaf_type;

/// The most expressions that are looked at for one answer: columns of nested queries can lead to very many.
const STEPS_MAX: usize = 1_000;

/// The most expressions and columns within each other that are looked at.
const DEPTH_MAX: usize = 100;

/// Functions that return numbers of the kind of their first argument.
const OF_FIRST: [&str; 21] = [
    "abs",
    "array_agg",
    "array_element",
    "avg",
    "ceil",
    "first_value",
    "floor",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "nth_value",
    "round",
    "sqrt",
    "stddev",
    "stddev_pop",
    "sum",
    "trunc",
    "var",
    "var_pop",
];

/// Of these, those that return NUMERIC for integers.
const OF_INTEGERS: [&str; 5] = ["avg", "stddev", "stddev_pop", "var", "var_pop"];

/// Functions that return a number of one of the kinds of their arguments.
const OF_ALL: [&str; 8] = ["coalesce", "greatest", "ifnull", "least", "make_array", "mod", "nvl", "power"];

/// The type of a number in PostgreSQL. The greatest one among the operands of an operation is the type of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Integer,
    Numeric,
    Double,
}

/// True if a value over rows of these plans is NUMERIC in PostgreSQL, and so are the elements of an array.
pub(crate) fn is_numeric(expression: &Expr, inputs: &[&LogicalPlan]) -> bool {
    Search::default().kind(expression, inputs) == Kind::Numeric
}

/// A search, which gives up after [`STEPS_MAX`] expressions and below [`DEPTH_MAX`].
#[derive(Debug, Default)]
struct Search {
    steps: usize,
    depth: usize,
}

impl Search {
    fn kind(&mut self, expression: &Expr, inputs: &[&LogicalPlan]) -> Kind {
        self.guarded(|search| search.kind_of(expression, inputs))
    }

    /// Looks at an expression or a column, unless there have been too many.
    fn guarded(&mut self, look: impl FnOnce(&mut Search) -> Kind) -> Kind {
        if self.steps == STEPS_MAX || self.depth == DEPTH_MAX {
            return Kind::Double;
        }
        self.steps += 1;
        self.depth += 1;
        let kind = look(self);
        self.depth -= 1;
        kind
    }

    fn kind_of(&mut self, expression: &Expr, inputs: &[&LogicalPlan]) -> Kind {
        match expression {
            Expr::Literal(ScalarValue::Float64(_), _) => Kind::Numeric,
            Expr::Literal(value, _) if value.is_null() => Kind::Integer,
            Expr::Literal(value, _) => of_type(&value.data_type()),
            Expr::Alias(alias) => self.kind(&alias.expr, inputs),
            Expr::Negative(inner) => self.kind(inner, inputs),
            Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
                of_type(field.data_type())
            }
            Expr::Column(column) => self.column(column, inputs),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(*op) => {
                self.kind(left, inputs).max(self.kind(right, inputs))
            }
            Expr::Case(case) => {
                let results = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
                self.all(results.chain(case.else_expr.as_deref()), inputs)
            }
            Expr::ScalarFunction(call) => self.call(call.name(), &call.args, inputs, expression),
            Expr::AggregateFunction(call) => {
                self.call(call.func.name(), &call.params.args, inputs, expression)
            }
            Expr::WindowFunction(call) => {
                let name = match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(function) => function.name(),
                    WindowFunctionDefinition::WindowUDF(function) => function.name(),
                };
                self.call(name, &call.params.args, inputs, expression)
            }
            Expr::ScalarSubquery(query) => self.column_at(&query.subquery, 0),
            other => typed(other, inputs),
        }
    }

    fn all<'e>(&mut self, all: impl Iterator<Item = &'e Expr>, inputs: &[&LogicalPlan]) -> Kind {
        all.map(|expression| self.kind(expression, inputs)).max().unwrap_or(Kind::Double)
    }

    fn call(&mut self, name: &str, arguments: &[Expr], inputs: &[&LogicalPlan], call: &Expr) -> Kind {
        let kind = match name {
            name if OF_ALL.contains(&name) => self.all(arguments.iter(), inputs),
            name if OF_FIRST.contains(&name) => self.all(arguments.iter().take(1), inputs),
            _ => return typed(call, inputs),
        };
        if OF_INTEGERS.contains(&name) { kind.max(Kind::Numeric) } else { kind }
    }

    fn column(&mut self, column: &Column, inputs: &[&LogicalPlan]) -> Kind {
        for input in inputs {
            if let Some(at) = input.schema().maybe_index_of_column(column) {
                return self.column_at(input, at);
            }
        }
        Kind::Double
    }

    /// Returns the kind of a plan's column.
    fn column_at(&mut self, plan: &LogicalPlan, at: usize) -> Kind {
        self.guarded(|search| search.column_of(plan, at))
    }

    fn column_of(&mut self, plan: &LogicalPlan, at: usize) -> Kind {
        match plan {
            LogicalPlan::Projection(node) => self.item(node.expr.get(at), &node.input),
            LogicalPlan::Filter(node) => self.column_at(&node.input, at),
            LogicalPlan::Sort(node) => self.column_at(&node.input, at),
            LogicalPlan::Limit(node) => self.column_at(&node.input, at),
            LogicalPlan::SubqueryAlias(node) => self.column_at(&node.input, at),
            LogicalPlan::Distinct(Distinct::All(input)) => self.column_at(input, at),
            LogicalPlan::Distinct(Distinct::On(node)) => self.item(node.select_expr.get(at), &node.input),
            LogicalPlan::Aggregate(node) => self.aggregated(node, plan, at),
            LogicalPlan::Window(node) => {
                let width = node.input.schema().fields().len();
                match at.checked_sub(width) {
                    None => self.column_at(&node.input, at),
                    Some(at) => self.item(node.window_expr.get(at), &node.input),
                }
            }
            LogicalPlan::Join(node) => {
                let width = node.left.schema().fields().len();
                match (node.join_type, at.checked_sub(width)) {
                    (JoinType::RightSemi | JoinType::RightAnti, _) => self.column_at(&node.right, at),
                    (_, None) => self.column_at(&node.left, at),
                    (_, Some(at)) => self.column_at(&node.right, at),
                }
            }
            LogicalPlan::Union(node) => {
                let kinds = node.inputs.iter().map(|input| self.column_at(input, at));
                kinds.max().unwrap_or(Kind::Double)
            }
            LogicalPlan::Values(node) => {
                self.all(node.values.iter().filter_map(|row| row.get(at)).map(as_written), &[])
            }
            LogicalPlan::RecursiveQuery(node) => self.column_at(&node.static_term, at),
            other => typed_at(other, at),
        }
    }

    fn item(&mut self, item: Option<&Expr>, input: &LogicalPlan) -> Kind {
        item.map_or(Kind::Double, |item| self.kind(item, &[input]))
    }

    fn aggregated(&mut self, node: &Aggregate, plan: &LogicalPlan, at: usize) -> Kind {
        // Grouping sets add a column between the groups and the aggregates.
        let groups = plan.schema().fields().len() - node.aggr_expr.len();
        match at.checked_sub(groups) {
            Some(at) => self.item(node.aggr_expr.get(at), &node.input),
            None => match grouping_set_to_exprlist(&node.group_expr) {
                Ok(groups) if at < groups.len() => self.item(groups.get(at).copied(), &node.input),
                _ => typed_at(plan, at),
            },
        }
    }
}

/// Returns a whole number of VALUES without the cast that planning adds if other rows have a number with a point.
fn as_written(value: &Expr) -> &Expr {
    match value {
        Expr::Cast(Cast { expr, .. }) => match expr.as_ref() {
            Expr::Literal(whole, _) if whole.data_type().is_integer() => expr,
            _ => value,
        },
        other => other,
    }
}

fn is_arithmetic(operator: Operator) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(operator, Plus | Minus | Multiply | Divide | Modulo)
}

fn typed(expression: &Expr, inputs: &[&LogicalPlan]) -> Kind {
    let schema = |input: &&LogicalPlan| expression.get_type(input.schema()).ok();
    inputs.iter().find_map(schema).map_or(Kind::Double, |found| of_type(&found))
}

fn typed_at(plan: &LogicalPlan, at: usize) -> Kind {
    plan.schema().fields().get(at).map_or(Kind::Double, |field| of_type(field.data_type()))
}

fn of_type(data_type: &DataType) -> Kind {
    match leaf_type(data_type) {
        integer if integer.is_integer() || integer.is_null() => Kind::Integer,
        decimal if decimal.is_decimal() => Kind::Numeric,
        _ => Kind::Double,
    }
}
