//! Syntax of Spark and Flink: units that are words, and forms that a literal selects.
//!
//! | written | planned as |
//! | --- | --- |
//! | `TIMESTAMPDIFF(DAY, a, b)` | `timestamp_difference('day', a, b)` |
//! | `FLOOR(t TO HOUR)` | `date_trunc('hour', t)` |
//! | `CEIL(t TO HOUR)` | `date_trunc('hour', t + INTERVAL '1 hour' - INTERVAL '1 microsecond')` |
//! | `CEIL(x, 2)` | `ceil_to(x, 2)` |
//! | `sha2(x, 256)` | `encode(sha256(x), 'hex')` |
//! | `trunc(d, 'MM')` | `CAST(date_trunc('month', d) AS DATE)` |
//! | `struct(a AS x, 1)` | `named_struct('x', a, 'col2', 1)` |
//!
//! More forms are in [`super::others_by_literal`].

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, CeilFloorKind, DataType as SqlType, DateTimeField, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Value,
};

use super::{call, others_by_literal, text};

/// Rewrites one expression.
pub(super) fn rewrite_expression(expression: &mut Expr) {
    match expression {
        Expr::Floor { expr, field: CeilFloorKind::DateTimeField(unit) } if is_unit(unit) => {
            *expression = truncated(unit, expr.as_ref().clone());
        }
        Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(unit) } if is_unit(unit) => {
            let operation = |left: Expr, op: BinaryOperator, length: &str| Expr::BinaryOp {
                left: Box::new(left),
                op,
                right: Box::new(interval(length)),
            };
            let later = operation(expr.as_ref().clone(), BinaryOperator::Plus, &format!("1 {unit}"));
            let before = operation(later, BinaryOperator::Minus, "1 microsecond");
            *expression = truncated(unit, Expr::Nested(Box::new(before)));
        }
        Expr::Floor { expr, field: CeilFloorKind::Scale(scale) } => {
            *expression = call("floor_to", vec![expr.as_ref().clone(), Expr::Value(scale.clone())]);
        }
        Expr::Ceil { expr, field: CeilFloorKind::Scale(scale) } => {
            *expression = call("ceil_to", vec![expr.as_ref().clone(), Expr::Value(scale.clone())]);
        }
        Expr::Struct { values, fields } if fields.is_empty() && !values.is_empty() => {
            *expression = others_by_literal::named(std::mem::take(values));
        }
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            let rewritten = match name.as_str() {
                "timestampdiff" => difference(function),
                "sha2" => sha2(function),
                name => others_by_literal::rewritten(name, function),
            };
            if let Some(rewritten) = rewritten {
                *expression = rewritten;
            }
        }
        _ => {}
    }
}

fn is_unit(unit: &DateTimeField) -> bool {
    !matches!(unit, DateTimeField::NoDateTime)
}

fn truncated(unit: &DateTimeField, of: Expr) -> Expr {
    call("date_trunc", vec![text(&unit.to_string().to_lowercase()), of])
}

pub(super) fn interval(length: &str) -> Expr {
    let data_type = SqlType::Interval { fields: None, precision: None };
    let expr = Box::new(text(length));
    Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None }
}

pub(super) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain =
        |argument: &'_ FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
    if !list.args.iter().all(plain) {
        return None;
    }
    let expressions = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
        _ => None,
    });
    Some(expressions.collect())
}

fn difference(function: &Function) -> Option<Expr> {
    match arguments(function)?[..] {
        [Expr::Identifier(unit), from, to] => {
            let unit = text(&unit.value.to_lowercase());
            Some(call("timestamp_difference", vec![unit, from.clone(), to.clone()]))
        }
        _ => None,
    }
}

fn sha2(function: &Function) -> Option<Expr> {
    let all = arguments(function)?;
    let [of, Expr::Value(bits)] = &all[..] else { return None };
    let Value::Number(bits, _) = &bits.value else { return None };
    let name = match bits.as_str() {
        "224" => "sha224",
        "0" | "256" => "sha256",
        "384" => "sha384",
        "512" => "sha512",
        _ => return None,
    };
    Some(call("encode", vec![call(name, vec![(*of).clone()]), text("hex")]))
}
