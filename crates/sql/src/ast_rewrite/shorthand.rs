//! Functions of PostgreSQL, RisingWave, DuckDB, Flink and Spark that expand to an expression of DataFusion.
//!
//! Each parameter occurs once in its template, so a volatile argument is evaluated once.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Select, SelectItem,
    Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::call;
use super::shorthand_others::{self, OTHERS};
use super::shorthand_sketches::SKETCHES;
use super::shorthand_spark::{SPARK, SPARK_FORMS};
use crate::ast_walk::walk_mut;
use crate::tokens::DIALECT;

/// The name, the number of arguments, and the template.
pub(crate) const SHORTHANDS: &[(&str, usize, &str)] = &[
    ("mod", 2, "($1 % $2)"),
    ("div", 2, "CAST(trunc(($1 / $2)) AS BIGINT)"),
    ("ceiling", 1, "ceil($1)"),
    ("sign", 1, "signum($1)"),
    ("quote_literal", 1, "('''' || replace(CAST($1 AS TEXT), '''', '''''') || '''')"),
    ("quote_nullable", 1, "coalesce('''' || replace(CAST($1 AS TEXT), '''', '''''') || '''', 'NULL')"),
    ("array_lower", 2, "CASE WHEN array_length($1, $2) > 0 THEN 1 END"),
    ("array_upper", 2, "array_length($1, $2)"),
    ("array_fill", 2, "array_repeat($1, only_element($2))"),
    ("trim_array", 2, "array_slice($1, 1, -1 - $2)"),
    ("gen_random_uuid", 0, "read_uuid(uuid())"),
    ("uuidv4", 0, "read_uuid(uuid())"),
    ("inet", 1, "read_inet($1)"),
    ("cidr", 1, "read_cidr($1)"),
    ("macaddr", 1, "read_macaddr($1)"),
    ("macaddr8", 1, "read_macaddr8($1)"),
    ("tsvector", 1, "read_tsvector($1)"),
    ("tsquery", 1, "read_tsquery($1)"),
    ("get_current_ts_config", 0, "read_regconfig('english')"),
    ("pg_typeof", 1, "sql_typeof($1)"),
    ("clock_timestamp", 0, "now()"),
    ("statement_timestamp", 0, "now()"),
    ("transaction_timestamp", 0, "now()"),
    ("current_database", 0, "'millstream'"),
    ("current_schema", 0, "'public'"),
    ("every", 1, "bool_and($1)"),
    ("variance", 1, "var_samp($1)"),
    ("localtimestamp", 0, "CAST(now() AS TIMESTAMP)"),
    ("localtimestamp", 1, "round_time(CAST(now() AS TIMESTAMP), $1)"),
    ("localtime", 0, "CAST(now() AS TIME)"),
    ("localtime", 1, "round_time(CAST(now() AS TIME), $1)"),
    ("pg_sleep_for", 1, "pg_sleep(date_part('epoch', CAST($1 AS INTERVAL)))"),
    ("pg_sleep_until", 1, "pg_sleep(date_part('epoch', CAST($1 AS TIMESTAMP WITH TIME ZONE) - now()))"),
    ("timeofday", 0, "to_char(now(), 'Dy Mon DD HH24:MI:SS.US YYYY TZ')"),
    ("make_timestamp", 6, "timestamp_from_parts($1, $2, $3, $4, $5, $6)"),
    ("json_array_elements", 1, "json_same(unnest(json_elements($1)))"),
    ("jsonb_array_elements", 1, "jsonb_same(unnest(jsonb_array_values($1)))"),
    ("json_array_elements_text", 1, "unnest(json_element_texts($1))"),
    ("jsonb_array_elements_text", 1, "unnest(jsonb_array_texts($1))"),
    ("jsonb_object_keys", 1, "unnest(jsonb_keys($1))"),
    ("jsonb_path_query", 2, "jsonb_same(unnest(jsonb_path_values($1, $2)))"),
    ("jsonb_path_query", 3, "jsonb_same(unnest(jsonb_path_values($1, $2, $3)))"),
    ("jsonb_path_query", 4, "jsonb_same(unnest(jsonb_path_values($1, $2, $3, $4)))"),
    ("jsonb_path_query_tz", 2, "jsonb_same(unnest(jsonb_path_values_tz($1, $2)))"),
    ("jsonb_path_query_tz", 3, "jsonb_same(unnest(jsonb_path_values_tz($1, $2, $3)))"),
    ("jsonb_path_query_tz", 4, "jsonb_same(unnest(jsonb_path_values_tz($1, $2, $3, $4)))"),
    ("regexp_split_to_table", 2, "unnest(postgres_regexp_split_to_array($1, $2))"),
    ("regexp_split_to_table", 3, "unnest(postgres_regexp_split_to_array($1, $2, $3))"),
    ("watermark", 1, "(SELECT watermark FROM watermark($1))"),
    ("string_to_table", 2, "unnest(string_to_array($1, $2))"),
    ("string_to_table", 3, "unnest(string_to_array($1, $2, $3))"),
    ("make_timestamptz", 7, "timezone($7, timestamp_from_parts($1, $2, $3, $4, $5, $6))"),
    ("make_timestamptz", 6, "CAST(timestamp_from_parts($1, $2, $3, $4, $5, $6) AS TIMESTAMP WITH TIME ZONE)"),
    // RisingWave, DuckDB; then Flink, Spark.
    ("arg_max", 2, "first_value($1 ORDER BY $2 DESC NULLS LAST)"),
    ("arg_min", 2, "first_value($1 ORDER BY $2 ASC NULLS LAST)"),
    ("max_by", 2, "first_value($1 ORDER BY $2 DESC NULLS LAST)"),
    ("min_by", 2, "first_value($1 ORDER BY $2 ASC NULLS LAST)"),
    ("count_if", 1, "count(CASE WHEN $1 THEN 1 END)"),
    ("explode", 1, "unnest($1)"),
    ("shiftleft", 2, "($1 << $2)"),
    ("shiftright", 2, "($1 >> $2)"),
    ("unhex", 1, "decode($1, 'hex')"),
    ("lcase", 1, "lower($1)"),
    ("ucase", 1, "upper($1)"),
    ("rlike", 2, "regexp_like($1, $2)"),
    ("year", 1, "date_part('year', $1)"),
    ("quarter", 1, "date_part('quarter', $1)"),
    ("month", 1, "date_part('month', $1)"),
    ("weekofyear", 1, "date_part('week', $1)"),
    ("dayofmonth", 1, "date_part('day', $1)"),
    ("dayofyear", 1, "date_part('doy', $1)"),
    ("dayofweek", 1, "(date_part('dow', $1) + 1)"),
    ("hour", 1, "date_part('hour', $1)"),
    ("minute", 1, "date_part('minute', $1)"),
    ("second", 1, "date_part('second', $1)"),
];

/// Forms of functions that DataFusion has with other arguments, or with another syntax of patterns.
const OTHER_FORMS: &[(&str, usize, &str)] = &[
    ("length", 2, "encoded_length($1, $2)"),
    ("width_bucket", 2, "width_bucket_of($1, $2)"),
    ("regexp_like", 2, "postgres_regexp_like($1, $2)"),
    ("regexp_like", 3, "postgres_regexp_like($1, $2, $3)"),
    ("regexp_count", 2, "postgres_regexp_count($1, $2)"),
    ("regexp_count", 3, "postgres_regexp_count($1, $2, $3)"),
    ("regexp_count", 4, "postgres_regexp_count($1, $2, $3, $4)"),
    ("regexp_instr", 2, "postgres_regexp_instr($1, $2)"),
    ("regexp_instr", 3, "postgres_regexp_instr($1, $2, $3)"),
    ("regexp_instr", 4, "postgres_regexp_instr($1, $2, $3, $4)"),
    ("regexp_instr", 5, "postgres_regexp_instr($1, $2, $3, $4, $5)"),
    ("regexp_instr", 6, "postgres_regexp_instr($1, $2, $3, $4, $5, $6)"),
    ("regexp_instr", 7, "postgres_regexp_instr($1, $2, $3, $4, $5, $6, $7)"),
    ("regexp_substr", 2, "postgres_regexp_substr($1, $2)"),
    ("regexp_substr", 3, "postgres_regexp_substr($1, $2, $3)"),
    ("regexp_substr", 4, "postgres_regexp_substr($1, $2, $3, $4)"),
    ("regexp_substr", 5, "postgres_regexp_substr($1, $2, $3, $4, $5)"),
    ("regexp_substr", 6, "postgres_regexp_substr($1, $2, $3, $4, $5, $6)"),
    ("regexp_replace", 3, "postgres_regexp_replace($1, $2, $3)"),
    ("regexp_replace", 4, "postgres_regexp_replace($1, $2, $3, $4)"),
    ("regexp_replace", 5, "postgres_regexp_replace($1, $2, $3, $4, $5)"),
    ("regexp_replace", 6, "postgres_regexp_replace($1, $2, $3, $4, $5, $6)"),
    ("regexp_split_to_array", 2, "postgres_regexp_split_to_array($1, $2)"),
    ("regexp_split_to_array", 3, "postgres_regexp_split_to_array($1, $2, $3)"),
    ("regexp_match", 2, "postgres_regexp_match($1, $2)"),
    ("regexp_match", 3, "postgres_regexp_match($1, $2, $3)"),
    ("regexp_matches", 2, "unnest(postgres_regexp_matches($1, $2))"),
    ("regexp_matches", 3, "unnest(postgres_regexp_matches($1, $2, $3))"),
    ("current_timestamp", 1, "round_time(now(), $1)"),
    ("age", 1, "age(CAST(current_date AS TIMESTAMP), $1)"),
    ("date_trunc", 3, "date_trunc_in_zone($1, $2, $3)"),
];

/// Aggregates that are a function of `array_agg`, with any of its clauses.
pub(crate) const OVER_ARRAYS: [(&str, &str); 3] = [
    ("range_agg", "range_agg_of"),
    ("range_intersect_agg", "range_intersect_agg_of"),
    ("xmlagg", "xml_agg_of"),
];

/// Returns all templates of names that are free.
fn free() -> impl Iterator<Item = &'static (&'static str, usize, &'static str)> {
    SHORTHANDS.iter().chain(OTHERS).chain(SKETCHES).chain(SPARK)
}

/// Returns the templates of forms of functions that are known.
fn forms() -> impl Iterator<Item = &'static (&'static str, usize, &'static str)> {
    OTHER_FORMS.iter().chain(shorthand_others::OTHER_FORMS).chain(SPARK_FORMS)
}

static TEMPLATES: LazyLock<HashMap<(&'static str, usize), Expr>> = LazyLock::new(|| {
    let parse =
        |text: &str| Parser::new(&DIALECT).try_with_sql(text).and_then(|mut parser| parser.parse_expr());
    free()
        .chain(forms())
        .filter_map(|(name, count, text)| Some(((*name, *count), parse(text).ok()?)))
        .collect()
});

/// Expands a call of one of these functions. A function of that name that is known takes precedence.
pub(super) fn expand(function: &Function, known: bool) -> Option<Expr> {
    let [part] = &function.name.0[..] else { return None };
    let name = part.as_ident()?.value.to_lowercase();
    if let Some((_, of_list)) =
        OVER_ARRAYS.iter().find(|(aggregate, _)| *aggregate == name).filter(|_| !known)
    {
        let array = Function { name: ObjectName::from(vec![Ident::new("array_agg")]), ..function.clone() };
        return Some(call(of_list, vec![Expr::Function(array)]));
    }
    let arguments = arguments(function)?;
    if known && !forms().any(|(form, count, _)| *form == name && *count == arguments.len()) {
        return None;
    }
    let plain = function.over.is_none() && function.within_group.is_empty();
    let template = plain.then(|| TEMPLATES.get(&(name.as_str(), arguments.len())))??;
    let mut expanded = template.clone();
    if let Some(filter) = &function.filter {
        aggregate(&mut expanded)?.filter = Some(filter.clone());
    }
    fill(&mut expanded, arguments);
    Some(expanded)
}

/// Puts arguments in place of `$1`, `$2` and so on.
pub(super) fn fill(tree: &mut impl VisitMut, arguments: Vec<Expr>) {
    let _ = walk_mut(tree, &mut Fill(arguments));
}

/// Returns the aggregate of a template, whose FILTER is that of the call: `array_agg` if it is there, or else the template.
fn aggregate(template: &mut Expr) -> Option<&mut Function> {
    let Expr::Function(call) = template else { return None };
    let is_inner = |argument: &FunctionArg| {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner))) = argument else {
            return false;
        };
        inner.name.to_string() == "array_agg"
    };
    let inner = match &call.args {
        FunctionArguments::List(list) => list.args.iter().position(is_inner),
        _ => None,
    };
    let Some(at) = inner else { return Some(call) };
    let FunctionArguments::List(list) = &mut call.args else { return None };
    match &mut list.args[at] {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner))) => Some(inner),
        _ => None,
    }
}

/// Names the columns that expand to subqueries: several of these would have the same name.
pub(super) fn name_columns(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Function(call)) = item
            && let Some(Expr::Subquery(_)) = expand(call, false)
        {
            let alias = Ident::with_quote('"', call.to_string());
            *item = SelectItem::ExprWithAlias { expr: Expr::Function(call.clone()), alias };
        }
    }
}

/// Returns plain arguments; none if there are others.
pub(crate) fn arguments(function: &Function) -> Option<Vec<Expr>> {
    match &function.args {
        FunctionArguments::None => Some(Vec::new()),
        FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty() => {
            let plain = |argument: &FunctionArg| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
                _ => None,
            };
            list.args.iter().map(plain).collect()
        }
        _ => None,
    }
}

struct Fill(Vec<Expr>);

impl VisitorMut for Fill {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expression
            && let Value::Placeholder(name) = &value.value
            && let Some(argument) =
                name[1..].parse::<usize>().ok().and_then(|number| self.0.get(number.wrapping_sub(1)))
        {
            *expression = Expr::Nested(Box::new(argument.clone()));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_an_expression_that_takes_each_argument_once() {
        let all = || free().chain(forms());
        assert_eq!(TEMPLATES.len(), all().count());
        for (name, count, text) in all() {
            for number in 1..=*count {
                assert_eq!(text.matches(&format!("${number}")).count(), 1, "{name}");
            }
        }
    }
}
