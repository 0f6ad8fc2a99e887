//! The type of an expression.
//!
//! DataFusion's `get_type` applies each operator to empty arrays to learn its type. A chain of `n` operators is asked for the
//! type of each of its parts, which takes `n` squared of these: 2,500 sums took seconds. Here the common case, operands of one
//! type, takes a comparison.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use millstream_delta::on_large_stack;

/// Returns the type of an expression, and NULL's if it has none.
pub(crate) fn type_of(expression: &Expr, schema: &DFSchema) -> DataType {
    found(expression, schema).unwrap_or(DataType::Null)
}

fn found(expression: &Expr, schema: &DFSchema) -> Result<DataType> {
    let (mut first, mut rest) = (expression, Vec::new());
    while let Expr::BinaryExpr(BinaryExpr { left, op, right }) = first {
        rest.push((op, right.as_ref()));
        first = left;
    }
    rest.into_iter().rev().try_fold(first.get_type(schema)?, |left, (operator, right)| {
        let right = match right {
            Expr::BinaryExpr(_) => on_large_stack(|| found(right, schema))?,
            _ => right.get_type(schema)?,
        };
        match left == right && is_closed(*operator, &left) {
            true => Ok(left),
            false => BinaryTypeCoercer::new(&left, operator, &right).get_result_type(),
        }
    })
}

/// Returns true if the operator's result has the type of both of its operands.
fn is_closed(operator: Operator, operands: &DataType) -> bool {
    use Operator::{And, Divide, Minus, Modulo, Multiply, Or, Plus};
    match operator {
        Plus | Minus | Multiply | Divide | Modulo => operands.is_integer() || operands.is_floating(),
        And | Or => *operands == DataType::Boolean,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{binary_expr, col, lit};

    use super::*;

    /// The types are those that DataFusion gives.
    #[test]
    fn types_are_those_of_the_library() {
        use DataType::{
            Boolean, Date32, Decimal128, Float32, Float64, Int8, Int32, Int64, UInt16, UInt64, Utf8,
        };
        let types =
            [Boolean, Int8, Int32, Int64, UInt16, UInt64, Float32, Float64, Decimal128(9, 2), Utf8, Date32];
        let fields = types.iter().map(|of| Field::new(format!("{of}"), of.clone(), true));
        let schema = DFSchema::try_from(Schema::new(fields.collect::<Vec<_>>())).unwrap();
        let columns: Vec<Expr> =
            types.iter().map(|of| Expr::Column(format!("\"{of}\"").as_str().into())).collect();
        use Operator::*;
        for operator in [Plus, Minus, Multiply, Divide, Modulo, And, Or, Eq, BitwiseAnd, StringConcat] {
            for (left, right) in
                columns.iter().flat_map(|left| columns.iter().map(move |right| (left, right)))
            {
                let pair = binary_expr(left.clone(), operator, right.clone());
                let nested =
                    binary_expr(left.clone(), operator, binary_expr(pair.clone(), operator, right.clone()));
                for expression in [pair.clone(), nested, binary_expr(pair, operator, lit(1)).alias("named")] {
                    let expected = expression.get_type(&schema).unwrap_or(DataType::Null);
                    assert_eq!(type_of(&expression, &schema), expected, "{expression}");
                }
            }
        }
        assert_eq!(type_of(&col("missing"), &schema), DataType::Null);
    }
}
