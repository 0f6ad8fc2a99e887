//! Functions that describe objects by the OIDs of their catalogs and of themselves, and find these OIDs by names.

use millstream_sql::functions::quote_ident;
use millstream_sql::{Error, PG_CATALOG, PUBLIC, Result};

use super::descriptions::format_type;
use super::{Gives, Known, int, text};
use crate::pg::facts::{DATABASE, Facts, Listed, OWNER};
use crate::pg::rows::Value;
use crate::pg::{builtins, pg_types as types, routines, user_types};

pub(super) const FUNCTIONS: &[Known] = &[
    ("pg_describe_object", Gives::Text, |facts, arguments| {
        Ok(found(facts, arguments)?.map(|object| object.described).into())
    }),
    ("pg_object_field", Gives::Text, pg_object_field),
    ("pg_object_names", Gives::Texts, |facts, arguments| {
        Ok(found(facts, arguments)?.map_or(Value::Null, |object| Value::Texts(object.names)))
    }),
    ("pg_object_arguments", Gives::Texts, |facts, arguments| {
        Ok(found(facts, arguments)?.map_or(Value::Null, |object| Value::Texts(object.arguments)))
    }),
    ("pg_object_address", Gives::Int, pg_object_address),
];

/// The OIDs of the catalogs with such objects.
const PG_TYPE: i64 = 1247;
const PG_PROC: i64 = 1255;
const PG_CLASS: i64 = 1259;
const PG_AUTHID: i64 = 1260;
const PG_DATABASE: i64 = 1262;
const PG_NAMESPACE: i64 = 2615;
const PG_OPERATOR: i64 = 2617;

/// An object's description.
#[derive(Debug, Default)]
struct Described {
    /// The kind of object: `table column`.
    kind: String,
    schema: Option<String>,
    /// The name, if the schema has only one object of it.
    name: Option<String>,
    /// The name with its schema, as a statement has to spell it.
    identity: String,
    /// The names that find the object together with `arguments`, from the outermost.
    names: Vec<String>,
    /// The types of arguments or operands.
    arguments: Vec<String>,
    /// The description: `column a of table t`.
    described: String,
}

/// Describes the object that three arguments identify: the OID of its catalog, its OID, and the number of a column or 0.
fn found(facts: &Facts, arguments: &[Value]) -> Result<Option<Described>> {
    let (Some(catalog), Some(oid), Some(part)) = (int(arguments, 0), int(arguments, 1), int(arguments, 2))
    else {
        return Ok(None);
    };
    Ok(match catalog {
        PG_TYPE => of_type(facts, oid)?,
        PG_CLASS => relation(facts, oid, part),
        PG_PROC => function(facts, oid),
        PG_OPERATOR => builtins::operator_of(oid).map(|known| {
            let arguments: Vec<String> = known.operands.iter().map(|oid| qualified(facts, *oid)).collect();
            let identity = format!("{PG_CATALOG}.{}({})", known.name, arguments.join(","));
            Described {
                kind: "operator".into(),
                schema: Some(PG_CATALOG.into()),
                identity,
                names: vec![PG_CATALOG.into(), known.name.into()],
                arguments,
                described: format!("operator {}", known.signature()),
                ..Described::default()
            }
        }),
        PG_NAMESPACE => {
            let schema = facts.namespaces().into_iter().find(|(known, _)| *known == oid);
            schema.map(|(_, name)| alone("schema", name))
        }
        PG_AUTHID => (oid == OWNER).then(|| alone("role", facts.variables().user)),
        PG_DATABASE => (oid == DATABASE).then(|| alone("database", facts.variables().database)),
        other => return Err(Error::invalid(format!("unrecognized object class: {other}"))),
    })
}

/// Describes an object outside schemas.
fn alone(kind: &str, name: String) -> Described {
    let quoted = quote_ident(&name);
    Described {
        kind: kind.into(),
        described: format!("{kind} {quoted}"),
        identity: quoted,
        names: vec![name.clone()],
        name: Some(name),
        ..Described::default()
    }
}

fn of_type(facts: &Facts, oid: i64) -> Result<Option<Described>> {
    let Value::Text(shown) = format_type(facts, &[oid.into(), Value::Null])? else { return Ok(None) };
    let place = user_types::place_of(&facts.catalog, oid);
    let place = place.or_else(|| types::of(oid).map(|known| (PG_CATALOG.into(), known.name.into())));
    let identity = qualified(facts, oid);
    Ok(place.map(|(schema, name)| Described {
        kind: "type".into(),
        schema: Some(schema),
        name: Some(name),
        names: vec![identity.clone()],
        identity,
        described: format!("type {shown}"),
        ..Described::default()
    }))
}

/// Returns the name of a type with its schema. SQL's own names, such as `integer`, have none.
fn qualified(facts: &Facts, oid: i64) -> String {
    if let Some((schema, name)) = user_types::place_of(&facts.catalog, oid) {
        return format!("{}.{}", quote_ident(&schema), quote_ident(&name));
    }
    let shown = types::format(oid, None);
    let is_plain = types::named(shown.trim_end_matches("[]")).is_some();
    if is_plain || shown.starts_with('"') { format!("{PG_CATALOG}.{shown}") } else { shown }
}

fn function(facts: &Facts, oid: i64) -> Option<Described> {
    let user = routines::all(facts).find(|routine| routine.oid == oid);
    let (schema, name, kind, arguments): (&str, &str, char, Vec<i64>) = match &user {
        Some(user) => {
            let types = user.parameters.iter().map(|parameter| routines::type_oid(&parameter.data_type));
            (PUBLIC, user.name, user.kind, types.collect())
        }
        None => {
            let known = builtins::function_of(oid)?;
            (PG_CATALOG, known.name, known.kind, known.arguments.clone())
        }
    };
    let shown: Vec<String> = arguments.iter().map(|oid| types::format(*oid, None)).collect();
    let arguments: Vec<String> = arguments.iter().map(|oid| qualified(facts, *oid)).collect();
    let quoted = quote_ident(name);
    Some(Described {
        kind: if kind == 'a' { "aggregate" } else { "function" }.into(),
        schema: Some(schema.into()),
        name: None,
        identity: format!("{schema}.{quoted}({})", arguments.join(",")),
        names: vec![schema.into(), name.into()],
        arguments,
        described: format!("function {quoted}({})", shown.join(",")),
    })
}

fn kind_of(relation: &Listed) -> &'static str {
    match relation.kind {
        'v' => "view",
        'm' => "materialized view",
        'S' => "sequence",
        'f' => "foreign table",
        _ => "table",
    }
}

/// Describes a relation, one of its columns, or an index.
fn relation(facts: &Facts, oid: i64, part: i64) -> Option<Described> {
    if let Some((relation, index)) = facts.index(oid) {
        let quoted = quote_ident(&index.name);
        return Some(Described {
            kind: "index".into(),
            schema: Some(relation.schema.clone()),
            name: Some(index.name.clone()),
            identity: format!("{}.{quoted}", quote_ident(&relation.schema)),
            names: vec![relation.schema.clone(), index.name.clone()],
            described: format!("index {quoted}"),
            ..Described::default()
        });
    }
    let relation = facts.relation(oid)?;
    let whole = Described {
        kind: kind_of(relation).into(),
        schema: Some(relation.schema.clone()),
        name: Some(relation.name.clone()),
        identity: format!("{}.{}", quote_ident(&relation.schema), quote_ident(&relation.name)),
        names: vec![relation.schema.clone(), relation.name.clone()],
        arguments: Vec::new(),
        described: format!("{} {}", kind_of(relation), facts.name_of(relation)),
    };
    if part == 0 {
        return Some(whole);
    }
    let column = usize::try_from(part - 1).ok().and_then(|place| relation.columns.get(place))?;
    let quoted = quote_ident(&column.name);
    let mut names = whole.names;
    names.push(column.name.clone());
    Some(Described {
        kind: format!("{} column", whole.kind),
        schema: whole.schema,
        name: None,
        identity: format!("{}.{quoted}", whole.identity),
        names,
        arguments: Vec::new(),
        described: format!("column {quoted} of {}", whole.described),
    })
}

/// Returns a field of `pg_identify_object`, which the fourth argument names.
fn pg_object_field(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let found = found(facts, arguments)?;
    Ok(match (found, text(arguments, 3)) {
        (Some(object), Some("type")) => object.kind.into(),
        (Some(object), Some("schema")) => object.schema.into(),
        (Some(object), Some("name")) => object.name.into(),
        (Some(object), Some("identity")) => object.identity.into(),
        _ => Value::Null,
    })
}

/// Returns a field of `pg_get_object_address`, which the fourth argument names: `classid`, `objid` or `objsubid`.
fn pg_object_address(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let (Some(kind), Some(Value::Texts(names)), Some(Value::Texts(types))) =
        (text(arguments, 0), arguments.get(1), arguments.get(2))
    else {
        return Ok(Value::Null);
    };
    let (catalog, oid, part) = address(facts, kind, names, types)?;
    Ok(match text(arguments, 3) {
        Some("classid") => catalog.into(),
        Some("objid") => oid.into(),
        _ => part.into(),
    })
}

fn address(facts: &Facts, kind: &str, names: &[String], types: &[String]) -> Result<(i64, i64, i64)> {
    let dotted = |names: &[String]| names.iter().map(|name| quote_ident(name)).collect::<Vec<_>>().join(".");
    let missing = |what: &str, name: String| Error::invalid(format!("{what} \"{name}\" does not exist"));
    let joined = names.join(".");
    let signature = format!("{}({})", dotted(names), types.join(","));
    let whole = |catalog: i64, oid: i64| Ok((catalog, oid, 0));
    match kind {
        "type" | "domain" => {
            let found =
                types::by_sql_name(&joined).or_else(|| user_types::oid_named(&facts.catalog, &joined));
            whole(PG_TYPE, found.ok_or_else(|| missing("type", joined))?)
        }
        "schema" => {
            whole(PG_NAMESPACE, facts.namespace_oid(&joined).ok_or_else(|| missing("schema", joined))?)
        }
        "role" if facts.variables().user == joined => whole(PG_AUTHID, OWNER),
        "role" => Err(missing("role", joined)),
        "database" if facts.variables().database == joined => whole(PG_DATABASE, DATABASE),
        "database" => Err(missing("database", joined)),
        "function" | "aggregate" | "routine" => match routines::named(facts, &signature)[..] {
            [oid] => whole(PG_PROC, oid),
            _ => Err(Error::invalid(format!("function {}({}) does not exist", joined, types.join(",")))),
        },
        "operator" => {
            match super::registered::operators(facts, &format!("{joined}({})", types.join(",")))[..] {
                [oid] => whole(PG_OPERATOR, oid),
                _ => Err(Error::invalid(format!("operator {}({}) does not exist", joined, types.join(",")))),
            }
        }
        "index" => {
            let name = names.last().map_or("", String::as_str);
            let mut indexes = facts.relations().iter().flat_map(|relation| &relation.indexes);
            let found = indexes.find(|index| index.name == name).map(|index| index.oid);
            whole(PG_CLASS, found.ok_or_else(|| missing("relation", joined))?)
        }
        _ => {
            let (of, column) = match (kind.strip_suffix(" column"), names) {
                (Some(of), [table @ .., column]) => (of, Some((table, column))),
                (Some(of), []) => (of, None),
                (None, _) => (kind, None),
            };
            if !["table", "view", "materialized view", "foreign table", "sequence"].contains(&of) {
                return Err(Error::invalid(format!("unrecognized object type \"{kind}\"")));
            }
            let names = column.map_or(names, |(table, _)| table);
            let joined = names.join(".");
            let relation =
                facts.relation_named(&dotted(names)).ok_or_else(|| missing("relation", joined.clone()))?;
            if kind_of(relation) != of {
                return Err(Error::invalid(format!("\"{joined}\" is not a {of}"))
                    .hint(format!("It is a {}.", kind_of(relation))));
            }
            let Some((_, column)) = column else { return whole(PG_CLASS, relation.oid) };
            let place = relation.columns.iter().position(|known| known.name == *column);
            let place = place.ok_or_else(|| {
                Error::invalid(format!("column \"{column}\" of relation \"{joined}\" does not exist"))
            })?;
            Ok((PG_CLASS, relation.oid, place as i64 + 1))
        }
    }
}
