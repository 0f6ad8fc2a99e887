//! Conversions between names and OIDs of objects: `regclass` and similar types.

use millstream_sql::functions::quote_ident;
use millstream_sql::{Error, Result};

use super::{Gives, Known, int, text};
use crate::pg::facts::{Facts, OWNER, split_name};
use crate::pg::rows::Value;
use crate::pg::{builtins, pg_types as types, routines, user_types};

/// The collations, all with one order, and their OIDs.
const COLLATIONS: [(&str, i64); 3] = [("default", 100), ("C", 950), ("POSIX", 951)];

pub(super) const FUNCTIONS: &[Known] = &[
    ("regclass", Gives::Int, |facts, arguments| number(arguments, "relation", |name| class(facts, name))),
    ("regtype", Gives::Int, |facts, arguments| number(arguments, "type", |name| type_named(facts, name))),
    ("regproc", Gives::Int, function),
    ("regprocedure", Gives::Int, function),
    ("regnamespace", Gives::Int, |facts, arguments| number(arguments, "schema", |name| schema(facts, name))),
    ("regrole", Gives::Int, |facts, arguments| number(arguments, "role", |name| role(facts, name))),
    ("regoper", Gives::Int, |facts, arguments| {
        number(arguments, "operator", |name| only(operators(facts, name)))
    }),
    ("regoperator", Gives::Int, |facts, arguments| {
        number(arguments, "operator", |name| only(operators(facts, name)))
    }),
    ("regcollation", Gives::Int, |_, arguments| number(arguments, "collation", collation)),
    ("to_regclass", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| class(facts, name)).into())
    }),
    ("to_regtype", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| type_named(facts, name)).into())
    }),
    ("to_regproc", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| only(routines::named(facts, name))).into())
    }),
    ("to_regprocedure", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| only(routines::named(facts, name))).into())
    }),
    ("to_regoper", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| only(operators(facts, name))).into())
    }),
    ("to_regoperator", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| only(operators(facts, name))).into())
    }),
    ("to_regnamespace", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| schema(facts, name)).into())
    }),
    ("to_regrole", Gives::Int, |facts, arguments| {
        Ok(text(arguments, 0).and_then(|name| role(facts, name)).into())
    }),
    ("to_regcollation", Gives::Int, |_, arguments| Ok(text(arguments, 0).and_then(collation).into())),
    ("regclass_text", Gives::Text, |facts, arguments| {
        name(arguments, |oid| {
            let index = facts.index(oid).map(|(_, index)| quote_ident(&index.name));
            facts.relation(oid).map(|relation| facts.name_of(relation)).or(index)
        })
    }),
    ("regtype_text", Gives::Text, |facts, arguments| {
        name(arguments, |oid| match types::of(oid) {
            Some(_) => Some(types::format(oid, None)),
            None => user_types::name_of(&facts.catalog, oid)
                .or_else(|| facts.relation(oid - 1).map(|relation| facts.name_of(relation))),
        })
    }),
    ("regproc_text", Gives::Text, |facts, arguments| name(arguments, |oid| routines::name_of(facts, oid))),
    ("regprocedure_text", Gives::Text, |facts, arguments| {
        name(arguments, |oid| {
            let users = routines::all(facts).find(|routine| routine.oid == oid);
            users
                .map(|routine| format!("{}({})", routine.name, routines::arguments(&routine)))
                .or_else(|| builtins::function_of(oid).map(builtins::BuiltIn::signature))
                .or_else(|| routines::name_of(facts, oid))
        })
    }),
    ("regnamespace_text", Gives::Text, |facts, arguments| {
        name(arguments, |oid| {
            let found = facts.namespaces().into_iter().find(|(known, _)| *known == oid);
            found.map(|(_, name)| quote_ident(&name))
        })
    }),
    ("regrole_text", Gives::Text, |facts, arguments| {
        name(arguments, |oid| (oid == OWNER).then(|| facts.variables().user))
    }),
    ("regoper_text", Gives::Text, |_, arguments| {
        name(arguments, |oid| builtins::operator_of(oid).map(|known| known.name.to_string()))
    }),
    ("regoperator_text", Gives::Text, |_, arguments| {
        name(arguments, |oid| builtins::operator_of(oid).map(builtins::Operator::signature))
    }),
    ("regcollation_text", Gives::Text, |_, arguments| {
        name(arguments, |oid| {
            COLLATIONS.iter().find(|(_, known)| *known == oid).map(|(name, _)| quote_ident(name))
        })
    }),
];

/// Returns the OID of a named object; a number is returned as it is.
fn number(arguments: &[Value], kind: &str, find: impl Fn(&str) -> Option<i64>) -> Result<Value> {
    if let Some(oid) = int(arguments, 0) {
        return Ok(oid.into());
    }
    let Some(name) = text(arguments, 0) else { return Ok(Value::Null) };
    match find(name) {
        Some(oid) => Ok(oid.into()),
        None if name == "-" => Ok(0.into()),
        None => Err(Error::invalid(format!("{kind} \"{name}\" not found"))),
    }
}

/// Returns the OID of a function of a name, or of a name and the types of its arguments.
fn function(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    if let (Some(name), None) = (text(arguments, 0), int(arguments, 0)) {
        let found = routines::named(facts, name);
        if found.len() > 1 {
            let example = builtins::function_of(found[0]).map(builtins::BuiltIn::signature);
            let example = example.map_or(String::new(), |known| format!(", such as '{known}'::regprocedure"));
            return Err(Error::invalid(format!("more than one function named \"{name}\""))
                .hint(format!("Add the types of its arguments{example}.")));
        }
    }
    number(arguments, "function", |name| only(routines::named(facts, name)))
}

/// Returns the OIDs of the operators of a name: `+`, or of a name with the types of operands: `+(int4,int4)`.
pub(super) fn operators(facts: &Facts, written: &str) -> Vec<i64> {
    let written = written.trim().trim_start_matches("pg_catalog.");
    let (name, operands) = match written.split_once('(') {
        Some((name, types)) => {
            let types = types.trim_end().trim_end_matches(')');
            (name.trim(), Some(routines::signature(facts, types).unwrap_or_default()))
        }
        None => (written, None),
    };
    let found = builtins::operators().iter().filter(|known| known.name == name);
    let found = found.filter(|known| operands.as_ref().is_none_or(|types| *types == known.operands));
    found.map(|known| known.oid).collect()
}

/// Returns the OID if there is one only.
fn only(found: Vec<i64>) -> Option<i64> {
    <[i64; 1]>::try_from(found).ok().map(|[oid]| oid)
}

/// Returns the name of the object with an OID, or the number if there is none.
fn name(arguments: &[Value], find: impl Fn(i64) -> Option<String>) -> Result<Value> {
    let Some(oid) = int(arguments, 0) else { return Ok(text(arguments, 0).into()) };
    Ok(match oid {
        0 => "-".into(),
        oid => find(oid).unwrap_or_else(|| oid.to_string()).into(),
    })
}

fn class(facts: &Facts, name: &str) -> Option<i64> {
    facts.relation_named(name).map(|relation| relation.oid).or_else(|| {
        let (_, index) = crate::pg::facts::split_name(name)?;
        let mut indexes = facts.relations().iter().flat_map(|relation| &relation.indexes);
        indexes.find(|of| of.name == index).map(|index| index.oid)
    })
}

fn type_named(facts: &Facts, name: &str) -> Option<i64> {
    let rows_of = || facts.relation_named(name).map(|relation| relation.row_type()).filter(|oid| *oid != 0);
    types::by_sql_name(name).or_else(|| user_types::oid_named(&facts.catalog, name)).or_else(rows_of)
}

fn role(facts: &Facts, name: &str) -> Option<i64> {
    (facts.variables().user == name.trim_matches('"')).then_some(OWNER)
}

/// Returns the OID of a schema by its name in SQL's spelling.
fn schema(facts: &Facts, written: &str) -> Option<i64> {
    facts.namespace_oid(&split_name(written).filter(|(schema, _)| schema.is_none())?.1)
}

fn collation(name: &str) -> Option<i64> {
    let name = name.trim_start_matches("pg_catalog.").trim_matches('"');
    COLLATIONS.iter().find(|(known, _)| *known == name).map(|(_, oid)| *oid)
}
