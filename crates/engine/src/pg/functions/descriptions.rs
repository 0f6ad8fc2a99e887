//! Functions that describe objects: types, columns, keys, views, routines.

use millstream_sql::functions::quote_ident;
use millstream_sql::{Error, Result, qualified_ident};

use super::{Gives, Known, any_null, int, text};
use crate::pg::facts::{Facts, Listed, OWNER};
use crate::pg::rows::Value;
use crate::pg::{builtins, pg_types as types, routines, user_types};

pub(super) const FUNCTIONS: &[Known] = &[
    ("format_type", Gives::Text, format_type),
    ("pg_get_expr", Gives::Text, |_, arguments| Ok(text(arguments, 0).into())),
    ("pg_get_indexdef", Gives::Text, pg_get_indexdef),
    ("pg_get_constraintdef", Gives::Text, pg_get_constraintdef),
    ("pg_get_viewdef", Gives::Text, pg_get_viewdef),
    ("pg_get_ruledef", Gives::Text, none),
    ("pg_get_triggerdef", Gives::Text, none),
    ("pg_get_partkeydef", Gives::Text, none),
    ("pg_get_partition_constraintdef", Gives::Text, none),
    ("pg_get_statisticsobjdef", Gives::Text, none),
    ("pg_get_statisticsobjdef_columns", Gives::Text, none),
    ("pg_get_serial_sequence", Gives::Text, pg_get_serial_sequence),
    ("pg_get_functiondef", Gives::Text, |facts, arguments| {
        Ok(routine(facts, arguments, |routine| routine.object.ddl.clone()))
    }),
    ("pg_get_function_arguments", Gives::Text, function_arguments),
    ("pg_get_function_identity_arguments", Gives::Text, function_arguments),
    ("pg_get_function_result", Gives::Text, |facts, arguments| {
        Ok(match int(arguments, 0).and_then(builtins::function_of) {
            Some(known) => known.result_type().into(),
            None => {
                routine(facts, arguments, |routine| types::format(routines::type_oid(routine.returns), None))
            }
        })
    }),
    ("pg_get_function_arg_default", Gives::Text, none),
    ("pg_get_function_sqlbody", Gives::Text, none),
    ("obj_description", Gives::Text, obj_description),
    ("col_description", Gives::Text, col_description),
    ("shobj_description", Gives::Text, none),
    ("pg_table_is_visible", Gives::Bool, pg_table_is_visible),
    ("pg_type_is_visible", Gives::Bool, pg_type_is_visible),
    ("pg_function_is_visible", Gives::Bool, visible),
    ("pg_operator_is_visible", Gives::Bool, visible),
    ("pg_opclass_is_visible", Gives::Bool, visible),
    ("pg_opfamily_is_visible", Gives::Bool, visible),
    ("pg_collation_is_visible", Gives::Bool, visible),
    ("pg_conversion_is_visible", Gives::Bool, visible),
    ("pg_statistics_obj_is_visible", Gives::Bool, visible),
    ("pg_ts_config_is_visible", Gives::Bool, visible),
    ("pg_ts_dict_is_visible", Gives::Bool, visible),
    ("pg_ts_parser_is_visible", Gives::Bool, visible),
    ("pg_ts_template_is_visible", Gives::Bool, visible),
    ("pg_relation_is_publishable", Gives::Bool, |_, arguments| Ok(unless_null(arguments, false))),
    ("pg_relation_is_updatable", Gives::Int, |facts, arguments| {
        let writable = int(arguments, 0).and_then(|oid| facts.relation(oid));
        Ok(writable.map(|relation| if relation.kind == 'r' && !relation.is_system() { 28 } else { 0 }).into())
    }),
    ("pg_relation_filenode", Gives::Int, |_, arguments| Ok(int(arguments, 0).into())),
    ("pg_relation_size", Gives::Int, none),
    ("pg_table_size", Gives::Int, none),
    ("pg_indexes_size", Gives::Int, none),
    ("pg_total_relation_size", Gives::Int, none),
    ("pg_database_size", Gives::Int, none),
    ("pg_tablespace_size", Gives::Int, none),
    ("pg_tablespace_location", Gives::Text, |_, arguments| Ok(unless_null(arguments, ""))),
    ("pg_size_pretty", Gives::Text, |_, arguments| Ok(int(arguments, 0).map(size).into())),
    ("pg_get_userbyid", Gives::Text, |facts, arguments| {
        Ok(int(arguments, 0)
            .map(|oid| match oid {
                OWNER => facts.variables().user,
                other => format!("unknown (OID={other})"),
            })
            .into())
    }),
    ("pg_encoding_to_char", Gives::Text, |_, arguments| {
        Ok(int(arguments, 0).map(|encoding| if encoding == 6 { "UTF8" } else { "" }).into())
    }),
    ("pg_char_to_encoding", Gives::Int, |_, arguments| {
        Ok(text(arguments, 0).map(|name| if name.eq_ignore_ascii_case("utf8") { 6 } else { -1 }).into())
    }),
];

fn none(_: &Facts, _: &[Value]) -> Result<Value> {
    Ok(Value::Null)
}

fn unless_null(arguments: &[Value], answer: impl Into<Value>) -> Value {
    if any_null(arguments) { Value::Null } else { answer.into() }
}

/// Returns true for objects that only PostgreSQL's schema has. OID 0 is none.
fn visible(_: &Facts, arguments: &[Value]) -> Result<Value> {
    Ok(int(arguments, 0).filter(|oid| *oid != 0).map(|_| true).into())
}

pub(super) fn format_type(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let Some(oid) = int(arguments, 0) else { return Ok(Value::Null) };
    if oid == 0 {
        return Ok("-".into());
    }
    let known = types::format(oid, int(arguments, 1));
    let rows_of = |oid: i64| facts.relation(oid).map(|relation| facts.name_of(relation));
    Ok(match known.as_str() {
        "???" if let Some(name) = user_types::name_of(&facts.catalog, oid) => name.into(),
        "???" => match (rows_of(oid - 1), rows_of(oid - 2)) {
            (Some(name), _) => name.into(),
            (None, Some(name)) => format!("{name}[]").into(),
            (None, None) => known.into(),
        },
        _ => known.into(),
    })
}

/// Returns the definition of an index, or the name of one of its columns.
fn pg_get_indexdef(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let Some((relation, index)) = int(arguments, 0).and_then(|oid| facts.index(oid)) else {
        return Ok(Value::Null);
    };
    Ok(match int(arguments, 1) {
        None | Some(0) => index.definition(relation).into(),
        Some(number) => {
            let place = usize::try_from(number - 1).ok().and_then(|number| index.columns.get(number));
            place.map(|place| quote_ident(&relation.columns[*place].name)).into()
        }
    })
}

fn pg_get_constraintdef(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    Ok(int(arguments, 0).and_then(|oid| facts.constraint(oid)).into())
}

fn pg_get_viewdef(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    Ok(relation(facts, arguments).and_then(Listed::query).into())
}

/// Returns the relation that the first argument identifies by OID or name.
fn relation<'a>(facts: &'a Facts, arguments: &[Value]) -> Option<&'a Listed> {
    match int(arguments, 0) {
        Some(oid) => facts.relation(oid),
        None => facts.relation_named(text(arguments, 0)?),
    }
}

fn routine(facts: &Facts, arguments: &[Value], say: impl Fn(&routines::Routine<'_>) -> String) -> Value {
    let Some(oid) = int(arguments, 0) else { return Value::Null };
    routines::all(facts).find(|routine| routine.oid == oid).map(|routine| say(&routine)).into()
}

fn function_arguments(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    Ok(match int(arguments, 0).and_then(builtins::function_of) {
        Some(known) => known.argument_types().into(),
        None => routine(facts, arguments, routines::arguments),
    })
}

fn obj_description(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let of_relation = text(arguments, 1).is_none_or(|catalog| catalog == "pg_class");
    let relation = int(arguments, 0).filter(|_| of_relation).and_then(|oid| facts.relation(oid));
    Ok(relation.and_then(|relation| relation.doc.as_deref()).into())
}

fn col_description(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let relation = int(arguments, 0).and_then(|oid| facts.relation(oid));
    let place = int(arguments, 1).and_then(|number| usize::try_from(number - 1).ok());
    let column = relation.zip(place).and_then(|(relation, place)| relation.columns.get(place));
    Ok(column.and_then(|column| column.doc.as_deref()).into())
}

/// Returns the sequence that numbers a column, in SQL's spelling.
fn pg_get_serial_sequence(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let (Some(table), Some(column)) = (text(arguments, 0), text(arguments, 1)) else {
        return Ok(Value::Null);
    };
    let Some(relation) = facts.relation_named(table) else {
        return Err(Error::invalid(format!("relation \"{table}\" does not exist")));
    };
    let Some(column) = relation.columns.iter().find(|known| known.name == column) else {
        return Err(Error::invalid(format!("column \"{column}\" of relation \"{table}\" does not exist")));
    };
    let default = column.default.as_deref().and_then(|default| default.strip_prefix("nextval('"));
    let sequence = default.and_then(|default| default.strip_suffix("')"));
    Ok(sequence.map(|name| qualified_ident(&name.replace("''", "'"))).into())
}

/// Returns true if the relation is found without a schema.
fn pg_table_is_visible(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let Some(oid) = int(arguments, 0) else { return Ok(Value::Null) };
    let relation = facts.relation(oid).or_else(|| Some(facts.index(oid)?.0));
    Ok(relation.map(|relation| facts.is_visible(relation)).into())
}

fn pg_type_is_visible(facts: &Facts, arguments: &[Value]) -> Result<Value> {
    let Some(oid) = int(arguments, 0) else { return Ok(Value::Null) };
    let rows_of = facts.relation(oid - 1).or_else(|| facts.relation(oid - 2));
    let visible = rows_of.is_none_or(|relation| facts.is_visible(relation));
    Ok((types::of(oid).is_some() || visible).into())
}

/// Formats a number of bytes as PostgreSQL's `pg_size_pretty` does.
fn size(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        if size.abs() < 10 * 1024 || unit == "TB" {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1024;
    }
    format!("{size} PB")
}
