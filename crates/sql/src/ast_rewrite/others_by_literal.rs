//! Functions of Spark and Flink whose form depends on a literal, on the number of arguments, or on their names.
//!
//! | written | planned as |
//! | --- | --- |
//! | `encode(s, 'UTF-8')`, `decode(b, 'UTF-8')` | `CAST(s AS BYTEA)`, `convert_from(b, 'UTF8')` |
//! | `encode(b, 'base64')` | `encode(b, 'base64pad')` |
//! | `decode(x, 1, 'a', 2, 'b', 'c')` | `CASE WHEN x IS NOT DISTINCT FROM 1 THEN 'a' … ELSE 'c' END` |
//! | `trunc(d, 'MM')`, `date_trunc('MM', t)` | `CAST(date_trunc('month', d) AS DATE)`, `date_trunc('month', t)` |
//! | `to_timestamp_ltz('2024-01-01', 'yyyy-MM-dd')` | `to_timestamp('2024-01-01', java_pattern('yyyy-MM-dd'))` |
//! | `timestampadd(HOUR, 2, t)` | `t + 2 * INTERVAL '1 hour'` |
//! | `array_sort(a, FALSE)` | `sort_array(a, FALSE)` |
//! | `struct(a AS x, 1)` | `named_struct('x', a, 'col2', 1)` |
//! | `listagg(x)` | `string_agg(x, '')` |
//!
//! More forms are in [`super::spark_forms`].

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, ObjectName, TimezoneInfo, Value,
    helpers::attached_token::AttachedToken,
};

use super::others::{arguments, interval};
use super::{call, scopes, spark_forms, text};

/// Rewrites a call; none for another function or form.
pub(super) fn rewritten(name: &str, function: &Function) -> Option<Expr> {
    if matches!(name, "listagg" | "string_agg") {
        return listagg(name, function);
    }
    if let Some(rewritten) = spark_forms::rewritten(name, function) {
        return Some(rewritten);
    }
    if function.over.is_some() || function.filter.is_some() {
        return None;
    }
    let all = arguments(function)?;
    match (name, &all[..]) {
        ("encode", [of, charset]) if is_utf8(charset) => Some(cast(of, SqlType::Bytea)),
        // DataFusion's form of this name has no padding.
        ("encode", [of, form]) if literal(form).is_some_and(|form| form.eq_ignore_ascii_case("base64")) => {
            Some(call("encode", vec![(*of).clone(), text("base64pad")]))
        }
        ("decode", [of, charset]) if is_utf8(charset) => {
            Some(call("convert_from", vec![(*of).clone(), text("UTF8")]))
        }
        ("decode", [of, cases @ ..]) if cases.len() > 1 => Some(decode(of, cases)),
        ("trunc", [of, unit]) => {
            let date = cast(of, SqlType::Date);
            Some(cast(&call("date_trunc", vec![text(date_unit(literal(unit)?)?), date]), SqlType::Date))
        }
        ("date_trunc", [unit, of]) => {
            let unit = date_unit(literal(unit)?).filter(|known| literal(unit) != Some(known))?;
            Some(call("date_trunc", vec![text(unit), (*of).clone()]))
        }
        ("to_timestamp_ltz", [of]) if literal(of).is_some() => {
            Some(cast(of, SqlType::Timestamp(None, TimezoneInfo::WithTimeZone)))
        }
        ("to_timestamp_ltz", [of, pattern]) if literal(pattern).is_some() => {
            let pattern = call("java_pattern", vec![(*pattern).clone()]);
            Some(call("to_timestamp", vec![(*of).clone(), pattern]))
        }
        ("timestampadd", [Expr::Identifier(unit), count, of]) => {
            let operation = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
                left: Box::new(left),
                op,
                right: Box::new(right),
            };
            let count = Expr::Nested(Box::new((*count).clone()));
            let length = interval(&format!("1 {}", unit.value.to_lowercase()));
            let length = operation(length, BinaryOperator::Multiply, count);
            let of = Expr::Nested(Box::new((*of).clone()));
            Some(Expr::Nested(Box::new(operation(of, BinaryOperator::Plus, length))))
        }
        ("array_sort", [_, flags @ ..]) if !flags.is_empty() && flags.iter().all(|flag| is_flag(flag)) => {
            Some(call("sort_array", all.iter().map(|of| (*of).clone()).collect()))
        }
        ("struct", values) if !values.is_empty() => {
            Some(named(values.iter().map(|value| (*value).clone()).collect()))
        }
        _ => None,
    }
}

fn cast(of: &Expr, data_type: SqlType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(of.clone()), data_type, array: false, format: None }
}

pub(super) fn literal(of: &Expr) -> Option<&str> {
    match of {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn is_flag(of: &Expr) -> bool {
    matches!(of, Expr::Value(value) if matches!(value.value, Value::Boolean(_)))
}

/// True for the name of UTF-8 as Java writes it. `encode(b, 'hex')` and other formats are PostgreSQL's.
fn is_utf8(charset: &Expr) -> bool {
    literal(charset)
        .is_some_and(|name| name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8"))
}

/// Returns the unit that Spark abbreviates.
fn date_unit(unit: &str) -> Option<&'static str> {
    Some(match unit.to_lowercase().as_str() {
        "year" | "yyyy" | "yy" => "year",
        "quarter" => "quarter",
        "month" | "mon" | "mm" => "month",
        "week" => "week",
        "day" | "dd" => "day",
        _ => return None,
    })
}

/// Returns the value behind the first case that is equal; NULL is equal to NULL.
fn decode(of: &Expr, cases: &[&Expr]) -> Expr {
    let (pairs, rest) = cases.as_chunks::<2>();
    let conditions = pairs.iter().map(|[case, result]| CaseWhen {
        condition: Expr::IsNotDistinctFrom(Box::new(of.clone()), Box::new((*case).clone())),
        result: (*result).clone(),
    });
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: conditions.collect(),
        else_result: rest.first().map(|last| Box::new((*last).clone())),
    }
}

/// Names the fields of a struct: by their alias, or else by their place, so that structs of the same types fit in one array.
pub(super) fn named(values: Vec<Expr>) -> Expr {
    let mut all = Vec::with_capacity(2 * values.len());
    for (at, value) in values.into_iter().enumerate() {
        let (name, value) = match value {
            Expr::Named { expr, name } => (Some(scopes::folded(&name)), *expr),
            value => (None, value),
        };
        let name = name.unwrap_or_else(|| format!("col{}", at + 1));
        all.extend([text(&name), value]);
    }
    call("named_struct", all)
}

/// Adds the separator, which Spark lets out, and the order of WITHIN GROUP to `string_agg`.
fn listagg(name: &str, function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    if name == "string_agg" && list.args.len() != 1 && function.within_group.is_empty() {
        return None;
    }
    let mut inner = function.clone();
    inner.name = ObjectName::from(vec![Ident::new("string_agg")]);
    let FunctionArguments::List(list) = &mut inner.args else { return None };
    if list.args.len() == 1 {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(""))));
    }
    let order = std::mem::take(&mut inner.within_group);
    if !order.is_empty() {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    Some(Expr::Function(inner))
}
