//! Ordered-set aggregates that DataFusion lacks: functions of the sorted array of a group's values.
//!
//! | written | planned as |
//! | --- | --- |
//! | `mode() WITHIN GROUP (ORDER BY x)` | `mode_of(array_agg(x ORDER BY x))` |
//! | `percentile_disc(f) WITHIN GROUP (ORDER BY x)` | `percentile_disc_of(array_agg(x ORDER BY x), f)` |
//! | `percentile_cont(ARRAY[f, g]) WITHIN GROUP (ORDER BY x)` | `percentile_cont_of(array_agg(x ORDER BY x), ARRAY[f, g])` |
//! | `rank(v) WITHIN GROUP (ORDER BY x DESC)` | `rank_of(array_agg(x ORDER BY x DESC), v, true, true)` |
//!
//! Spark's `mode(x)`, `percentile(x, f)` and `percentile_approx(x, f, accuracy)` are the same functions.
//!
//! An array is maintained under deletes, so these are, too.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType as SqlType, Expr, Function, FunctionArgumentClause, FunctionArguments,
    OrderByExpr, OrderByOptions, Value,
};

use super::{call, shorthand};
use crate::error::{Error, Result};

/// The aggregates with hypothetical rows, and their functions.
const HYPOTHETICAL: [(&str, &str); 4] = [
    ("rank", "rank_of"),
    ("dense_rank", "dense_rank_of"),
    ("percent_rank", "percent_rank_of"),
    ("cume_dist", "cume_dist_of"),
];

/// Rewrites a call with WITHIN GROUP. Returns none for aggregates that DataFusion has.
pub(super) fn rewrite(function: &Function) -> Result<Option<Expr>> {
    let name = function.name.to_string().to_lowercase();
    if function.within_group.is_empty() {
        return Ok(plain(function, &name));
    }
    let Some(arguments) = shorthand::arguments(function) else { return Ok(None) };
    let hypothetical = HYPOTHETICAL.iter().find(|(known, _)| *known == name);
    let is_ours = match name.as_str() {
        "mode" => arguments.is_empty(),
        "percentile_disc" => arguments.len() == 1,
        "percentile_cont" => matches!(&arguments[..], [fractions] if is_array(fractions)),
        _ => hypothetical.is_some(),
    };
    if !is_ours {
        return Ok(None);
    }
    if function.over.is_some() {
        return Err(Error::unsupported(format!("OVER for the ordered-set aggregate {name}")));
    }
    let [order] = &function.within_group[..] else {
        return Err(Error::unsupported(format!("{name} WITHIN GROUP by several values")));
    };
    let values = sorted(function, order);
    if let Some((_, function)) = hypothetical {
        let [value] = &arguments[..] else {
            return Err(Error::invalid(format!(
                "{name} WITHIN GROUP takes as many arguments as ORDER BY has values"
            )));
        };
        let descending = order.options.asc == Some(false);
        let nulls_first = order.options.nulls_first.unwrap_or(descending);
        let flag = |flag| Expr::value(Value::Boolean(flag));
        return Ok(Some(call(function, vec![values, value.clone(), flag(descending), flag(nulls_first)])));
    }
    let all = std::iter::once(values).chain(arguments).collect();
    Ok(Some(call(&format!("{name}_of"), all)))
}

/// Rewrites Spark's forms without WITHIN GROUP: `mode(x)`, `percentile(x, f)`.
fn plain(function: &Function, name: &str) -> Option<Expr> {
    if function.over.is_some()
        || !matches!(name, "mode" | "percentile" | "approx_percentile" | "percentile_approx")
    {
        return None;
    }
    let arguments = shorthand::arguments(function)?;
    let order = |of: &Expr| OrderByExpr {
        expr: of.clone(),
        options: OrderByOptions { asc: None, nulls_first: None },
        with_fill: None,
    };
    match (name, &arguments[..]) {
        ("mode", [of]) => Some(call("mode_of", vec![sorted(function, &order(of))])),
        ("percentile", [of, fractions]) if is_array(fractions) => {
            Some(call("percentile_cont_of", vec![sorted(function, &order(of)), fractions.clone()]))
        }
        ("percentile", [of, fraction]) => {
            let fractions = call("make_array", vec![fraction.clone()]);
            let found = call("percentile_cont_of", vec![sorted(function, &order(of)), fractions]);
            Some(call("array_element", vec![found, Expr::value(Value::Number("1".into(), false))]))
        }
        // The exact element is as near as any accuracy asks for.
        ("approx_percentile" | "percentile_approx", [of, fraction] | [of, fraction, _]) => {
            Some(call("percentile_disc_of", vec![sorted(function, &order(of)), fraction.clone()]))
        }
        _ => None,
    }
}

/// True for an expression that is an array by its syntax.
fn is_array(expression: &Expr) -> bool {
    match expression {
        Expr::Array(_) => true,
        Expr::Function(function) => {
            matches!(function.name.to_string().to_lowercase().as_str(), "make_array" | "array")
        }
        Expr::Nested(inner) => is_array(inner),
        Expr::Cast { data_type, .. } => {
            matches!(data_type, SqlType::Array(ArrayElemTypeDef::SquareBracket(..)))
        }
        _ => false,
    }
}

/// Returns the array of the group's values.
fn sorted(function: &Function, order: &OrderByExpr) -> Expr {
    let mut array = call("array_agg", vec![order.expr.clone()]);
    if let Expr::Function(array) = &mut array {
        if let FunctionArguments::List(list) = &mut array.args {
            list.clauses.push(FunctionArgumentClause::OrderBy(vec![order.clone()]));
        }
        array.filter.clone_from(&function.filter);
    }
    array
}
