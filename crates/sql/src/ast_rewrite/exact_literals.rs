//! Numbers with a point that are arguments of functions of exact numbers: `to_char(12.45, '99V9')`.
//!
//! Such a literal is NUMERIC in PostgreSQL, and DOUBLE PRECISION here, which has lost the digits as written.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, UnaryOperator, Value,
};

use super::text;

/// The functions, and how many of their arguments are meant.
const FUNCTIONS: [(&str, usize); 5] =
    [("to_char", 1), ("scale", 1), ("min_scale", 1), ("trim_scale", 1), ("generate_series", 3)];

/// The most digits of a NUMERIC.
const DIGITS_MAX: usize = 38;

/// Casts the literal from its text to NUMERIC.
pub(super) fn rewrite(function: &mut Function) {
    let [part] = &function.name.0[..] else { return };
    let is_named = |name: &str| part.as_ident().is_some_and(|part| part.value.eq_ignore_ascii_case(name));
    let Some((_, count)) = FUNCTIONS.into_iter().find(|(name, _)| is_named(name)) else { return };
    let FunctionArguments::List(list) = &mut function.args else { return };
    for argument in list.args.iter_mut().take(count) {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument {
            make_exact(argument);
        }
    }
}

/// Casts a number with a point from its text to NUMERIC.
pub(super) fn make_exact(argument: &mut Expr) {
    let Some(number) = exact(argument) else { return };
    let digits = number.trim_start_matches('-').len() - 1;
    let scale = number.split('.').next_back().map_or(0, str::len);
    let info = ExactNumberInfo::PrecisionAndScale(digits as u64, scale as i64);
    let (kind, data_type) = (CastKind::Cast, SqlType::Numeric(info));
    *argument = Expr::Cast { kind, expr: Box::new(text(&number)), data_type, array: false, format: None };
}

/// Returns the text of a number with a point.
fn exact(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _)
                if number.len() <= DIGITS_MAX
                    && number.matches('.').count() == 1
                    && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') =>
            {
                let whole = if number.starts_with('.') { "0" } else { "" };
                Some(format!("{whole}{number}"))
            }
            _ => None,
        },
        Expr::Nested(inner) => exact(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            exact(expr).map(|number| match number.strip_prefix('-') {
                Some(positive) => positive.to_string(),
                None => format!("-{number}"),
            })
        }
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => exact(expr),
        _ => None,
    }
}
