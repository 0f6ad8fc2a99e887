//! Rewrites JSON_TABLE of the SQL standard, with the results of PostgreSQL 17.
//!
//! | written | planned as |
//! | --- | --- |
//! | `JSON_TABLE(j, '$.a[*]' COLUMNS (n FOR ORDINALITY, b INT PATH '$.b')) AS t` | `LATERAL (SELECT get_field(e0, 'n')::INT, … FROM UNNEST(array_expanded(jsonb_path_values(j, '$.a[*]'))) AS u(e0)) AS t(n, b)` |
//! | `b INT PATH '$.b' DEFAULT 1 ON EMPTY` | `CASE` over the number and the type of the items that the path finds, with `TRY_CAST` |
//! | `NESTED PATH '$.c[*]' COLUMNS (…)` | `FROM (SELECT e0, unnest(array_or_null(jsonb_path_values(e0, '$.c[*]'))) AS e1 FROM UNNEST(…) AS u(e0))` |
//!
//! Deliberately absent: several NESTED PATHs side by side, which are refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Ident, JsonTableColumn, JsonTableColumnErrorHandling as Handling,
    JsonTableNamedColumn, Query, Statement, TableAlias, TableAliasColumnDef, TableFactor, Value,
    ValueWithSpan, VisitMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::postgres::parsed;
use super::{call, scopes, text};
use crate::ast_walk::visit_expressions_mut;
use crate::error::{Error, Result};
use crate::tokens::DIALECT;

/// The most levels of paths in each other.
const LEVELS_MAX: usize = 16;

/// True if the path of a column finds no item. `__found` is the array of the items.
const IS_EMPTY: &str = "jsonb_array_length(__found) = 0";

/// The rows of the table, or of a NESTED PATH in the rows of the level before.
struct Level {
    path: String,
    has_ordinality: bool,
}

/// A column of the table.
struct Column<'a> {
    name: &'a Ident,
    /// The level whose items it reads.
    level: usize,
    /// The definition; none for FOR ORDINALITY.
    named: Option<&'a JsonTableNamedColumn>,
}

/// Rewrites JSON_TABLE to a subquery over UNNEST.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::JsonTable { json_expr, json_path, columns, alias } = factor else { return Ok(()) };
    let (mut levels, mut all) = (Vec::new(), Vec::new());
    collect(json_path, columns, &mut levels, &mut all)?;
    check_names(&all)?;
    let subquery = rows(json_expr, &levels, &all)?;
    let named =
        || TableAlias { explicit: true, name: Ident::new("json_table"), columns: Vec::new(), at: None };
    let mut alias = alias.take().unwrap_or_else(named);
    let unnamed: Vec<Ident> =
        all.iter().skip(alias.columns.len()).map(|column| column.name.clone()).collect();
    alias.columns.extend(unnamed.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }));
    *factor = TableFactor::Derived { lateral: true, subquery, alias: Some(alias), sample: None };
    Ok(())
}

/// Lists the levels of paths, and the columns in their order.
fn collect<'a>(
    path: &ValueWithSpan,
    columns: &'a [JsonTableColumn],
    levels: &mut Vec<Level>,
    all: &mut Vec<Column<'a>>,
) -> Result<()> {
    let level = levels.len();
    if level == LEVELS_MAX {
        let message = format!("JSON_TABLE has at most {LEVELS_MAX} paths in each other");
        return Err(Error::invalid(message).hint("Write another JSON_TABLE over a column of type JSONB."));
    }
    let has_ordinality = columns.iter().any(|column| matches!(column, JsonTableColumn::ForOrdinality(_)));
    levels.push(Level { path: literal(path)?, has_ordinality });
    for column in columns {
        match column {
            JsonTableColumn::Named(named) => {
                all.push(Column { name: &named.name, level, named: Some(named) });
            }
            JsonTableColumn::ForOrdinality(name) => all.push(Column { name, level, named: None }),
            JsonTableColumn::Nested(_) if levels.len() > level + 1 => {
                return Err(Error::unsupported("several NESTED PATHs side by side")
                    .hint("Write a JSON_TABLE for each NESTED PATH, and unite their rows with UNION ALL."));
            }
            JsonTableColumn::Nested(nested) => collect(&nested.path, &nested.columns, levels, all)?,
        }
    }
    Ok(())
}

/// Returns the text of a path.
fn literal(path: &ValueWithSpan) -> Result<String> {
    match &path.value {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::NationalStringLiteral(text)
        | Value::UnicodeStringLiteral(text) => Ok(text.clone()),
        Value::DollarQuotedString(quoted) => Ok(quoted.value.clone()),
        other => Err(Error::invalid(format!("a path of JSON_TABLE is a text, not {other}"))
            .hint("Write the path in quotes: '$.items[*]'.")),
    }
}

fn check_names(columns: &[Column<'_>]) -> Result<()> {
    let mut seen: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let name = scopes::folded(column.name);
        if seen.contains(&name) {
            return Err(Error::invalid(format!("duplicate JSON_TABLE column name: {name}")));
        }
        seen.push(name);
    }
    Ok(())
}

/// Builds the query of the rows.
fn rows(json: &Expr, levels: &[Level], columns: &[Column<'_>]) -> Result<Box<Query>> {
    let mut parts: Vec<(String, Expr)> = Vec::with_capacity(levels.len() + columns.len());
    let mut from = "UNNEST(__rows_0) AS __json_0(e0)".to_string();
    for (at, level) in levels.iter().enumerate() {
        let found = match at.checked_sub(1) {
            Some(outer) => items(item(levels, outer), &level.path)?,
            None => items(json.clone(), &level.path)?,
        };
        let found = if level.has_ordinality { call("array_expanded", vec![found]) } else { found };
        let found = if at > 0 { call("array_or_null", vec![found]) } else { found };
        parts.push((format!("__rows_{at}"), found));
        if at > 0 {
            let outer: Vec<String> = (0..at).map(|level| format!("e{level}")).collect();
            let outer = outer.join(", ");
            from = format!("(SELECT {outer}, unnest(__rows_{at}) AS e{at} FROM {from}) AS __json_{at}");
        }
    }
    let mut selected = Vec::with_capacity(columns.len());
    for (at, column) in columns.iter().enumerate() {
        parts.push((format!("__column_{at}"), value(levels, column)?));
        selected.push(format!("__column_{at} AS c{at}"));
    }
    let pattern = format!("SELECT {} FROM {from}", selected.join(", "));
    let Ok(Statement::Query(mut query)) = parsed(&pattern) else {
        return Err(Error::bug("the pattern of JSON_TABLE isn't a query"));
    };
    fill(&mut query, &parts);
    Ok(query)
}

/// Returns the item of a level in the row.
fn item(levels: &[Level], level: usize) -> Expr {
    let element = Expr::Identifier(Ident::new(format!("e{level}")));
    match levels.get(level) {
        Some(Level { has_ordinality: true, .. }) => call("get_field", vec![element, text("x")]),
        _ => element,
    }
}

/// Returns the list of the items that a path finds; NULL if the path fails.
fn items(json: Expr, path: &str) -> Result<Expr> {
    let items = call("jsonb_path_values", arguments(json.clone(), path, true));
    if !can_fail(path) {
        return Ok(items);
    }
    let exists = call("jsonb_path_exists", arguments(json, path, true));
    filled("CASE WHEN __exists IS NOT NULL THEN __items END", vec![("__exists", exists), ("__items", items)])
}

/// Returns the arguments of a function of a path.
fn arguments(json: Expr, path: &str, silent: bool) -> Vec<Expr> {
    vec![json, text(path), text("{}"), Expr::value(Value::Boolean(silent))]
}

/// True if a path is more than members and elements in lax mode, which no value makes fail.
fn can_fail(path: &str) -> bool {
    let steps = path.trim_start();
    let steps = steps.strip_prefix("lax").unwrap_or(steps).replace("[*]", "").replace(".*", "");
    let is_plain = |c: char| c.is_alphanumeric() || " _$.[]\"".contains(c);
    !steps.trim_start().starts_with('$') || steps.matches('$').count() > 1 || !steps.chars().all(is_plain)
}

/// Returns the value of a column.
fn value(levels: &[Level], column: &Column<'_>) -> Result<Expr> {
    let item = item(levels, column.level);
    let value = match column.named {
        None => {
            let element = Expr::Identifier(Ident::new(format!("e{}", column.level)));
            let number = call("get_field", vec![element, text("n")]);
            return Ok(cast(CastKind::Cast, number, &SqlType::Int(None)));
        }
        Some(named) if named.exists => exists(item.clone(), named)?,
        Some(named) => found(item.clone(), named)?,
    };
    if column.level == 0 {
        return Ok(value);
    }
    // A NESTED PATH that finds nothing has one row, without an item.
    filled("CASE WHEN __item IS NOT NULL THEN __value END", vec![("__item", item), ("__value", value)])
}

/// Returns the value of an EXISTS column. As in PostgreSQL, it is false if the path fails.
fn exists(item: Expr, column: &JsonTableNamedColumn) -> Result<Expr> {
    if column.on_empty.is_some() {
        let name = scopes::folded(&column.name);
        return Err(Error::invalid(format!("EXISTS column \"{name}\" of JSON_TABLE has ON EMPTY"))
            .hint("An EXISTS column takes ON ERROR only."));
    }
    let is_silent = !matches!(column.on_error, Some(Handling::Error));
    let exists = call("jsonb_path_exists", arguments(item, &literal(&column.path)?, is_silent));
    let cast = |value: Expr| cast(CastKind::Cast, value, &column.r#type);
    Ok(match &column.on_error {
        None => cast(call("coalesce", vec![exists, Expr::value(Value::Boolean(false))])),
        Some(Handling::Null | Handling::Error) => cast(exists),
        Some(Handling::Default(default)) => {
            call("coalesce", vec![cast(exists), cast(Expr::Value(default.clone()))])
        }
    })
}

/// The values that a column of a type takes.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Array,
    Scalar,
}

impl Form {
    fn of(data_type: &SqlType) -> Form {
        match data_type {
            SqlType::JSON | SqlType::JSONB => Form::Json,
            SqlType::Array(_) => Form::Array,
            _ => Form::Scalar,
        }
    }

    /// Returns the condition under which the items can't be a value, as text over `__found`.
    fn wrong_items(self) -> &'static str {
        match self {
            Form::Json => "jsonb_array_length(__found) > 1",
            Form::Array => {
                "jsonb_array_length(__found) > 1 \
                 OR jsonb_typeof(jsonb_array_element(__found, 0)) NOT IN ('array', 'null')"
            }
            Form::Scalar => {
                "jsonb_array_length(__found) > 1 \
                 OR jsonb_typeof(jsonb_array_element(__found, 0)) IN ('object', 'array')"
            }
        }
    }

    /// Returns the only item as a value that is cast to the column's type.
    fn only_item(self) -> &'static str {
        match self {
            Form::Json => "jsonb_array_element(__found, 0)",
            Form::Array => "json_record_array(jsonb_build_object('v', jsonb_array_element(__found, 0)), 'v')",
            Form::Scalar => "jsonb_array_element_text(__found, 0)",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Form::Json => "item",
            Form::Array => "array",
            Form::Scalar => "scalar item",
        }
    }
}

/// Returns the value of a column that is the item at its path.
fn found(item: Expr, column: &JsonTableNamedColumn) -> Result<Expr> {
    let (path, name) = (literal(&column.path)?, scopes::folded(&column.name));
    let form = Form::of(&column.r#type);
    let is_silent = !matches!(column.on_error, Some(Handling::Error));
    let found = call("jsonb_path_query_array", arguments(item.clone(), &path, is_silent));
    let default =
        |default: &ValueWithSpan| cast(CastKind::Cast, Expr::Value(default.clone()), &column.r#type);
    // The condition is that of the branch, which may be evaluated for other rows, too.
    let handled = |handling: &Option<Handling>, condition: &str, message: String| -> Result<Expr> {
        match handling {
            None | Some(Handling::Null) => Ok(Expr::value(Value::Null)),
            Some(Handling::Default(value)) => Ok(default(value)),
            Some(Handling::Error) => {
                let pattern = format!("assert_true(({condition}) IS NOT TRUE, __message)");
                let parts = vec![("__found", found.clone()), ("__message", text(&message))];
                Ok(cast(CastKind::Cast, filled(&pattern, parts)?, &column.r#type))
            }
        }
    };
    let absent = format!("no SQL/JSON item found for specified path of column \"{name}\"");
    let absent = handled(&column.on_empty, IS_EMPTY, absent)?;
    let wrong = format!("JSON path expression for column \"{name}\" must return single {}", form.expected());
    let wrong = handled(&column.on_error, form.wrong_items(), wrong)?;
    let only = filled(form.only_item(), vec![("__found", found.clone())])?;
    let value = match (&column.r#type, &column.on_error) {
        (SqlType::JSONB, _) => only,
        (SqlType::JSON, _) => cast(CastKind::Cast, only, &column.r#type),
        (to, None | Some(Handling::Null)) => cast(CastKind::TryCast, only, to),
        (to, Some(Handling::Error)) => cast(CastKind::Cast, only, to),
        (to, Some(Handling::Default(value))) => {
            let read = cast(CastKind::TryCast, only.clone(), to);
            let read = call("coalesce", vec![read, default(value)]);
            filled("CASE WHEN __only IS NOT NULL THEN __read END", vec![("__only", only), ("__read", read)])?
        }
    };
    let failing = match is_silent && can_fail(&path) {
        true => "WHEN __exists IS NULL THEN __wrong ",
        false => "",
    };
    let pattern = format!(
        "CASE {failing}WHEN {IS_EMPTY} THEN __absent WHEN {} THEN __wrong ELSE __value END",
        form.wrong_items()
    );
    let exists = call("jsonb_path_exists", arguments(item, &path, true));
    filled(
        &pattern,
        vec![
            ("__exists", exists),
            ("__found", found),
            ("__absent", absent),
            ("__wrong", wrong),
            ("__value", value),
        ],
    )
}

fn cast(kind: CastKind, value: Expr, data_type: &SqlType) -> Expr {
    Expr::Cast { kind, expr: Box::new(value), data_type: data_type.clone(), array: false, format: None }
}

/// Parses an expression and puts these in place of names.
fn filled(pattern: &str, parts: Vec<(&str, Expr)>) -> Result<Expr> {
    let parts: Vec<(String, Expr)> = parts.into_iter().map(|(name, part)| (name.to_string(), part)).collect();
    let mut expression = Parser::new(&DIALECT)
        .try_with_sql(pattern)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| Error::bug(format!("a pattern isn't SQL: {error}")))?;
    fill(&mut expression, &parts);
    Ok(expression)
}

fn fill(tree: &mut impl VisitMut, parts: &[(String, Expr)]) {
    let _ = visit_expressions_mut(tree, |part| {
        if let Expr::Identifier(name) = part
            && let Some((_, new)) = parts.iter().find(|(known, _)| *known == name.value)
        {
            *part = new.clone();
        }
        ControlFlow::<()>::Continue(())
    });
}

#[cfg(test)]
mod tests {
    use super::can_fail;
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new().table(
            "t",
            "(id INT, j JSONB)",
            r#"VALUES (1, '{"items": [{"sku": "a", "n": 2, "tags": ["x", "y"]}, {"sku": "b", "n": "many", "tags": []}]}'),
               (2, '{"items": []}'), (3, NULL)"#,
        )
    }

    #[test]
    fn each_item_is_a_row() {
        let tables = tables();
        tables.check(
            "SELECT id, k, sku, n, d, e, f FROM t, JSON_TABLE(t.j, '$.items[*]' COLUMNS (k FOR ORDINALITY, \
             sku TEXT PATH '$.sku', n INT PATH '$.n', d INT PATH '$.d' DEFAULT 7 ON EMPTY, \
             e BOOLEAN EXISTS PATH '$.tags[0]', f INT EXISTS PATH '$.tags[0]')) AS x",
            &["1|1|a|2|7|true|1", "1|2|b|NULL|7|false|0"],
        );
        tables.check(
            "SELECT x.a, x.n FROM t, JSON_TABLE(j, '$.items[*]' COLUMNS (sku TEXT PATH '$.sku', n INT PATH '$.n')) AS x(a)",
            &["a|2", "b|NULL"],
        );
        tables.check("SELECT count(*) FROM JSON_TABLE(NULL, '$[*]' COLUMNS (a INT PATH '$')) AS x", &["0"]);
    }

    #[test]
    fn values_are_those_of_the_type() {
        let tables = tables();
        tables.check(
            r#"SELECT s, n, j FROM JSON_TABLE('[1, 2.50, "x", true, null, [1], {"a": 1}]', '$[*]' COLUMNS (
               s TEXT PATH '$', n NUMERIC(5, 2) PATH '$', j JSONB PATH '$'))"#,
            &[
                "1|1.00|1",
                "2.50|2.50|2.50",
                "NULL|NULL|[1]",
                "NULL|NULL|null",
                "NULL|NULL|{\"a\": 1}",
                "true|NULL|true",
                "x|NULL|\"x\"",
            ],
        );
        tables.check(
            r#"SELECT v[1], v[3] FROM JSON_TABLE('[{"v": [1, null, 3]}, {"v": 2}]', '$[*]' COLUMNS (v INT[] PATH '$.v'))"#,
            &["1|3", "NULL|NULL"],
        );
        tables.check(
            "SELECT a FROM (VALUES ('[1, 2]'), ('[3]')) AS v(s), JSON_TABLE(v.s, '$[*]' COLUMNS (a INT PATH '$')) AS x",
            &["1", "2", "3"],
        );
    }

    #[test]
    fn nested_paths_are_outer_joined() {
        let tables = tables();
        tables.check(
            "SELECT id, k, sku, m, tag FROM t, JSON_TABLE(j, '$.items[*]' COLUMNS (k FOR ORDINALITY, \
             sku TEXT PATH '$.sku', NESTED PATH '$.tags[*]' COLUMNS (m FOR ORDINALITY, tag TEXT PATH '$'))) AS x",
            &["1|1|a|1|x", "1|1|a|2|y", "1|2|b|NULL|NULL"],
        );
        tables.check(
            r#"SELECT g, k, w, v FROM JSON_TABLE('{"a": [{"g": 1, "b": [{"k": "x", "c": [1, 2]}, {"k": "y"}]}, {"g": 2}]}',
               '$.a[*]' COLUMNS (g INT PATH '$.g', NESTED PATH '$.b[*]' COLUMNS (
               k TEXT PATH '$.k', w INT PATH '$.w' DEFAULT 9 ON EMPTY, NESTED PATH '$.c[*]' COLUMNS (v INT PATH '$'))))"#,
            &["1|x|9|1", "1|x|9|2", "1|y|9|NULL", "2|NULL|NULL|NULL"],
        );
        tables.fails(
            "SELECT * FROM t, JSON_TABLE(j, '$' COLUMNS (NESTED PATH '$.a' COLUMNS (a INT PATH '$'), \
             NESTED PATH '$.b' COLUMNS (b INT PATH '$'))) AS x",
            "several NESTED PATHs side by side is not supported yet\nHINT: Write a JSON_TABLE for each NESTED PATH, and \
             unite their rows with UNION ALL.",
        );
    }

    #[test]
    fn errors_are_handled_as_written() {
        let tables = tables();
        let from = |json: &str, column: &str| {
            format!("SELECT a FROM JSON_TABLE('{json}', '$[*]' COLUMNS (a {column})) AS x")
        };
        let clauses = "INT PATH '$.a' DEFAULT 5 ON EMPTY DEFAULT 6 ON ERROR";
        let json = r#"[{"a": 1}, {"a": "x"}, {"a": [1]}, {"a": null}, {}]"#;
        tables.check(&from(json, clauses), &["1", "5", "6", "6", "NULL"]);
        let strict = clauses.replace("$.a", "strict $.a");
        tables.check(&from(json, &strict), &["1", "6", "6", "6", "NULL"]);
        tables.fails(
            &from("[[1]]", "INT PATH '$' ERROR ON ERROR"),
            "JSON path expression for column \"a\" must return single scalar item",
        );
        tables.fails(
            &from("[1]", "INT PATH '$.b' ERROR ON EMPTY"),
            "no SQL/JSON item found for specified path of column \"a\"",
        );
        tables.fails(
            &from("[1]", "INT PATH 1"),
            "a path of JSON_TABLE is a text, not 1\nHINT: Write the path in quotes: '$.items[*]'.",
        );
        tables.fails(&from("[1]", "INT PATH '$', A INT PATH '$'"), "duplicate JSON_TABLE column name: a");
    }

    #[test]
    fn plain_paths_cannot_fail() {
        for path in ["$", " $.a", "lax $.a[*].b", "$.*", "$.\"a b\"[0]", "$[last]"] {
            assert!(!can_fail(path), "{path}");
        }
        for path in ["strict $.a", "$.a + 1", "$.a * 2", "$.a.double()", "$.a[$.b]", "$.a ? (@ > 1)"] {
            assert!(can_fail(path), "{path}");
        }
    }
}
