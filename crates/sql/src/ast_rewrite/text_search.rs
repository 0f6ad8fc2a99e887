//! Set-returning functions of full text search: their lists and the fields of their rows.
//!
//! | written | planned as |
//! | --- | --- |
//! | `FROM ts_parse('default', d)` | `FROM LATERAL (SELECT … FROM UNNEST(ts_parse_rows('default', d)) AS u(e))` |
//! | `FROM unnest(strip(v))` | the same with `tsvector_rows(strip(v))` |
//! | `FROM to_tsquery('cat') AS q` | `FROM (SELECT to_tsquery('cat')) AS q(q)` |
//! | `FROM t, to_tsquery(t.words) AS q` | `FROM t, LATERAL (SELECT … FROM UNNEST(make_array(to_tsquery(t.words))) AS u(e)) AS q(q)` |
//!
//! The types of columns aren't known here. So `unnest` of a TSVECTOR is recognized by a cast or by a function that
//! returns one.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, SelectItem, SetExpr, Statement, TableAlias,
    TableAliasColumnDef, TableFactor,
};

use super::postgres::parsed;
use super::{call, json, scopes};

/// A function that returns rows: its name, the function of its list, and the fields of its rows.
pub(super) type RowsOf = (&'static str, &'static str, &'static [&'static str]);

/// The functions.
const FUNCTIONS: [RowsOf; 3] = [
    ("ts_parse", "ts_parse_rows", &["tokid", "token"]),
    ("ts_token_type", "ts_token_type_rows", &["tokid", "alias", "description"]),
    (
        "ts_debug",
        "ts_debug_rows",
        &["alias", "description", "token", "dictionaries", "dictionary", "lexemes"],
    ),
];

/// `unnest` of a TSVECTOR.
const UNNEST: RowsOf = ("unnest", "tsvector_rows", &["lexeme", "positions", "weights"]);

/// Returns the function of this name, if it is called with such arguments.
pub(super) fn rows_of(name: &str, arguments: &[Expr]) -> Option<&'static RowsOf> {
    match arguments {
        [vector] if name == "unnest" => is_vector(vector).then_some(&UNNEST),
        _ => FUNCTIONS.iter().find(|(known, ..)| *known == name),
    }
}

/// Functions that return a TSVECTOR.
const VECTORS: [&str; 8] = [
    "to_tsvector",
    "json_to_tsvector",
    "jsonb_to_tsvector",
    "array_to_tsvector",
    "setweight",
    "strip",
    "ts_delete",
    "ts_filter",
];

/// Functions that are often called in FROM and return one value, with the function that reads it.
const VALUES: [(&str, &str); 5] = [
    ("to_tsquery", "read_tsquery"),
    ("plainto_tsquery", "read_tsquery"),
    ("phraseto_tsquery", "read_tsquery"),
    ("websearch_to_tsquery", "read_tsquery"),
    ("to_tsvector", "read_tsvector"),
];

/// Rewrites a function in FROM that returns one value to a subquery.
pub(super) fn table_function(factor: &mut TableFactor) {
    let (name, arguments) = match factor {
        TableFactor::Table { name, args: Some(arguments), with_ordinality: false, .. } => {
            (name, &arguments.args)
        }
        TableFactor::Function { name, args, with_ordinality: false, .. } => (name, &*args),
        _ => return,
    };
    let name = name.to_string().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let Some((name, read)) = VALUES.iter().find(|(known, _)| *known == name) else { return };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    };
    let Some(arguments) = arguments.iter().map(plain).collect::<Option<Vec<Expr>>>() else { return };
    let value = call(name, arguments);
    let has_columns = scopes::has_columns(&value);
    let query =
        if has_columns { format!("SELECT {read}(e) FROM UNNEST(a) AS u(e)") } else { "SELECT a".into() };
    let Ok(Statement::Query(mut subquery)) = parsed(&query) else { return };
    let SetExpr::Select(select) = subquery.body.as_mut() else { return };
    match select.from.first_mut().map(|from| &mut from.relation) {
        Some(TableFactor::UNNEST { array_exprs, .. }) => *array_exprs = vec![call("make_array", vec![value])],
        _ => select.projection = vec![SelectItem::UnnamedExpr(value)],
    }
    let named = || TableAlias { explicit: true, name: Ident::new(*name), columns: Vec::new(), at: None };
    let mut alias = json::alias_of(factor).and_then(Option::take).unwrap_or_else(named);
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    *factor = TableFactor::Derived { lateral: has_columns, subquery, alias: Some(alias), sample: None };
}

/// Returns true if an expression is a TSVECTOR by what is written.
fn is_vector(expression: &Expr) -> bool {
    match expression {
        Expr::Nested(inner) => is_vector(inner),
        Expr::Cast { data_type, .. } => data_type.to_string().eq_ignore_ascii_case("tsvector"),
        Expr::Function(function) => {
            let name = function.name.to_string().to_lowercase();
            VECTORS.contains(&name.strip_prefix("pg_catalog.").unwrap_or(&name)) || name == "read_tsvector"
        }
        Expr::BinaryOp { left, right, .. } => is_vector(left) || is_vector(right),
        _ => false,
    }
}
