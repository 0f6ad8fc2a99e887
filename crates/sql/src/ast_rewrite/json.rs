//! Rewrites set-returning functions and aggregates of JSON.
//!
//! | written | planned as |
//! | --- | --- |
//! | `FROM t, jsonb_each(t.j) AS x(k, v)` | `FROM t, LATERAL (SELECT … FROM UNNEST(jsonb_members(t.j)) AS u(e)) AS x(k, v)` |
//! | `FROM jsonb_array_elements(j) AS e WHERE e > '1'` | the same, with `e.value` for `e` |
//! | `FROM jsonb_to_record(j) AS x(a INT)` | `FROM LATERAL (SELECT json_record_text(e, 'a')::INT …) AS x(a)` |
//! | `FROM json_populate_record(NULL::t, j)` | the same, with the fields of a composite type |
//! | `json_agg(x ORDER BY y)` | `json_agg_of(array_agg(x ORDER BY y))` |
//! | `json_object_agg(k, v)` | `json_object_agg_of(array_agg(struct(k, v)))` |

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, Query, Select, SelectItem, SetExpr, Statement, StructField, TableAlias, TableAliasColumnDef,
    TableFactor, Value,
};

use super::postgres::parsed;
use super::{call, rows_from, scopes, text, text_search, whole_rows};
use crate::error::{Error, Result};

/// The rows of a function in FROM.
#[derive(Clone, Copy)]
enum Rows {
    /// A value for each element of a list, through a function; the column's name, or none for the alias's.
    Values(&'static str, Option<&'static str>),
    /// The members of an object; the value goes through a function.
    Members(&'static str),
    /// The members or elements of a variant, with their places.
    Entries,
    /// Records with these fields.
    Fields(&'static [&'static str]),
    /// Records whose columns the alias declares.
    Records,
}

/// The functions in FROM, with the function that makes their list.
const FUNCTIONS: [(&str, &str, Rows); 22] = [
    ("json_array_elements", "json_elements", Rows::Values("json_same", Some("value"))),
    ("jsonb_array_elements", "jsonb_array_values", Rows::Values("jsonb_same", Some("value"))),
    ("json_array_elements_text", "json_element_texts", Rows::Values("", Some("value"))),
    ("jsonb_array_elements_text", "jsonb_array_texts", Rows::Values("", Some("value"))),
    ("json_object_keys", "json_keys", Rows::Values("", None)),
    ("jsonb_object_keys", "jsonb_keys", Rows::Values("", None)),
    ("jsonb_path_query", "jsonb_path_values", Rows::Values("jsonb_same", None)),
    ("jsonb_path_query_tz", "jsonb_path_values_tz", Rows::Values("jsonb_same", None)),
    ("json_each", "json_members", Rows::Members("json_same")),
    ("jsonb_each", "jsonb_members", Rows::Members("jsonb_same")),
    ("json_each_text", "json_member_texts", Rows::Members("")),
    ("jsonb_each_text", "jsonb_member_texts", Rows::Members("")),
    ("variant_explode", "variant_entries", Rows::Entries),
    ("variant_explode_outer", "variant_entries_or_null", Rows::Entries),
    ("json_to_record", "make_array", Rows::Records),
    ("jsonb_to_record", "make_array", Rows::Records),
    ("json_populate_record", "make_array", Rows::Records),
    ("jsonb_populate_record", "make_array", Rows::Records),
    ("json_populate_recordset", "json_elements", Rows::Records),
    ("jsonb_populate_recordset", "jsonb_array_values", Rows::Records),
    ("json_to_recordset", "json_elements", Rows::Records),
    ("jsonb_to_recordset", "jsonb_array_values", Rows::Records),
];

/// A call in FROM.
struct Called {
    name: String,
    list: &'static str,
    rows: Rows,
    arguments: Vec<Expr>,
    numbered: bool,
}

fn called(factor: &TableFactor) -> Option<Called> {
    let (name, arguments, numbered) = match factor {
        TableFactor::UNNEST { array_exprs, with_ordinality, .. } => {
            let (name, list, fields) = text_search::rows_of("unnest", array_exprs)?;
            return Some(Called {
                name: (*name).into(),
                list,
                rows: Rows::Fields(fields),
                arguments: array_exprs.clone(),
                numbered: *with_ordinality,
            });
        }
        TableFactor::Table { name, args: Some(arguments), with_ordinality, .. } => {
            (name, &arguments.args, *with_ordinality)
        }
        TableFactor::Function { name, args, with_ordinality, .. } => (name, args, *with_ordinality),
        _ => return None,
    };
    let name = name.to_string().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name).to_string();
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    };
    let arguments = arguments.iter().map(plain).collect::<Option<Vec<Expr>>>()?;
    let listed = FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, list, rows)| (*list, *rows));
    let (list, rows) = listed.or_else(|| {
        text_search::rows_of(&name, &arguments).map(|(_, list, fields)| (*list, Rows::Fields(fields)))
    })?;
    Some(Called { name, list, rows, arguments, numbered })
}

pub(super) fn alias_of(factor: &mut TableFactor) -> Option<&mut Option<TableAlias>> {
    match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => Some(alias),
        _ => None,
    }
}

/// Rewrites a function in FROM to a subquery over UNNEST.
pub(super) fn table_function(factor: &mut TableFactor) -> Result<()> {
    let Some(mut found) = called(factor) else { return Ok(()) };
    let declared = populated(&mut found)?;
    let Some(alias) = alias_of(factor) else { return Ok(()) };
    let named = || TableAlias {
        explicit: true,
        name: Ident::new(found.name.as_str()),
        columns: Vec::new(),
        at: None,
    };
    let mut alias = alias.take().unwrap_or_else(named);
    let renamed = match declared {
        Some(columns) => std::mem::replace(&mut alias.columns, columns),
        None => Vec::new(),
    };
    let (element, ordinality) = match found.numbered {
        true => ("get_field(e, 'x')", ", CAST(get_field(e, 'n') AS BIGINT)"),
        false => ("e", ""),
    };
    let through = |function: &str, value: &str| match function {
        "" => value.to_string(),
        function => format!("{function}({value})"),
    };
    let (items, mut names) = match found.rows {
        Rows::Values(function, column) => {
            let name = column.map_or_else(|| alias.name.clone(), Ident::new);
            (through(function, element), vec![name])
        }
        Rows::Members(function) => {
            let value = through(function, &format!("get_field({element}, 'value')"));
            (format!("get_field({element}, 'key'), {value}"), vec![Ident::new("key"), Ident::new("value")])
        }
        Rows::Entries => {
            let value = through("json_same", &format!("get_field({element}, 'value')"));
            let items = format!("get_field({element}, 'pos'), get_field({element}, 'key'), {value}");
            (items, ["pos", "key", "value"].map(Ident::new).into())
        }
        Rows::Fields(fields) => {
            let items = fields.iter().map(|field| format!("get_field({element}, '{field}')"));
            (items.collect::<Vec<_>>().join(", "), fields.iter().copied().map(Ident::new).collect())
        }
        Rows::Records => ("e".to_string(), Vec::new()),
    };
    names.extend(found.numbered.then(|| Ident::new("ordinality")));
    let subquery = format!("SELECT {items}{ordinality} FROM UNNEST(a) AS u(e)");
    let Ok(Statement::Query(mut subquery)) = parsed(&subquery) else { return Ok(()) };
    if let Rows::Records = found.rows {
        records(&mut subquery, &found, &mut alias)?;
        alias.columns.iter_mut().zip(renamed).for_each(|(column, new)| *column = new);
    }
    let unnamed = names.into_iter().skip(alias.columns.len());
    alias.columns.extend(unnamed.map(|name| TableAliasColumnDef { name, data_type: None }));
    let mut arguments = found.arguments;
    if ["jsonb_to_record", "jsonb_populate_record"].contains(&found.name.as_str()) {
        arguments = arguments.into_iter().map(|argument| call("read_jsonb", vec![argument])).collect();
    }
    let list = call(found.list, arguments);
    let list = if found.numbered { call("array_expanded", vec![list]) } else { list };
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && let Some(TableFactor::UNNEST { array_exprs, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
    {
        *array_exprs = vec![list];
    }
    *factor = TableFactor::Derived { lateral: true, subquery, alias: Some(alias), sample: None };
    Ok(())
}

/// Takes the first argument of `json_populate_record(NULL::type, …)`. Returns the columns that it declares.
fn populated(found: &mut Called) -> Result<Option<Vec<TableAliasColumnDef>>> {
    if !found.name.contains("_populate_record") || found.arguments.len() != 2 {
        return Ok(None);
    }
    let usage = || {
        Error::invalid(format!("{} takes NULL::type, of a composite type, and JSON", found.name))
            .hint(format!("Write {}(NULL::STRUCT<a INT, b TEXT>, …).", found.name))
    };
    let columns = match &found.arguments[0] {
        Expr::Cast { expr, data_type: SqlType::Struct(fields, _), .. } if is_null(expr) => {
            let column = |field: &StructField| {
                let name = field.field_name.clone().ok_or_else(usage)?;
                Ok(TableAliasColumnDef { name, data_type: Some(field.field_type.clone()) })
            };
            fields.iter().map(column).collect::<Result<Vec<_>>>()?
        }
        _ => return Err(usage()),
    };
    found.arguments.remove(0);
    Ok(Some(columns))
}

fn is_null(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if value.value == Value::Null)
}

/// Puts the columns that an alias declares into the subquery of records.
fn records(subquery: &mut Query, found: &Called, alias: &mut TableAlias) -> Result<()> {
    if found.numbered || alias.columns.is_empty() {
        return Err(Error::invalid(format!("a column definition list is required for {}", found.name))
            .hint(format!("Write {}(…) AS x(a INT, b TEXT).", found.name)));
    }
    let mut items = Vec::with_capacity(alias.columns.len());
    for column in &mut alias.columns {
        let name = match column.name.quote_style {
            Some(_) => column.name.value.clone(),
            None => column.name.value.to_lowercase(),
        };
        let Some(data_type) = column.data_type.take() else {
            let message = format!("column \"{name}\" of {} has no type", found.name);
            return Err(Error::invalid(message).hint("Write AS x(a INT, b TEXT)."));
        };
        let part = |function: &str| call(function, vec![Expr::Identifier(Ident::new("e")), text(&name)]);
        let cast = |value: Expr| Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(value),
            data_type: data_type.clone(),
            array: false,
            format: None,
        };
        items.push(SelectItem::UnnamedExpr(match &data_type {
            SqlType::JSON => part("json_object_field"),
            SqlType::JSONB => cast(part("json_object_field")),
            SqlType::Array(_) => cast(part("json_record_array")),
            _ => cast(part("json_record_text")),
        }));
    }
    // Columns of the subquery need names of their own.
    let items = items.into_iter().enumerate().map(|(at, item)| match item {
        SelectItem::UnnamedExpr(expr) => {
            SelectItem::ExprWithAlias { expr, alias: Ident::new(format!("c{at}")) }
        }
        other => other,
    });
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        select.projection = items.collect();
    }
    Ok(())
}

/// Writes `e.value` for `e` in a SELECT from `jsonb_array_elements(j) AS e` or from DataFusion's `generate_series(1, 3) AS
/// e`: the function's rows are its values. A column of that name in another relation comes first.
pub(super) fn name_values(select: &mut Select, of_relation: &whole_rows::Columns<'_>) {
    let columns: Vec<String> = scopes::factors(select)
        .flat_map(|factor| whole_rows::column_names(factor, of_relation).unwrap_or_default())
        .collect();
    let mut aliases: Vec<Ident> = Vec::new();
    for from in &mut select.from {
        let factors =
            std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|j| &mut j.relation));
        for factor in factors {
            let is_value = matches!(called(factor).map(|found| found.rows), Some(Rows::Values(_, Some(_))))
                || rows_from::is_literal_series(factor);
            if let (true, Some(Some(alias))) = (is_value, alias_of(factor))
                && alias.columns.is_empty()
                && !columns.contains(&scopes::folded(&alias.name))
            {
                aliases.push(alias.name.clone());
            }
        }
    }
    if aliases.is_empty() {
        return;
    }
    let is_value = |name: &Ident| {
        let same = |alias: &Ident| alias.value == name.value && alias.quote_style == name.quote_style;
        name.value != "value" && aliases.iter().any(same)
    };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr @ Expr::Identifier(_)) = item
            && let Expr::Identifier(name) = &*expr
            && is_value(name)
        {
            *item = SelectItem::ExprWithAlias { alias: name.clone(), expr: expr.clone() };
        }
    }
    scopes::change(select, of_relation, &mut |part, hides| {
        if let Expr::Identifier(name) = part
            && is_value(name)
            && !hides(name)
        {
            *part = Expr::CompoundIdentifier(vec![name.clone(), Ident::new("value")]);
        }
    });
}

/// The aggregates of JSON.
const AGGREGATES: [&str; 4] = ["json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg"];

/// Rewrites an aggregate of JSON to a function of an array.
pub(super) fn aggregate(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_lowercase();
    let name = AGGREGATES.iter().find(|known| **known == name)?;
    let mut inner = function.clone();
    inner.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let FunctionArguments::List(list) = &mut inner.args else { return None };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression.clone()),
        _ => None,
    };
    let arguments = list.args.iter().map(plain).collect::<Option<Vec<_>>>()?;
    let value = match (name.ends_with("object_agg"), arguments.as_slice()) {
        (false, [value]) => value.clone(),
        (true, [key, value]) => call("named_struct", vec![text("k"), key.clone(), text("v"), value.clone()]),
        _ => return None,
    };
    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(value))];
    Some(call(&format!("{name}_of"), vec![Expr::Function(inner)]))
}
