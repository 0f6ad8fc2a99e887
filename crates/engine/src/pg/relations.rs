//! The relations in PostgreSQL's catalog: their columns, keys and rules.

use super::constraints;
use super::facts::{Facts, Listed, OWNER};
use super::pg_types as types;
use super::rows::{Rows, Value};
use super::user_types;
use crate::catalog::Definition;
use crate::temporary::is_temporary;

/// The OID of `pg_class`.
const CLASS: i64 = 1259;
/// The access method of key indexes.
const BTREE: i64 = 403;
/// The OID of the server of sources, which foreign tables need.
const SERVER: i64 = 15_900;
/// The OID of the foreign data wrapper.
const WRAPPER: i64 = 15_901;

/// Fills a table. Returns false if this module has no rows for it.
pub(super) fn fill(facts: &Facts, table: &str, rows: &mut Rows) -> bool {
    let all = facts.relations().iter();
    match table {
        "pg_class" => all.for_each(|relation| class(relation, rows)),
        "pg_attribute" => all.for_each(|relation| attributes(relation, rows)),
        "pg_attrdef" => all.for_each(|relation| defaults(relation, rows)),
        "pg_type" => pg_type(facts, rows),
        "pg_enum" => user_types::labels(facts, rows),
        "pg_namespace" => facts.namespaces().iter().for_each(|(oid, name)| {
            rows.push(&[
                ("oid", (*oid).into()),
                ("nspname", name.as_str().into()),
                ("nspowner", OWNER.into()),
            ]);
        }),
        "pg_index" => all.for_each(|relation| constraints::pg_index(relation, rows)),
        "pg_indexes" => all.for_each(|relation| constraints::pg_indexes(relation, rows)),
        "pg_constraint" => all.for_each(|relation| constraints::pg_constraint(relation, rows)),
        "pg_rewrite" => all.filter(|relation| is_query(relation)).for_each(|relation| {
            rows.push(&[
                ("oid", relation.rule().into()),
                ("rulename", "_RETURN".into()),
                ("ev_class", relation.oid.into()),
                ("ev_type", '1'.into()),
                ("ev_enabled", 'O'.into()),
                ("is_instead", true.into()),
            ]);
        }),
        "pg_depend" => all.for_each(|relation| dependencies(facts, relation, rows)),
        "pg_description" => all.for_each(|relation| descriptions(relation, rows)),
        _ => return listings(facts, table, rows),
    }
    true
}

/// Fills a table of sources, or one of the views that list relations.
fn listings(facts: &Facts, table: &str, rows: &mut Rows) -> bool {
    let all = facts.relations().iter();
    match table {
        "pg_foreign_table" => sources(facts).for_each(|relation| {
            rows.push(&[
                ("ftrelid", relation.oid.into()),
                ("ftserver", SERVER.into()),
                ("ftoptions", Value::Texts(connector(relation))),
            ]);
        }),
        "pg_foreign_server" => rows.push(&[
            ("oid", SERVER.into()),
            ("srvname", "outside".into()),
            ("srvowner", OWNER.into()),
            ("srvfdw", WRAPPER.into()),
        ]),
        "pg_foreign_data_wrapper" => rows.push(&[
            ("oid", WRAPPER.into()),
            ("fdwname", "connectors".into()),
            ("fdwowner", OWNER.into()),
        ]),
        "pg_tables" => all.filter(|relation| relation.kind == 'r').for_each(|relation| {
            let mut cells = named(relation, "tablename", "tableowner", facts);
            cells.push(("hasindexes", (!relation.indexes.is_empty()).into()));
            rows.push(&cells);
        }),
        "pg_views" => all.filter(|relation| relation.kind == 'v').for_each(|relation| {
            let mut cells = named(relation, "viewname", "viewowner", facts);
            cells.push(("definition", relation.query().into()));
            rows.push(&cells);
        }),
        "pg_matviews" => all.filter(|relation| relation.kind == 'm').for_each(|relation| {
            let mut cells = named(relation, "matviewname", "matviewowner", facts);
            cells.push(("ispopulated", true.into()));
            cells.push(("definition", relation.query().into()));
            rows.push(&cells);
        }),
        "pg_stat_all_tables" | "pg_statio_all_tables" => {
            all.filter(|relation| is_stored(relation)).for_each(|relation| statistics(relation, rows));
        }
        "pg_stat_user_tables" | "pg_statio_user_tables" => {
            let users = all.filter(|relation| is_stored(relation) && !relation.is_system());
            users.for_each(|relation| statistics(relation, rows));
        }
        "pg_stat_sys_tables" | "pg_statio_sys_tables" => {
            let system = all.filter(|relation| is_stored(relation) && relation.is_system());
            system.for_each(|relation| statistics(relation, rows));
        }
        _ => return false,
    }
    true
}

fn sources(facts: &Facts) -> impl Iterator<Item = &Listed> {
    facts.relations().iter().filter(|relation| relation.kind == 'f')
}

fn is_query(relation: &Listed) -> bool {
    matches!(relation.kind, 'v' | 'm')
}

fn is_stored(relation: &Listed) -> bool {
    matches!(relation.kind, 'r' | 'm')
}

type Cells = Vec<(&'static str, Value)>;

fn named(relation: &Listed, name: &'static str, owner: &'static str, facts: &Facts) -> Cells {
    vec![
        ("schemaname", relation.schema.as_str().into()),
        (name, relation.name.as_str().into()),
        (owner, facts.variables().user.into()),
    ]
}

fn class(relation: &Listed, rows: &mut Rows) {
    rows.push(&[
        ("oid", relation.oid.into()),
        ("relname", relation.name.as_str().into()),
        ("relnamespace", relation.namespace.into()),
        ("reltype", relation.row_type().into()),
        ("relowner", OWNER.into()),
        ("relam", if is_stored(relation) { 2 } else { 0 }.into()),
        ("relfilenode", if is_stored(relation) { relation.oid } else { 0 }.into()),
        ("reltuples", (-1).into()),
        ("relhasindex", (!relation.indexes.is_empty()).into()),
        ("relchecks", relation.checks.len().into()),
        ("relpersistence", if is_temporary(&relation.schema) { 't' } else { 'p' }.into()),
        ("relkind", relation.kind.into()),
        ("relnatts", relation.columns.len().into()),
        ("relhasrules", (relation.kind == 'v').into()),
        ("relispopulated", true.into()),
        ("relreplident", if relation.is_system() { 'n' } else { 'd' }.into()),
    ]);
    for index in &relation.indexes {
        rows.push(&[
            ("oid", index.oid.into()),
            ("relname", index.name.as_str().into()),
            ("relnamespace", relation.namespace.into()),
            ("relowner", OWNER.into()),
            ("relam", BTREE.into()),
            ("relfilenode", index.oid.into()),
            ("reltuples", (-1).into()),
            ("relpersistence", 'p'.into()),
            ("relkind", 'i'.into()),
            ("relnatts", index.columns.len().into()),
            ("relispopulated", true.into()),
            ("relreplident", 'n'.into()),
        ]);
    }
}

fn attributes(relation: &Listed, rows: &mut Rows) {
    for (place, column) in relation.columns.iter().enumerate() {
        attribute(relation.oid, place + 1, column, rows);
    }
    for index in &relation.indexes {
        for (place, column) in index.columns.iter().enumerate() {
            attribute(index.oid, place + 1, &relation.columns[*column], rows);
        }
    }
}

fn defaults(relation: &Listed, rows: &mut Rows) {
    for (place, column) in relation.columns.iter().enumerate() {
        let Some(default) = &column.default else { continue };
        rows.push(&[
            ("oid", relation.default(place).into()),
            ("adrelid", relation.oid.into()),
            ("adnum", (place + 1).into()),
            ("adbin", default.as_str().into()),
        ]);
    }
}

fn attribute(relation: i64, number: usize, column: &super::facts::ListedColumn, rows: &mut Rows) {
    let known = types::of(column.type_oid);
    let text = |name: &str| known.map_or("", |known| known.column(name));
    let count = |name: &str| known.map_or(0, |known| known.number(name));
    rows.push(&[
        ("attrelid", relation.into()),
        ("attname", column.name.as_str().into()),
        ("atttypid", column.type_oid.into()),
        ("attstattarget", (-1).into()),
        ("attlen", count("typlen").into()),
        ("attnum", number.into()),
        ("attndims", i64::from(text("typcategory") == "A").into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", column.modifier.into()),
        ("attbyval", (text("typbyval") == "t").into()),
        ("attalign", text("typalign").into()),
        ("attstorage", text("typstorage").into()),
        ("attnotnull", column.not_null.into()),
        ("atthasdef", column.default.is_some().into()),
        ("attgenerated", if column.is_generated { "s" } else { "" }.into()),
        ("attislocal", true.into()),
        ("attcollation", count("typcollation").into()),
    ]);
}

fn pg_type(facts: &Facts, rows: &mut Rows) {
    for known in types::all() {
        let mut cells: Cells = vec![
            ("oid", known.oid.into()),
            ("typname", known.name.into()),
            ("typnamespace", 11.into()),
            ("typowner", OWNER.into()),
            ("typisdefined", true.into()),
            ("typtypmod", (-1).into()),
        ];
        cells.extend(types::REST.iter().map(|name| {
            let written = known.column(name);
            let value = match (*name, written.parse::<i64>()) {
                ("typbyval" | "typispreferred", _) => Value::Bool(written == "t"),
                (_, Ok(number)) => Value::Int(number),
                _ => Value::from(written),
            };
            (*name, value)
        }));
        rows.push(&cells);
    }
    for relation in facts.relations().iter().filter(|relation| relation.row_type() != 0) {
        row_type(relation, rows);
    }
    user_types::types(facts, rows);
}

fn row_type(relation: &Listed, rows: &mut Rows) {
    let shared = |oid: i64, name: String| -> Cells {
        vec![
            ("oid", oid.into()),
            ("typname", name.into()),
            ("typnamespace", relation.namespace.into()),
            ("typowner", OWNER.into()),
            ("typlen", (-1).into()),
            ("typisdefined", true.into()),
            ("typdelim", ','.into()),
            ("typtypmod", (-1).into()),
            ("typalign", 'd'.into()),
            ("typstorage", 'x'.into()),
        ]
    };
    let mut row = shared(relation.row_type(), relation.name.clone());
    row.extend([
        ("typtype", 'c'.into()),
        ("typcategory", 'C'.into()),
        ("typrelid", relation.oid.into()),
        ("typarray", relation.array_type().into()),
        ("typinput", 2290.into()),
        ("typoutput", 2291.into()),
        ("typreceive", 2402.into()),
        ("typsend", 2403.into()),
    ]);
    rows.push(&row);
    let mut array = shared(relation.array_type(), format!("_{}", relation.name));
    array.extend([
        ("typtype", 'b'.into()),
        ("typcategory", 'A'.into()),
        ("typelem", relation.row_type().into()),
        ("typinput", 750.into()),
        ("typoutput", 751.into()),
        ("typreceive", 2400.into()),
        ("typsend", 2401.into()),
    ]);
    rows.push(&array);
}

/// Adds the dependencies of a view's rule on the relations it reads, and of indexes on their constraints.
fn dependencies(facts: &Facts, relation: &Listed, rows: &mut Rows) {
    for (index, constraint) in relation.indexes.iter().filter_map(|index| Some((index, index.constraint?))) {
        rows.push(&[
            ("classid", CLASS.into()),
            ("objid", index.oid.into()),
            ("refclassid", 2606.into()),
            ("refobjid", constraint.into()),
            ("deptype", 'i'.into()),
        ]);
    }
    let Some(object) = &relation.object else { return };
    if !is_query(relation) {
        return;
    }
    let rule = |refobjid: i64, deptype: char, rows: &mut Rows| {
        rows.push(&[
            ("classid", 2618.into()),
            ("objid", relation.rule().into()),
            ("refclassid", CLASS.into()),
            ("refobjid", refobjid.into()),
            ("deptype", deptype.into()),
        ]);
    };
    rule(relation.oid, 'i', rows);
    for read in object.reads.iter().filter(|read| facts.catalog.schemas().has_relation(read)) {
        rule(facts.catalog.oid(read), 'n', rows);
    }
}

fn descriptions(relation: &Listed, rows: &mut Rows) {
    let whole = relation.doc.as_deref().map(|doc| (0, doc));
    let columns = relation.columns.iter().enumerate();
    let columns = columns.filter_map(|(place, column)| Some((place as i64 + 1, column.doc.as_deref()?)));
    for (number, doc) in whole.into_iter().chain(columns) {
        rows.push(&[
            ("objoid", relation.oid.into()),
            ("classoid", CLASS.into()),
            ("objsubid", number.into()),
            ("description", doc.into()),
        ]);
    }
}

/// Returns the options of a source: its connector.
fn connector(relation: &Listed) -> Vec<String> {
    match relation.object.as_ref().map(|object| &object.definition) {
        Some(Definition::Source { connector, .. }) => vec![format!("connector={}", connector.name())],
        _ => Vec::new(),
    }
}

fn statistics(relation: &Listed, rows: &mut Rows) {
    rows.push(&[
        ("relid", relation.oid.into()),
        ("schemaname", relation.schema.as_str().into()),
        ("relname", relation.name.as_str().into()),
    ]);
}
