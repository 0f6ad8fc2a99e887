//! Plans the operators and subscripts of JSON and JSONB.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, GetFieldAccess, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::expression_type::type_of;
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::is_literal;
use crate::functions::marks::shape::Shape;

/// The planner. It must be asked before DataFusion's.
#[derive(Debug)]
pub(crate) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if !is_operator(&written.op) {
            return Ok(PlannerResult::Original(written));
        }
        let left = json_mark(&written.left, schema);
        let right = json_mark(&written.right, schema);
        let right_type = type_of(&written.right, schema);
        let name = match function(&written, (left, right), &right_type) {
            Some(name) => name,
            None => return Ok(PlannerResult::Original(written)),
        };
        let shown = format!("{} {} {}", shown(&written.left), written.op, shown(&written.right));
        let RawBinaryExpr { op, left, right } = written;
        let (left, right) = (typed(left), typed(right));
        match call(name, vec![left.clone(), right.clone()]) {
            Some(planned) => Ok(PlannerResult::Planned(planned.alias(shown))),
            None => Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        }
    }

    /// Plans `j['a'][0]` as steps of a path.
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { expr, field_access } = access;
        let original =
            |expr, field_access| PlannerResult::Original(RawFieldAccessExpr { expr, field_access });
        if json_mark(&expr, schema).is_none() {
            return Ok(original(expr, field_access));
        }
        let step = match &field_access {
            GetFieldAccess::NamedStructField { name } => Expr::Literal(name.clone(), None),
            GetFieldAccess::ListIndex { key } => cast(key.as_ref().clone(), DataType::Utf8View),
            GetFieldAccess::ListRange { .. } => return Ok(original(expr, field_access)),
        };
        Ok(match call("jsonb_extract_path", vec![expr.clone(), step]) {
            Some(planned) => PlannerResult::Planned(planned),
            None => original(expr, field_access),
        })
    }
}

/// Gives a parameter without a type that of text.
pub(in crate::functions) fn typed(operand: Expr) -> Expr {
    match operand {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Field::new(id.as_str(), DataType::Utf8View, true);
            Expr::Placeholder(Placeholder { id, field: Some(Arc::new(field)) })
        }
        operand => operand,
    }
}

/// Returns the shape of a column of a schema.
pub(in crate::functions) fn column_in(schema: &DFSchema, column: &Column) -> Shape {
    Shape::marked(schema.field_from_column(column).ok().and_then(|field| Mark::of(field)))
}

/// Returns the mark of an operand, if it is JSON.
fn json_mark(operand: &Expr, schema: &DFSchema) -> Option<Mark> {
    Shape::mark(operand, &|column: &Column| column_in(schema, column)).filter(|mark| mark.is_json())
}

fn is_operator(op: &BinaryOperator) -> bool {
    use BinaryOperator::*;
    matches!(
        op,
        Arrow
            | LongArrow
            | HashArrow
            | HashLongArrow
            | AtArrow
            | ArrowAt
            | Question
            | QuestionPipe
            | QuestionAnd
            | StringConcat
            | Minus
            | HashMinus
            | AtQuestion
            | AtAt
    )
}

type Marks = (Option<Mark>, Option<Mark>);

/// Returns the function of an operator; none if its operands are no JSON.
fn function(written: &RawBinaryExpr, marks: Marks, right: &DataType) -> Option<&'static str> {
    use BinaryOperator::*;
    let any = marks.0.or(marks.1);
    let both = |literal: &Expr, other: Option<Mark>| other == Some(Mark::Jsonb) || is_literal(literal);
    Some(match written.op {
        AtArrow if any.is_some() => "jsonb_contains",
        ArrowAt if any.is_some() => "jsonb_contained",
        StringConcat
            if any == Some(Mark::Jsonb) && both(&written.left, marks.0) && both(&written.right, marks.1) =>
        {
            "jsonb_concat"
        }
        QuestionPipe => "jsonb_exists_any",
        QuestionAnd => "jsonb_exists_all",
        AtQuestion => "jsonb_path_exists_opr",
        AtAt => "jsonb_path_match_opr",
        HashMinus => "jsonb_delete_path",
        Question if marks.0.is_some() => "jsonb_exists",
        Minus if marks.0 == Some(Mark::Jsonb) => match right {
            right if right.is_integer() => "jsonb_delete_index",
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "jsonb_delete_keys",
            _ => "jsonb_delete_key",
        },
        Arrow | LongArrow | HashArrow | HashLongArrow => part(&written.op, marks.0?, right.is_integer())?,
        _ => return None,
    })
}

fn part(op: &BinaryOperator, mark: Mark, by_place: bool) -> Option<&'static str> {
    use BinaryOperator::*;
    Some(match (op, mark, by_place) {
        (Arrow, Mark::Json, false) => "json_object_field",
        (Arrow, Mark::Json, true) => "json_array_element",
        (Arrow, Mark::Jsonb, false) => "jsonb_object_field",
        (Arrow, Mark::Jsonb, true) => "jsonb_array_element",
        (LongArrow, Mark::Json, false) => "json_object_field_text",
        (LongArrow, Mark::Json, true) => "json_array_element_text",
        (LongArrow, Mark::Jsonb, false) => "jsonb_object_field_text",
        (LongArrow, Mark::Jsonb, true) => "jsonb_array_element_text",
        (HashArrow, Mark::Json, _) => "json_get_path",
        (HashArrow, Mark::Jsonb, _) => "jsonb_get_path",
        (HashLongArrow, Mark::Json, _) => "json_get_path_text",
        (HashLongArrow, Mark::Jsonb, _) => "jsonb_get_path_text",
        _ => return None,
    })
}

/// Returns an operand as it appears in a column's name.
pub(in crate::functions) fn shown(expression: &Expr) -> String {
    match expression {
        Expr::Literal(value, _) => match value {
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => format!("'{text}'"),
            value => value.to_string(),
        },
        Expr::Column(column) => column.name.clone(),
        Expr::Alias(alias) => alias.name.clone(),
        other => other.schema_name().to_string(),
    }
}
