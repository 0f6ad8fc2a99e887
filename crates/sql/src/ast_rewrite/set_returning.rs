//! Set-returning functions outside of FROM: rows in the select list, errors where no rows can result.
//!
//! | written | planned as |
//! | --- | --- |
//! | `SELECT generate_series(1, 3)` | `SELECT unnest(generate_series(1, 3)) AS generate_series` |
//! | `SELECT (jsonb_each(j)).key` | `SELECT get_field(unnest(jsonb_members(j)), 'key') AS key` |
//! | `SELECT (jsonb_each(j)).*` | the same for both columns |
//! | `SELECT f(x) … ORDER BY f(x)` | `SELECT f(x) … ORDER BY 1` |
//!
//! DataFusion expands several calls of a select list side by side, and fills up the shorter ones with NULL, as
//! PostgreSQL does. Directly within `unnest(…)`, `generate_series` is the array that DataFusion has by this name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Distinct, Expr, Function, GroupByExpr, Ident, JoinConstraint, JoinOperator, LimitClause,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableWithJoins, Value,
    VisitorMut,
};

use super::{call, shorthand, text, text_search, times};
use crate::ast_walk::walk_mut;
use crate::error::{Error, Result};
use crate::failure::MOVE_INTO_FROM;
use crate::output_names::name_of;
use crate::sqlstate;

/// The functions that return rows.
const FUNCTIONS: [&str; 28] = [
    "unnest",
    "explode",
    "generate_series",
    "generate_subscripts",
    "_pg_expandarray",
    "regexp_matches",
    "regexp_split_to_table",
    "string_to_table",
    "json_array_elements",
    "jsonb_array_elements",
    "json_array_elements_text",
    "jsonb_array_elements_text",
    "json_object_keys",
    "jsonb_object_keys",
    "jsonb_path_query",
    "jsonb_path_query_tz",
    "json_each",
    "jsonb_each",
    "json_each_text",
    "jsonb_each_text",
    "json_to_record",
    "jsonb_to_record",
    "json_to_recordset",
    "jsonb_to_recordset",
    "json_populate_recordset",
    "ts_parse",
    "ts_debug",
    "ts_token_type",
];

/// The functions whose rows are members of an object: the function of the list, and the one of a value.
const MEMBERS: [(&str, &str, &str); 4] = [
    ("json_each", "json_members", "json_same"),
    ("jsonb_each", "jsonb_members", "jsonb_same"),
    ("json_each_text", "json_member_texts", ""),
    ("jsonb_each_text", "jsonb_member_texts", ""),
];

/// The records behind a call.
struct Records {
    list: Expr,
    /// The function of a member's value, or an empty text.
    value: &'static str,
    fields: &'static [&'static str],
}

/// Returns the error for a set-returning function in a clause without rows of its own.
fn refused(place: &str) -> Error {
    Error::invalid(format!("set-returning functions are not allowed in {place}"))
        .hint(MOVE_INTO_FROM)
        .code(sqlstate::FEATURE_NOT_SUPPORTED)
}

/// Rewrites ORDER BY of a query whose select list has the same call, and checks its other clauses.
pub(super) fn rewrite_query(query: &mut Query) -> Result<()> {
    if let SetExpr::Values(values) = query.body.as_mut() {
        values.rows.iter_mut().try_for_each(|row| row.iter_mut().try_for_each(|e| refuse(e, "VALUES")))?;
    }
    if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
        limit.iter_mut().try_for_each(|limit| refuse(limit, "LIMIT"))?;
        offset.iter_mut().try_for_each(|offset| refuse(&mut offset.value, "OFFSET"))?;
    }
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(()) };
    let Some(OrderByKind::Expressions(keys)) = query.order_by.as_mut().map(|order| &mut order.kind) else {
        return Ok(());
    };
    for key in keys {
        if !returns_rows(&key.expr) {
            continue;
        }
        let is_same = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } if *expr == key.expr);
        let place = select.projection.iter().position(is_same);
        let is_plain =
            |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
        match place {
            Some(place) if select.projection[..place].iter().all(is_plain) => {
                key.expr = Expr::value(Value::Number((place + 1).to_string(), false));
            }
            _ => {
                return Err(Error::unsupported(
                    "a set-returning function in ORDER BY that the select list lacks",
                )
                .hint("Write it in the select list of a subquery: SELECT a FROM (SELECT a, unnest(b) AS x FROM t) ORDER BY x."));
            }
        }
    }
    Ok(())
}

/// Rewrites the select list of a SELECT, its GROUP BY and DISTINCT ON, and checks its other clauses.
pub(super) fn rewrite_select(select: &mut Select) -> Result<()> {
    for (clause, place) in [
        (&mut select.selection, "WHERE"),
        (&mut select.having, "HAVING"),
        (&mut select.qualify, "QUALIFY"),
        (&mut select.prewhere, "PREWHERE"),
    ] {
        clause.iter_mut().try_for_each(|condition| refuse(condition, place))?;
    }
    select.from.iter_mut().try_for_each(check_joins)?;
    expand_members(select);
    let names: Vec<Option<String>> = select.projection.iter().map(item_name).collect();
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let name = name_of(expr);
                let is_new = rewrite(expr)?;
                let is_unique = |name: &String| {
                    names.iter().filter(|other| other.as_ref().is_none_or(|other| other == name)).count() == 1
                };
                if let Some(name) = name.filter(|name| is_new && is_unique(name)) {
                    let expr = std::mem::replace(expr, Expr::value(Value::Null));
                    *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
                }
            }
            SelectItem::ExprWithAlias { expr, .. } => {
                rewrite(expr)?;
            }
            _ => {}
        }
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        keys.iter_mut().try_for_each(|key| rewrite(key).map(drop))?;
    }
    if let Some(Distinct::On(keys)) = &mut select.distinct {
        keys.iter_mut().try_for_each(|key| rewrite(key).map(drop))?;
    }
    Ok(())
}

/// Returns the name that a column of the result has; none for `*`.
fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr).unwrap_or_default()),
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    }
}

fn check_joins(from: &mut TableWithJoins) -> Result<()> {
    for join in &mut from.joins {
        let (JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)) = &mut join.join_operator
        else {
            continue;
        };
        if let JoinConstraint::On(condition) = constraint {
            refuse(condition, "JOIN conditions")?;
        }
    }
    Ok(())
}

/// Writes `(jsonb_each(j)).*` as its columns.
fn expand_members(select: &mut Select) {
    let is_members = |item: &SelectItem| {
        matches!(item, SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _)
            if records(expr).is_some())
    };
    if !select.projection.iter().any(is_members) {
        return;
    }
    let items = std::mem::take(&mut select.projection);
    for item in items {
        match item {
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _)
                if records(&expr).is_some() =>
            {
                for field in records(&expr).map_or(&[][..], |records| records.fields) {
                    let access_chain = vec![AccessExpr::Dot(Expr::Identifier(Ident::new(*field)))];
                    let root = Box::new(Expr::Nested(Box::new(expr.clone())));
                    let expr = Expr::CompoundFieldAccess { root, access_chain };
                    select
                        .projection
                        .push(SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', *field) });
                }
            }
            other => select.projection.push(other),
        }
    }
}

/// Returns the records behind a call: members of an object, or rows of full text search.
fn records(expression: &Expr) -> Option<Records> {
    let function = match expression {
        Expr::Nested(inner) => return records(inner),
        Expr::Function(function) => function,
        _ => return None,
    };
    let name = called(function)?;
    let arguments = shorthand::arguments(function)?;
    let unnested = |list: &str| call("unnest", vec![call(list, arguments.clone())]);
    if let Some((_, list, value)) = MEMBERS.iter().find(|(known, ..)| *known == name) {
        return Some(Records { list: unnested(list), value, fields: &["key", "value"] });
    }
    let found = text_search::rows_of(&name, &arguments);
    found.map(|(_, list, fields)| Records { list: unnested(list), value: "", fields })
}

/// Returns the name of a set-returning function that is called.
fn called(function: &Function) -> Option<String> {
    let name = function.name.to_string().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    FUNCTIONS.contains(&name).then(|| name.to_string())
}

fn returns_rows(expression: &Expr) -> bool {
    refuse(&mut expression.clone(), "").is_err()
}

/// Fails if an expression calls a set-returning function outside of its subqueries.
pub(crate) fn refuse(expression: &mut Expr, place: &'static str) -> Result<()> {
    visit(expression, Calls { refused: vec![place], ..Calls::default() }).map(drop)
}

/// Rewrites calls of set-returning functions. Returns true if this is the first version that has rows of one of them.
fn rewrite(expression: &mut Expr) -> Result<bool> {
    visit(expression, Calls::default())
}

fn visit(expression: &mut Expr, mut calls: Calls) -> Result<bool> {
    match walk_mut(expression, &mut calls) {
        ControlFlow::Continue(()) => Ok(calls.has_rewritten),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor of an expression's own calls.
#[derive(Default)]
struct Calls {
    /// The clauses and forms around that have no rows, from outside to inside.
    refused: Vec<&'static str>,
    /// The expressions around: true for a call of `unnest`, whose argument is an array.
    around: Vec<bool>,
    /// The number of subqueries around.
    subqueries: usize,
    has_rewritten: bool,
}

impl Calls {
    /// Rewrites a call to one of `unnest`.
    fn rewrite(&mut self, expression: &mut Expr) {
        let rows = match expression {
            Expr::Function(function) => rows_of(function),
            Expr::CompoundFieldAccess { root, access_chain } => match access_chain.as_slice() {
                [AccessExpr::Dot(Expr::Identifier(field))] => records(root).map(|found| member(found, field)),
                _ => None,
            },
            _ => None,
        };
        if let Some(rows) = rows {
            *expression = rows;
            self.has_rewritten = true;
        }
    }
}

/// Returns a field of records.
fn member(Records { list, value: function, .. }: Records, field: &Ident) -> Expr {
    let name = if field.quote_style.is_some() { field.value.clone() } else { field.value.to_lowercase() };
    let value = call("get_field", vec![list, text(&name)]);
    if name == "value" && !function.is_empty() { call(function, vec![value]) } else { value }
}

/// Returns the rows of a function that DataFusion or another system has as a function of an array.
fn rows_of(function: &Function) -> Option<Expr> {
    let arguments = shorthand::arguments(function)?;
    let list = match called(function)?.as_str() {
        "generate_series" if times::is_series(&arguments) => {
            call("generate_series", times::series(arguments))
        }
        "generate_series" => call("generate_series", arguments),
        "json_object_keys" => call("json_keys", arguments),
        _ => return records(&Expr::Function(function.clone())).map(|found| found.list),
    };
    Some(call("unnest", vec![list]))
}

impl VisitorMut for Calls {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Error> {
        if self.subqueries > 0 {
            return ControlFlow::Continue(());
        }
        let in_unnest = self.around.last() == Some(&true);
        if !in_unnest {
            self.rewrite(expression);
        }
        let mut is_unnest = in_unnest && matches!(expression, Expr::Nested(_));
        match expression {
            Expr::Case { .. } => self.refused.push("CASE"),
            Expr::Function(function) => {
                let name = called(function);
                is_unnest = name.as_deref() == Some("unnest");
                if let (Some(_), false, Some(place)) = (&name, in_unnest, self.refused.last()) {
                    return ControlFlow::Break(refused(place));
                }
                if function.name.to_string().eq_ignore_ascii_case("coalesce") {
                    self.refused.push("COALESCE");
                }
            }
            _ => {}
        }
        self.around.push(is_unnest);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<Error> {
        if self.subqueries > 0 {
            return ControlFlow::Continue(());
        }
        self.around.pop();
        let refuses = match expression {
            Expr::Case { .. } => true,
            Expr::Function(function) => function.name.to_string().eq_ignore_ascii_case("coalesce"),
            _ => false,
        };
        if refuses {
            self.refused.pop();
        }
        ControlFlow::Continue(())
    }
}
