//! Forms of Spark's functions that options in a map, or flags, select.
//!
//! | written | planned as |
//! | --- | --- |
//! | `to_json(x, map('timestampFormat', 'dd/MM/yyyy'))` | `to_json(times_by_pattern(x, 'dd/MM/yyyy'))` |
//! | `from_json(x, 'a INT', map('timestampFormat', p))` | `from_json(x, 'a INT', p)` |
//! | `from_xml(x, 'a INT')` | `from_json(xml_to_json(x, 'a INT'), 'a INT')` |
//! | `last(x, TRUE)`, `any_value(x, TRUE)` | `last_value(x) IGNORE NULLS` |
//! | `counter_diff(c) OVER (…)` | `counter_step(c, lag(c) OVER (…))` |
//! | `GROUP BY CUBE (a, b)`, `grouping_id()` | `grouping(a, b)` |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, GroupByExpr, NullTreatment, Select, Value, VisitorMut,
};

use super::others::arguments;
use super::others_by_literal::{is_flag, literal};
use super::{call, text};
use crate::ast_walk::walk_mut;

/// Rewrites a call; none for another function or form.
pub(super) fn rewritten(name: &str, function: &Function) -> Option<Expr> {
    let all = arguments(function)?;
    if name == "counter_diff" {
        return counter_diff(function, &all);
    }
    if let ("first" | "first_value" | "any_value" | "last" | "last_value", [of, flag]) = (name, &all[..])
        && is_flag(flag)
    {
        return Some(choice(name, function, of, flag));
    }
    if let ("from_xml", [of, schema, rest @ ..]) = (name, &all[..])
        && !matches!(schema, Expr::Function(_))
    {
        let xml = call("xml_to_json", vec![(*of).clone(), (*schema).clone()]);
        let mut values = vec![xml, (*schema).clone()];
        values.extend(rest.iter().map(|option| (*option).clone()));
        let Expr::Function(read) = call("from_json", values) else { return None };
        return Some(rewritten("from_json", &read).unwrap_or(Expr::Function(read)));
    }
    let (last, values) = all.split_last()?;
    let options = options(last)?;
    let values: Vec<Expr> = values.iter().map(|value| (*value).clone()).collect();
    with_options(name, values, &options)
}

/// Returns the options of `map('timestampFormat', 'dd/MM/yyyy')`; none for another expression.
fn options(of: &Expr) -> Option<Vec<(String, &str)>> {
    let Expr::Function(map) = of else { return None };
    if !matches!(map.name.to_string().to_lowercase().as_str(), "map" | "make_map") {
        return None;
    }
    let all = arguments(map)?;
    let (pairs, []) = all.as_chunks::<2>() else { return None };
    pairs.iter().map(|[name, value]| Some((literal(name)?.to_lowercase(), literal(value)?))).collect()
}

fn with_options(name: &str, mut values: Vec<Expr>, options: &[(String, &str)]) -> Option<Expr> {
    let known: &[&str] = match name {
        "from_json" => &["timestampformat"],
        "to_json" => &["timestampformat", "sortkeys"],
        "to_xml" => &["timestampformat"],
        "schema_of_xml" => &["excludeattribute"],
        "from_csv" | "to_csv" => &["timestampformat", "sep", "delimiter"],
        "schema_of_json" => &["allownumericleadingzeros"],
        _ => return None,
    };
    if !options.iter().all(|(option, _)| known.contains(&option.as_str())) {
        return None;
    }
    let option = |names: &[&str]| {
        let found = options.iter().find(|(option, _)| names.contains(&option.as_str()));
        found.map(|(_, value)| *value)
    };
    let is_true = |name: &str| option(&[name]).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let pattern = option(&["timestampformat"]);
    let separator = option(&["sep", "delimiter"]);
    if name.starts_with("to_")
        && let (Some(pattern), [of, ..]) = (pattern, values.as_mut_slice())
    {
        *of = call("times_by_pattern", vec![of.clone(), text(pattern)]);
    }
    Some(match name {
        "to_json" if is_true("sortkeys") => call("json_sorted", vec![call("to_json", values)]),
        "from_json" => {
            values.extend(pattern.map(text));
            call(name, values)
        }
        "schema_of_xml" => {
            let attributes = !is_true("excludeattribute");
            values.push(Expr::value(Value::Boolean(attributes)));
            call("schema_of_xml_with", values)
        }
        "from_csv" => {
            let null = || Expr::value(Value::Null);
            values.push(pattern.map_or_else(null, text));
            values.extend(separator.map(text));
            call(name, values)
        }
        "to_csv" => {
            values.extend(separator.map(text));
            call(name, values)
        }
        "schema_of_json" if is_true("allownumericleadingzeros") => call("schema_of_json_with_zeros", values),
        _ => call(name, values),
    })
}

/// Returns the aggregate of one argument, which skips NULLs if the flag is true.
fn choice(name: &str, function: &Function, of: &Expr, flag: &Expr) -> Expr {
    let skips = matches!(flag, Expr::Value(value) if value.value == Value::Boolean(true));
    let name = match name {
        "last" | "last_value" => "last_value",
        _ => "first_value",
    };
    let Expr::Function(mut chosen) = call(name, vec![of.clone()]) else { return of.clone() };
    chosen.filter = function.filter.clone();
    chosen.over = function.over.clone();
    chosen.null_treatment = skips.then_some(NullTreatment::IgnoreNulls);
    Expr::Function(chosen)
}

/// Compares each argument with that of the row before: the count, and the time at which it began, if given.
fn counter_diff(function: &Function, all: &[&Expr]) -> Option<Expr> {
    let over = function.over.as_ref()?;
    if !matches!(all.len(), 1 | 2) {
        return None;
    }
    let pairs = all.iter().flat_map(|of| {
        let mut before = call("lag", vec![(*of).clone()]);
        if let Expr::Function(lag) = &mut before {
            lag.over = Some(over.clone());
        }
        [(*of).clone(), before]
    });
    Some(call("counter_step", pairs.collect()))
}

/// Gives `grouping_id()` of a SELECT the expressions of its CUBE, ROLLUP or GROUPING SETS.
pub(super) fn fill_grouping_id(select: &mut Select) {
    let mut is_called = Called { with: None, found: false };
    let _ = walk_mut(&mut select.projection, &mut is_called);
    let _ = walk_mut(&mut select.having, &mut is_called);
    if !is_called.found {
        return;
    }
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return };
    let mut keys: Vec<Expr> = Vec::new();
    for group in groups {
        let sets = match group {
            Expr::Cube(sets) | Expr::Rollup(sets) | Expr::GroupingSets(sets) => sets.clone(),
            other => vec![vec![other.clone()]],
        };
        for key in sets.into_iter().flatten() {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    let mut filled = Called { with: Some(keys), found: false };
    let _ = walk_mut(&mut select.projection, &mut filled);
    let _ = walk_mut(&mut select.having, &mut filled);
}

/// Finds the calls of `grouping_id()` without arguments, and gives them some.
struct Called {
    with: Option<Vec<Expr>>,
    found: bool,
}

impl VisitorMut for Called {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression
            && function.name.to_string().eq_ignore_ascii_case("grouping_id")
            && arguments(function).is_some_and(|all| all.is_empty())
        {
            self.found = true;
            if let Some(keys) = &self.with {
                *expression = call("grouping", keys.clone());
            }
        }
        ControlFlow::Continue(())
    }
}
