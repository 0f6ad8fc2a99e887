//! The arrays behind functions that return rows: of one function in FROM, and of several side by side, `ROWS FROM (f(x), g(y))`.
//!
//! [`crate::dialect::rows_from`] writes the latter as `UNNEST(rows_from(f(x)), rows_from(g(y)))`, since the parser lacks
//! it.

use datafusion::sql::sqlparser::ast::{
    DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, Ident, TableAliasColumnDef, TableFactor, Value,
};

use super::{call, exact_literals, shorthand, times};
use crate::dialect::rows_from::ROWS_FROM;
use crate::error::{Error, Result};

/// Rewrites the calls in ROWS FROM to their arrays, and names the columns after the functions.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } = factor else { return Ok(()) };
    let mut names = Vec::with_capacity(array_exprs.len());
    for array in array_exprs.iter_mut() {
        let Some((name, list)) = list_in(array)? else { return Ok(()) };
        *array = list;
        names.push(name);
    }
    if *with_ordinality && names.len() > 1 {
        return Err(Error::unsupported("WITH ORDINALITY after ROWS FROM of several functions")
            .hint("Add generate_series(1, n) to them, with the number of rows as n."));
    }
    if let Some(alias) = alias
        && let [first, rest @ ..] = names.as_slice()
        && !rest.contains(first)
    {
        let unnamed = names.into_iter().skip(alias.columns.len());
        let column = |name: String| TableAliasColumnDef { name: Ident::new(name), data_type: None };
        alias.columns.extend(unnamed.map(column));
    }
    Ok(())
}

/// Returns the function's name and the array of a call in ROWS FROM; none for an expression of UNNEST.
fn list_in(marked: &Expr) -> Result<Option<(String, Expr)>> {
    let Expr::Function(mark) = marked else { return Ok(None) };
    if mark.name.to_string() != ROWS_FROM {
        return Ok(None);
    }
    let found = match shorthand::arguments(mark).as_deref() {
        Some([Expr::Function(function)]) => {
            let name = function.name.to_string().to_lowercase();
            let name = name.strip_prefix("pg_catalog.").unwrap_or(&name).to_string();
            let list = shorthand::arguments(function).and_then(|arguments| lists(&name, arguments));
            match list.map(|mut lists| (lists.pop(), lists.is_empty())) {
                Some((Some(list), true)) => return Ok(Some((name, as_array(list)))),
                _ => name,
            }
        }
        _ => "an expression that is not a call".to_string(),
    };
    Err(Error::unsupported(format!("{found} in ROWS FROM"))
        .hint("ROWS FROM takes unnest of one array, generate_series, generate_subscripts, regexp_matches, regexp_split_to_table, string_to_table and the functions of JSON that return texts."))
}

/// Returns a list that UNNEST takes; DataFusion refuses NULL.
fn as_array(list: Expr) -> Expr {
    match &list {
        Expr::Value(value) if matches!(value.value, Value::Null) => call("make_array", Vec::new()),
        _ => list,
    }
}

/// Returns the arrays that UNNEST expands in place of a function in FROM; none for a function that DataFusion plans.
pub(super) fn lists(called: &str, arguments: Vec<Expr>) -> Option<Vec<Expr>> {
    let list = match called {
        "unnest" => return Some(arguments),
        "generate_subscripts" => call("array_subscripts", arguments),
        "regexp_matches" => call("postgres_regexp_matches", arguments),
        "regexp_split_to_table" => call("postgres_regexp_split_to_array", arguments),
        "string_to_table" => call("string_to_array", arguments),
        "json_object_keys" => call("json_keys", arguments),
        "jsonb_object_keys" => call("jsonb_keys", arguments),
        "json_array_elements_text" => call("json_element_texts", arguments),
        "jsonb_array_elements_text" => call("jsonb_array_texts", arguments),
        "generate_series" | "range" if times::is_series(&arguments) => call(called, times::series(arguments)),
        "generate_series" => {
            let mut arguments = arguments;
            arguments.iter_mut().for_each(exact_literals::make_exact);
            call("generate_series", arguments)
        }
        name if ONE_VALUE.contains(&name) => call("make_array", vec![call(name, arguments)]),
        _ => return None,
    };
    Some(vec![list])
}

/// Functions in FROM that return one row with their value.
const ONE_VALUE: [&str; 6] = [
    "string_to_array",
    "current_setting",
    "current_schemas",
    "current_database",
    "current_schema",
    "version",
];

/// True for a call in FROM that DataFusion's own generate_series executes. It accepts only literals but decimals, and returns rows without
/// an array of them.
pub(super) fn is_literal_series(factor: &TableFactor) -> bool {
    let (name, arguments) = match factor {
        TableFactor::Table { name, args: Some(arguments), .. } => (name, &arguments.args),
        TableFactor::Function { name, args, .. } => (name, args),
        _ => return false,
    };
    let name = name.to_string().to_lowercase();
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    };
    let arguments: Option<Vec<Expr>> = arguments.iter().map(plain).collect();
    name.strip_prefix("pg_catalog.").unwrap_or(&name) == "generate_series"
        && arguments.is_some_and(|all| !times::is_series(&all) && all.iter().all(is_literal))
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => !matches!(&value.value, Value::Number(number, _) if number.contains('.')),
        Expr::Interval(_) | Expr::TypedString(_) => true,
        Expr::Cast { data_type: SqlType::Numeric(_) | SqlType::Decimal(_) | SqlType::Dec(_), .. } => false,
        Expr::UnaryOp { expr, .. } | Expr::Cast { expr, .. } | Expr::Nested(expr) => is_literal(expr),
        _ => false,
    }
}
