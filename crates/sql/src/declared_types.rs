//! The declared types of a result's columns: `UUID`, `JSON`, `VARCHAR(n)`, for which Arrow has no types.
//! Columns of relations keep theirs if the query returns them unchanged. A cast to `VARCHAR(n)` has its own.

use std::sync::Arc;

use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use millstream_delta::declared;

use crate::functions::marks::columns::shape_at;
use crate::functions::marks::shape::Shape;
use crate::functions::postgres::varchar::varchar_length;
use crate::relation::RelationTable;
use crate::type_names::Checked;

/// The declared type of each column.
pub(crate) type Declared = Vec<Option<Arc<str>>>;

/// Returns the declared types of a plan's columns, as written; empty if there are none.
pub(crate) fn declared_types(plan: &LogicalPlan) -> Declared {
    let mut types = of(plan);
    for (at, spelling) in types.iter_mut().enumerate().filter(|(_, spelling)| spelling.is_none()) {
        if let Shape::Marked(mark) = shape_at(plan, at) {
            *spelling = Some(mark.type_name().into());
        }
    }
    if types.iter().all(Option::is_none) { Vec::new() } else { types }
}

/// Returns the declared type of an expression over rows of these plans, if it is more specific than Arrow's type.
pub(crate) fn declared_in(expression: &Expr, inputs: &[LogicalPlan]) -> Option<Arc<str>> {
    let constant = of_expression(expression, &[], &DFSchema::empty());
    constant.or_else(|| inputs.iter().find_map(|input| of_expression(expression, &of(input), input.schema())))
}

/// Returns the schema with these declared types.
pub(crate) fn with_declared(schema: &SchemaRef, types: &Declared) -> SchemaRef {
    if types.len() != schema.fields().len() {
        return Arc::clone(schema);
    }
    let field = |(field, spelling): (&Arc<Field>, &Option<Arc<str>>)| match spelling {
        Some(spelling) => Arc::new(declared(field.as_ref().clone(), spelling)),
        None => Arc::clone(field),
    };
    let fields: Fields = schema.fields().iter().zip(types).map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn of(plan: &LogicalPlan) -> Declared {
    let width = plan.schema().fields().len();
    let types = match plan {
        LogicalPlan::TableScan(scan) => {
            let Ok(provider) = source_as_provider(&scan.source) else { return vec![None; width] };
            let all = match (provider.downcast_ref::<RelationTable>(), scan.source.get_logical_plan()) {
                (Some(relation), _) => relation.declared().to_vec(),
                (None, Some(view)) => of(&view),
                (None, None) => Vec::new(),
            };
            match &scan.projection {
                None => all,
                Some(columns) => columns.iter().map(|column| all.get(*column).cloned().flatten()).collect(),
            }
        }
        LogicalPlan::Projection(node) => over(&node.expr, &node.input),
        LogicalPlan::Aggregate(node) => {
            let mut types = over(&node.group_expr, &node.input);
            types.resize(width, None);
            types
        }
        LogicalPlan::Filter(node) => of(&node.input),
        LogicalPlan::Sort(node) => of(&node.input),
        LogicalPlan::Limit(node) => of(&node.input),
        LogicalPlan::SubqueryAlias(node) => of(&node.input),
        LogicalPlan::Distinct(Distinct::On(node)) => over(&node.select_expr, &node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => of(input),
        LogicalPlan::Window(node) => {
            let mut types = of(&node.input);
            types.resize(width, None);
            types
        }
        LogicalPlan::Join(node) => match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => of(&node.left),
            JoinType::RightSemi | JoinType::RightAnti => of(&node.right),
            _ => of(&node.left).into_iter().chain(of(&node.right)).collect(),
        },
        LogicalPlan::Union(node) => {
            let mut inputs = node.inputs.iter().map(|input| of(input));
            let first = inputs.next().unwrap_or_default();
            inputs.fold(first, |types, other| {
                let same = |(a, b): (Option<Arc<str>>, Option<Arc<str>>)| a.filter(|a| Some(a) == b.as_ref());
                types.into_iter().zip(other).map(same).collect()
            })
        }
        _ => Vec::new(),
    };
    if types.len() == width { types } else { vec![None; width] }
}

fn over(expressions: &[Expr], input: &LogicalPlan) -> Declared {
    let types = of(input);
    expressions.iter().map(|expression| of_expression(expression, &types, input.schema())).collect()
}

/// Returns the declared type of an expression over columns of these types.
fn of_expression(mut expression: &Expr, types: &[Option<Arc<str>>], schema: &DFSchema) -> Option<Arc<str>> {
    while let Expr::Alias(alias) = expression {
        expression = &alias.expr;
    }
    match expression {
        Expr::Column(column) => types.get(schema.index_of_column(column).ok()?).cloned().flatten(),
        Expr::ScalarFunction(call) => {
            varchar_length(call).map(|length| Checked::Length(length).to_string().into())
        }
        _ => None,
    }
}
