//! The functions in PostgreSQL's catalog: users', and the input and output functions of types.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field};
use millstream_sql::functions::quote_ident;
use millstream_sql::routines::Parameter;
use millstream_sql::{PG_CATALOG, PUBLIC};

use super::facts::{Facts, OWNER, split_name};
use super::rows::{Rows, Value};
use super::{builtins, pg_types as types, user_types};
use crate::catalog::{Definition, Object};

/// A function as these tables list it.
pub(super) struct Routine<'a> {
    pub(super) oid: i64,
    pub(super) name: &'a str,
    /// `f` (function) or `a` (aggregate).
    pub(super) kind: char,
    pub(super) parameters: &'a [Parameter],
    pub(super) returns: &'a DataType,
    pub(super) strict: bool,
    pub(super) object: &'a Arc<Object>,
}

static OF_TYPES: LazyLock<Vec<(i64, &'static str)>> = LazyLock::new(|| {
    let lines = include_str!("type_functions.txt").lines().filter(|line| !line.starts_with('#'));
    let read =
        |line: &'static str| line.split_once(' ').and_then(|(oid, name)| Some((oid.parse().ok()?, name)));
    lines.filter_map(read).collect()
});

/// Fills a table. Returns false if this module has no rows for it.
pub(super) fn fill(facts: &Facts, table: &str, rows: &mut Rows) -> bool {
    match table {
        "pg_proc" => {
            OF_TYPES.iter().for_each(|(oid, name)| of_type(*oid, name, rows));
            builtins::fill(table, rows);
            all(facts).for_each(|routine| proc(&routine, rows));
        }
        "pg_aggregate" => all(facts).filter(|routine| routine.kind == 'a').for_each(|routine| {
            rows.push(&[("aggfnoid", routine.oid.into()), ("aggkind", 'n'.into())]);
        }),
        _ => return false,
    }
    true
}

/// Returns users' functions and aggregates.
pub(super) fn all(facts: &Facts) -> impl Iterator<Item = Routine<'_>> {
    facts.catalog.routines().filter_map(|object| {
        let oid = facts.catalog.oid(&object.name);
        Some(match &object.definition {
            Definition::Function(function) => Routine {
                oid,
                name: &function.name,
                kind: 'f',
                parameters: &function.parameters,
                returns: &function.returns,
                strict: function.strict,
                object,
            },
            Definition::Aggregate(aggregate) => Routine {
                oid,
                name: &aggregate.name,
                kind: 'a',
                parameters: &aggregate.parameters,
                returns: &aggregate.returns,
                strict: false,
                object,
            },
            _ => return None,
        })
    })
}

/// Returns the name of the function with this OID.
pub(super) fn name_of(facts: &Facts, oid: i64) -> Option<String> {
    let of_types = OF_TYPES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    let built_in = of_types.or_else(|| builtins::function_of(oid).map(|known| known.name));
    built_in
        .map(str::to_string)
        .or_else(|| all(facts).find(|routine| routine.oid == oid).map(|routine| routine.name.to_string()))
}

/// Returns the OIDs of the functions of a name: `upper`, or of a name with the types of arguments: `upper(text)`.
pub(super) fn named(facts: &Facts, written: &str) -> Vec<i64> {
    let (name, signature) = match written.split_once('(') {
        Some((name, types)) => match types.trim_end().strip_suffix(')') {
            Some(types) => (name, Some(signature(facts, types))),
            None => return Vec::new(),
        },
        None => (written, None),
    };
    let Some((schema, name)) = split_name(name.trim()) else { return Vec::new() };
    let fits = |arguments: &[i64]| match &signature {
        Some(types) => types.as_deref() == Some(arguments),
        None => true,
    };
    let mut found = Vec::new();
    if schema.as_deref().is_none_or(|schema| schema == PG_CATALOG) {
        found.extend(OF_TYPES.iter().filter(|(_, known)| *known == name).map(|(oid, _)| *oid));
        let built_in =
            builtins::functions().iter().filter(|known| known.name == name && fits(&known.arguments));
        found.extend(built_in.map(|known| known.oid));
    }
    if schema.as_deref().is_none_or(|schema| schema == PUBLIC) {
        let users = all(facts).filter(|routine| *routine.name == *name);
        let types = |routine: &Routine<'_>| -> Vec<i64> {
            routine.parameters.iter().map(|parameter| type_oid(&parameter.data_type)).collect()
        };
        found.extend(users.filter(|routine| fits(&types(routine))).map(|routine| routine.oid));
    }
    found
}

/// Returns the OIDs of types that are separated by commas, or none if one of them is unknown.
pub(super) fn signature(facts: &Facts, written: &str) -> Option<Vec<i64>> {
    let named = |name: &str| types::by_sql_name(name).or_else(|| user_types::oid_named(&facts.catalog, name));
    let names = written.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| if name.eq_ignore_ascii_case("none") { Some(0) } else { named(name) }).collect()
}

/// Returns the OID of a parameter's or result's type.
pub(super) fn type_oid(data_type: &DataType) -> i64 {
    types::type_of(&Field::new("", data_type.clone(), true)).0
}

/// Returns the parameter list of a function: `a integer, b text`.
pub(super) fn arguments(routine: &Routine<'_>) -> String {
    let argument = |parameter: &Parameter| {
        let name = types::format(type_oid(&parameter.data_type), None);
        match &parameter.name {
            Some(given) => format!("{} {name}", quote_ident(given)),
            None => name,
        }
    };
    routine.parameters.iter().map(argument).collect::<Vec<_>>().join(", ")
}

fn of_type(oid: i64, name: &'static str, rows: &mut Rows) {
    rows.push(&[
        ("oid", oid.into()),
        ("proname", name.into()),
        ("pronamespace", 11.into()),
        ("proowner", OWNER.into()),
        ("prolang", 12.into()),
        ("procost", 1.into()),
        ("prokind", 'f'.into()),
        ("proisstrict", true.into()),
        ("provolatile", 'i'.into()),
        ("proparallel", 's'.into()),
        ("prosrc", name.into()),
    ]);
}

fn proc(routine: &Routine<'_>, rows: &mut Rows) {
    let types: Vec<i64> = routine.parameters.iter().map(|parameter| type_oid(&parameter.data_type)).collect();
    let named = routine.parameters.iter().any(|parameter| parameter.name.is_some());
    let names = || {
        Value::Texts(
            routine.parameters.iter().map(|parameter| parameter.name.clone().unwrap_or_default()).collect(),
        )
    };
    let returns_rows =
        matches!(&routine.object.definition, Definition::Function(function) if function.returns_rows());
    let defaults = routine.parameters.iter().filter(|parameter| parameter.default.is_some()).count();
    rows.push(&[
        ("oid", routine.oid.into()),
        ("proname", routine.name.into()),
        ("pronamespace", 2200.into()),
        ("proowner", OWNER.into()),
        ("prolang", if routine.kind == 'a' { 12 } else { 14 }.into()),
        ("procost", 100.into()),
        ("prokind", routine.kind.into()),
        ("proisstrict", routine.strict.into()),
        ("proretset", returns_rows.into()),
        ("provolatile", 'i'.into()),
        ("proparallel", 's'.into()),
        ("pronargs", routine.parameters.len().into()),
        ("pronargdefaults", defaults.into()),
        ("prorettype", type_oid(routine.returns).into()),
        ("proargtypes", types.into()),
        ("proargnames", if named { names() } else { Value::Null }),
        ("prosrc", routine.object.ddl.as_str().into()),
    ]);
}
