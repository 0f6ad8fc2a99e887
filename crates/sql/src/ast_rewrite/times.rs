//! Syntax of times that DataFusion's planner lacks.
//!
//! | written | planned as |
//! | --- | --- |
//! | `extract(century FROM t)`, and fields with a fraction | `extract_exact('century', t)` |
//! | `date_part('century', t)` | that as DOUBLE PRECISION |
//! | `(a, b) OVERLAPS (c, d)` | `periods_overlap(a, b, c, d)` |
//! | `make_interval(days => 10)` | `make_interval(0, 0, 0, 10)` |
//! | `make_time(8, 15, 23.5)` | `time_from_parts(8, 15, 23.5)` |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Value,
};

use super::{call, shorthand, text};
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
                "make_time" => {
                    if let Some(arguments) = shorthand::arguments(function)
                        && let [_, _, seconds] = &arguments[..]
                        && !is_whole(seconds)
                    {
                        *expression = call("time_from_parts", arguments);
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}

/// True unless the seconds of make_time may have a fraction, by their syntax. DataFusion has the function for whole ones below 60.
fn is_whole(seconds: &Expr) -> bool {
    match seconds {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => !number.contains('.') && number != "60",
            _ => true,
        },
        Expr::Cast { data_type, .. } => !matches!(
            data_type,
            SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float(_) | SqlType::Float8
        ),
        Expr::Nested(inner) => is_whole(inner),
        _ => true,
    }
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

/// True for the arguments of generate_series over times, by the syntax of the first one.
pub(super) fn is_series(arguments: &[Expr]) -> bool {
    arguments.len() == 3 && time_type(&arguments[0]).is_some()
}

fn time_type(expression: &Expr) -> Option<SqlType> {
    let data_type = match expression {
        Expr::Cast { data_type, .. } => data_type,
        Expr::TypedString(typed) => &typed.data_type,
        Expr::Nested(inner) => return time_type(inner),
        _ => return None,
    };
    matches!(data_type, SqlType::Timestamp(..)).then(|| data_type.clone())
}

/// Gives texts among the arguments of generate_series the types that PostgreSQL finds for them.
pub(super) fn series(mut arguments: Vec<Expr>) -> Vec<Expr> {
    let types = [
        None,
        arguments.first().and_then(time_type),
        Some(SqlType::Interval { fields: None, precision: None }),
    ];
    for (argument, data_type) in arguments.iter_mut().zip(types) {
        let is_text =
            matches!(argument, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
        if let Some(data_type) = data_type.filter(|_| is_text) {
            let expr = Box::new(std::mem::replace(argument, Expr::value(Value::Null)));
            *argument = Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None };
        }
    }
    arguments
}
