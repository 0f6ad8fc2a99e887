//! Spark's generators in FROM, in LATERAL VIEW, and in the select list if they have several columns.
//!
//! | written | planned as |
//! | --- | --- |
//! | `FROM t, LATERAL explode(t.a) AS e(x)` | `FROM t, LATERAL (SELECT e FROM UNNEST(t.a) AS u(e)) AS e(x)` |
//! | `FROM t LATERAL VIEW OUTER explode(a) e AS x` | the same over `array_or_null(t.a)`, which is never empty |
//! | `explode(m) AS e(k, v)` | `(SELECT get_field(e, 'key'), get_field(e, 'value') FROM UNNEST(map_entries(m)) …)` |
//! | `posexplode(a)`, `inline(a)`, `stack(2, a, b, c)`, `json_tuple(j, 'a', 'b')` | the fields of a list of structs |
//! | `SELECT k, posexplode(a) FROM t` | `SELECT k, g.pos, g.col FROM t, LATERAL posexplode(a) AS g` |

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, TableWithJoins, Value,
};

use super::call;
use super::postgres::parsed;
use crate::error::{Error, Result};

/// The generators, without the suffix `_outer`.
const GENERATORS: [&str; 5] = ["explode", "posexplode", "inline", "stack", "json_tuple"];

/// The most columns that a generator may have.
const COLUMNS_MAX: usize = 1_000;

/// The rows of a generator.
struct Rows {
    /// The list with an element for each row.
    list: Expr,
    /// The values of a row, as text that reads the element `e`, with their names.
    columns: Vec<(String, String)>,
}

/// Returns the generator's name without `_outer`, and true if it has that suffix.
fn generator(name: &ObjectName) -> Option<(&'static str, bool)> {
    let name = name.to_string().to_lowercase();
    let (plain, outer) = match name.strip_suffix("_outer") {
        Some(plain) => (plain, true),
        None => (name.as_str(), false),
    };
    let found = GENERATORS.into_iter().find(|known| *known == plain)?;
    (!outer || !matches!(found, "stack" | "json_tuple")).then_some((found, outer))
}

/// Returns the arguments; one may be named, as in `explode(collection => a)`.
fn plain(arguments: &[FunctionArg]) -> Option<Vec<Expr>> {
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(of)) => Some(of.clone()),
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(of), .. }
            if ["collection", "input"].contains(&name.value.to_lowercase().as_str()) =>
        {
            Some(of.clone())
        }
        _ => None,
    };
    arguments.iter().map(plain).collect()
}

/// Rewrites a generator in FROM to a subquery over UNNEST.
pub(super) fn table_function(factor: &mut TableFactor) -> Result<()> {
    let (name, arguments, alias) = match factor {
        TableFactor::Table { name, args: Some(arguments), alias, .. } => (name, &arguments.args, alias),
        TableFactor::Function { name, args, alias, with_ordinality: false, .. } => (name, &*args, alias),
        _ => return Ok(()),
    };
    let Some((called, outer)) = generator(name) else { return Ok(()) };
    let Some(arguments) = plain(arguments) else { return Ok(()) };
    let unnamed = || TableAlias { explicit: true, name: Ident::new(called), columns: Vec::new(), at: None };
    let mut alias = alias.take().unwrap_or_else(unnamed);
    let rows = rows(called, arguments, alias.columns.len())?;
    if alias.columns.len() > rows.columns.len() {
        let (has, names) = (rows.columns.len(), alias.columns.len());
        return Err(Error::invalid(format!("{called} has {has} columns, but {names} names were given")));
    }
    let values: Vec<&str> = rows.columns.iter().map(|(value, _)| value.as_str()).collect();
    let subquery = format!("SELECT {} FROM UNNEST(a) AS u(e)", values.join(", "));
    let Ok(Statement::Query(mut subquery)) = parsed(&subquery) else { return Ok(()) };
    let list = if outer { call("array_or_null", vec![rows.list]) } else { rows.list };
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && let Some(TableFactor::UNNEST { array_exprs, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
    {
        *array_exprs = vec![list];
    }
    let names = rows.columns.into_iter().skip(alias.columns.len()).map(|(_, name)| Ident::new(name));
    alias.columns.extend(names.map(|name| TableAliasColumnDef { name, data_type: None }));
    *factor = TableFactor::Derived { lateral: true, subquery, alias: Some(alias), sample: None };
    Ok(())
}

/// Returns the rows of a generator whose alias has `named` columns.
fn rows(name: &str, mut arguments: Vec<Expr>, named: usize) -> Result<Rows> {
    let fields = |names: &[&str]| {
        names.iter().map(|name| (format!("get_field(e, '{name}')"), (*name).to_string())).collect()
    };
    match (name, arguments.len()) {
        ("explode", 1) if named == 2 => {
            Ok(Rows { list: call("map_entries", arguments), columns: fields(&["key", "value"]) })
        }
        ("explode", 1) => Ok(Rows { list: arguments.remove(0), columns: vec![("e".into(), "col".into())] }),
        ("posexplode", 1) => {
            let names: &[&str] = if named == 3 { &["pos", "key", "value"] } else { &["pos", "col"] };
            Ok(Rows { list: call("array_places", arguments), columns: fields(names) })
        }
        ("inline", 1) => {
            let count = if named > 0 { named } else { width(&arguments[0]).unwrap_or(0) };
            if count == 0 {
                return Err(Error::invalid("the columns of inline have no names")
                    .hint("Name them: inline(a) AS t(x, y)."));
            }
            let columns = (1..=count).map(|at| (format!("get_field(e, 'c{at}')"), format!("col{at}")));
            Ok(Rows { list: call("inline_fields", arguments), columns: columns.collect() })
        }
        ("stack", 2..) => stack(arguments),
        ("json_tuple", 2..) => {
            let json = arguments.remove(0);
            let columns = arguments
                .iter()
                .enumerate()
                .map(|(at, key)| (format!("json_field(e, {key})"), format!("c{at}")));
            let columns = columns.collect();
            Ok(Rows { list: call("make_array", vec![json]), columns })
        }
        _ => Err(Error::invalid(format!(
            "{name} has {} arguments, which is another number than it takes",
            arguments.len()
        ))),
    }
}

/// Returns the number of fields of the structs in `array(struct(1, 'a'), …)`.
fn width(array: &Expr) -> Option<usize> {
    let first = match array {
        Expr::Array(array) => array.elem.first()?,
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => match list.args.first()? {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(first)) => first,
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    match first {
        Expr::Function(function) => match (&function.args, function.name.to_string().to_lowercase().as_str())
        {
            (FunctionArguments::List(list), "struct" | "row") => Some(list.args.len()),
            (FunctionArguments::List(list), "named_struct") => Some(list.args.len() / 2),
            _ => None,
        },
        Expr::Tuple(values) => Some(values.len()),
        Expr::Struct { values, .. } => Some(values.len()),
        _ => None,
    }
}

/// Puts values into as many rows as the first argument says, filled up with NULL.
fn stack(mut arguments: Vec<Expr>) -> Result<Rows> {
    let first = arguments.remove(0);
    let count = match &first {
        Expr::Value(value) => match &value.value {
            Value::Number(count, _) => count.parse::<usize>().ok(),
            _ => None,
        },
        _ => None,
    };
    let Some(count) = count.filter(|count| (1..=COLUMNS_MAX).contains(count)) else {
        return Err(Error::invalid(format!(
            "stack takes a number of rows, from 1 to {COLUMNS_MAX}, not {first}"
        )));
    };
    let width = arguments.len().div_ceil(count);
    let value = |row: usize, column: usize| {
        arguments.get(row * width + column).cloned().unwrap_or_else(|| Expr::value(Value::Null))
    };
    let column = |at: usize| call("make_array", (0..count).map(|row| value(row, at)).collect());
    let list = call("arrays_zip", (0..width).map(column).collect());
    let columns = (0..width).map(|at| (format!("get_field(e, '{}')", at + 1), format!("col{at}")));
    Ok(Rows { list, columns: columns.collect() })
}

/// Moves LATERAL VIEW to FROM, and generators of several columns from the select list.
pub(super) fn into_from(select: &mut Select) -> Result<()> {
    for view in std::mem::take(&mut select.lateral_views) {
        let Expr::Function(function) = view.lateral_view else {
            return Err(Error::invalid(format!("LATERAL VIEW takes a generator, not {}", view.lateral_view)));
        };
        let found = generator(&function.name);
        let Some((name, outer)) = found else {
            return Err(Error::invalid(format!("LATERAL VIEW takes a generator, not {}", function.name))
                .hint("Generators are explode, posexplode, inline, stack and json_tuple."));
        };
        let can_be_outer = !matches!(name, "stack" | "json_tuple");
        let name =
            if (outer || view.outer) && can_be_outer { format!("{name}_outer") } else { name.to_string() };
        let alias = view.lateral_view_name.0.last().and_then(|part| part.as_ident()).cloned();
        let alias = alias.unwrap_or_else(|| Ident::new(name.as_str()));
        join(select, &name, &function, alias, view.lateral_col_alias);
    }
    let items = std::mem::take(&mut select.projection);
    let has_all = items.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let count = items.len();
    for (at, item) in items.into_iter().enumerate() {
        let (function, names) = match item {
            SelectItem::UnnamedExpr(Expr::Function(function)) => (function, Vec::new()),
            SelectItem::ExprWithAliases { expr: Expr::Function(function), aliases } => (function, aliases),
            other => {
                select.projection.push(other);
                continue;
            }
        };
        let Some(columns) = listed(&function, &names)? else {
            select.projection.push(SelectItem::UnnamedExpr(Expr::Function(function)));
            continue;
        };
        let name = function.name.to_string();
        let alias = Ident::new(format!("generator_{at}"));
        join(select, &name, &function, alias.clone(), columns.clone());
        // A `*` has the columns already.
        if has_all && at + 1 < count {
            return Err(Error::unsupported(format!("{name} between * and other columns"))
                .hint("Write it as the last column."));
        }
        if !has_all {
            let column = |name: Ident| Expr::CompoundIdentifier(vec![alias.clone(), name]);
            select.projection.extend(columns.into_iter().map(|name| SelectItem::UnnamedExpr(column(name))));
        }
    }
    Ok(())
}

/// Returns the columns of a generator in the select list; none for other functions and for generators of one column.
fn listed(function: &Function, names: &[Ident]) -> Result<Option<Vec<Ident>>> {
    let Some((name, _)) = generator(&function.name) else { return Ok(None) };
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let Some(arguments) = plain(&list.args) else { return Ok(None) };
    let has_name = list.args.iter().any(|argument| matches!(argument, FunctionArg::Named { .. }));
    if name == "explode" && names.len() < 2 && !has_name {
        return Ok(None);
    }
    let rows = rows(name, arguments, names.len())?;
    let own = rows.columns.into_iter().skip(names.len()).map(|(_, name)| Ident::new(name));
    Ok(Some(names.iter().cloned().chain(own).collect()))
}

/// Joins the rows of a generator to those of FROM.
pub(super) fn join(select: &mut Select, name: &str, function: &Function, alias: Ident, columns: Vec<Ident>) {
    let args = match &function.args {
        FunctionArguments::List(list) => list.args.clone(),
        _ => Vec::new(),
    };
    let columns = columns.into_iter().map(|name| TableAliasColumnDef { name, data_type: None });
    let alias = TableAlias { explicit: true, name: alias, columns: columns.collect(), at: None };
    let relation = TableFactor::Function {
        lateral: true,
        name: ObjectName::from(vec![Ident::new(name)]),
        args,
        with_ordinality: false,
        alias: Some(alias),
    };
    match select.from.as_mut_slice() {
        [from] => {
            let join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
            from.joins.push(Join { relation, global: false, join_operator });
        }
        // A generator may read columns of all tables before it.
        _ => select.from.push(TableWithJoins { relation, joins: Vec::new() }),
    }
}
