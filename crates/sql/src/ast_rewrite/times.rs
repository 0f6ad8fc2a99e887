//! Syntax of times that DataFusion's planner lacks.
//!
//! | written | planned as |
//! | --- | --- |
//! | `extract(century FROM t)`, and fields with a fraction | `extract_exact('century', t)` |
//! | `date_part('century', t)` | that as DOUBLE PRECISION |
//! | `(a, b) OVERLAPS (c, d)` | `periods_overlap(a, b, c, d)` |
//! | `make_interval(days => 10)` | `make_interval(0, 0, 0, 10)` |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Value,
};

use super::{call, text};
use crate::error::{Error, Result};
use crate::functions::postgres::extract;

/// The fields of EXTRACT that DataFusion's function lacks.
const ADDED_FIELDS: [&str; 11] = [
    "century",
    "centuries",
    "decade",
    "decades",
    "millennium",
    "millenium",
    "millennia",
    "julian",
    "timezone",
    "timezone_hour",
    "timezone_minute",
];

/// The fields that DataFusion's function cuts to whole numbers.
const EXACT_FIELDS: [&str; 5] = ["epoch", "second", "seconds", "millisecond", "milliseconds"];

/// The arguments of make_interval.
const PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Rewrites one expression.
pub(super) fn rewrite_expression(expression: &mut Expr) -> Result<()> {
    match expression {
        Expr::Extract { field, expr, .. } => {
            let name = field.to_string().to_ascii_lowercase();
            if ADDED_FIELDS.iter().chain(&EXACT_FIELDS).any(|known| *known == name) {
                *expression = extracted(&name, expr.as_ref().clone());
            }
        }
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => {
            let periods = (pair(left), pair(right));
            let (Some([start, end]), Some([other, other_end])) = periods else {
                return Err(Error::invalid("OVERLAPS takes two periods of times")
                    .hint("Write (start, end) OVERLAPS (start, end)."));
            };
            *expression = call("periods_overlap", vec![start, end, other, other_end]);
        }
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            match name.as_str() {
                "date_part" => {
                    if let Some(part) = date_part(function) {
                        *expression = part;
                    }
                }
                "make_interval" => name_parts(function)?,
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

fn extracted(field: &str, of: Expr) -> Expr {
    let field = if field == "millenium" { "millennium" } else { field };
    call(extract::NAME, vec![text(field), of])
}

/// Returns the two values in parentheses.
fn pair(expression: &Expr) -> Option<[Expr; 2]> {
    match expression {
        Expr::Tuple(values) => <[Expr; 2]>::try_from(values.clone()).ok(),
        _ => None,
    }
}

fn date_part(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(field)), FunctionArg::Unnamed(FunctionArgExpr::Expr(of))] =
        &list.args[..]
    else {
        return None;
    };
    let Expr::Value(value) = field else { return None };
    let Value::SingleQuotedString(field) = &value.value else { return None };
    let name = field.to_ascii_lowercase();
    ADDED_FIELDS.contains(&name.as_str()).then(|| Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(extracted(&name, of.clone())),
        data_type: SqlType::Double(ExactNumberInfo::None),
        array: false,
        format: None,
    })
}

/// Gives the arguments of make_interval that have names their places.
fn name_parts(function: &mut Function) -> Result<()> {
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    if list.args.iter().all(|argument| matches!(argument, FunctionArg::Unnamed(_))) {
        return Ok(());
    }
    let zero = || FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::value(Value::Number("0".into(), false))));
    let mut parts: Vec<FunctionArg> = Vec::new();
    for argument in std::mem::take(&mut list.args) {
        let (name, value) = match argument {
            FunctionArg::Unnamed(value) => {
                parts.push(FunctionArg::Unnamed(value));
                continue;
            }
            FunctionArg::Named { name, arg, .. } => (name.value, arg),
            FunctionArg::ExprNamed { name, arg, .. } => (name.to_string(), arg),
        };
        let Some(place) = PARTS.iter().position(|part| part.eq_ignore_ascii_case(&name)) else {
            return Err(Error::invalid(format!("make_interval has no argument \"{name}\""))
                .hint(format!("Its arguments are {}.", PARTS.join(", "))));
        };
        while parts.len() <= place {
            parts.push(zero());
        }
        parts[place] = FunctionArg::Unnamed(value);
    }
    list.args = parts;
    Ok(())
}
