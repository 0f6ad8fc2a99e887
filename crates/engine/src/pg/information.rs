//! `information_schema`: the same facts in the terms of the SQL standard.

use super::facts::{Facts, Listed};
use super::rows::{Rows, Value};
use super::{constraints, pg_types as types, routines, user_types};

type Cells = Vec<(&'static str, Value)>;

/// Fills a table. Tables of features that don't exist here stay empty.
pub(super) fn fill(facts: &Facts, table: &str, rows: &mut Rows) {
    let variables = facts.variables();
    let (database, user) = (variables.database.as_str(), variables.user.as_str());
    let relations = facts.relations().iter();
    match table {
        "information_schema_catalog_name" => rows.push(&[("catalog_name", database.into())]),
        "enabled_roles" | "applicable_roles" => rows.push(&[("role_name", user.into())]),
        "schemata" => facts.namespaces().iter().for_each(|(_, name)| {
            rows.push(&[
                ("catalog_name", database.into()),
                ("schema_name", name.as_str().into()),
                ("schema_owner", user.into()),
            ]);
        }),
        "character_sets" => rows.push(&[
            ("character_set_name", "UTF8".into()),
            ("character_repertoire", "UCS".into()),
            ("form_of_use", "UTF8".into()),
            ("default_collate_catalog", database.into()),
            ("default_collate_schema", "pg_catalog".into()),
            ("default_collate_name", "C".into()),
        ]),
        "collations" => rows.push(&[
            ("collation_catalog", database.into()),
            ("collation_schema", "pg_catalog".into()),
            ("collation_name", "C".into()),
            ("pad_attribute", "NO PAD".into()),
        ]),
        "tables" => relations.for_each(|relation| tables(relation, database, rows)),
        "columns" => relations.for_each(|relation| columns(facts, relation, database, rows)),
        "views" => relations.filter(|relation| relation.kind == 'v').for_each(|relation| {
            let mut cells = names(relation, database);
            cells.extend([
                ("view_definition", relation.query().into()),
                ("check_option", "NONE".into()),
                ("is_updatable", "NO".into()),
                ("is_insertable_into", "NO".into()),
                ("is_trigger_updatable", "NO".into()),
                ("is_trigger_deletable", "NO".into()),
                ("is_trigger_insertable_into", "NO".into()),
            ]);
            rows.push(&cells);
        }),
        "sequences" => super::sequences::information(facts, database, rows),
        other => usage(facts, other, rows),
    }
}

/// Fills a table of keys, privileges and routines.
fn usage(facts: &Facts, table: &str, rows: &mut Rows) {
    let variables = facts.variables();
    let (database, user) = (variables.database.as_str(), variables.user.as_str());
    let relations = facts.relations().iter();
    match table {
        "view_table_usage" => view_usage(facts, database, rows),
        "table_constraints" | "key_column_usage" | "constraint_column_usage" | "constraint_table_usage" => {
            let keyed =
                relations.filter(|relation| !relation.indexes.is_empty() || !relation.checks.is_empty());
            keyed.for_each(|relation| constraints_of(relation, table, database, rows));
        }
        "check_constraints" => relations.for_each(|relation| {
            constraints::check_constraints(relation, database, rows);
        }),
        "foreign_tables" => relations.filter(|relation| relation.kind == 'f').for_each(|relation| {
            rows.push(&[
                ("foreign_table_catalog", database.into()),
                ("foreign_table_schema", relation.schema.as_str().into()),
                ("foreign_table_name", relation.name.as_str().into()),
                ("foreign_server_catalog", database.into()),
                ("foreign_server_name", "outside".into()),
            ]);
        }),
        "table_privileges" | "role_table_grants" => relations.for_each(|relation| {
            let all: &[&str] = match relation.kind {
                'r' if !relation.is_system() => &["SELECT", "INSERT", "UPDATE", "DELETE"],
                _ => &["SELECT"],
            };
            for privilege in all {
                let mut cells = names(relation, database);
                cells.extend([
                    ("grantor", user.into()),
                    ("grantee", user.into()),
                    ("privilege_type", (*privilege).into()),
                    ("is_grantable", "YES".into()),
                    ("with_hierarchy", "NO".into()),
                ]);
                rows.push(&cells);
            }
        }),
        "routines" => routines::all(facts).for_each(|routine| routine_row(&routine, database, rows)),
        "parameters" => routines::all(facts).for_each(|routine| parameters(&routine, database, rows)),
        _ => {}
    }
}

fn names(relation: &Listed, database: &str) -> Cells {
    vec![
        ("table_catalog", database.into()),
        ("table_schema", relation.schema.as_str().into()),
        ("table_name", relation.name.as_str().into()),
    ]
}

fn tables(relation: &Listed, database: &str, rows: &mut Rows) {
    let mut cells = names(relation, database);
    let kind = match relation.kind {
        'v' => "VIEW",
        // PostgreSQL omits these, but users who look for readable relations must find them.
        'm' => "MATERIALIZED VIEW",
        'f' => "FOREIGN",
        _ => "BASE TABLE",
    };
    let insertable = relation.kind == 'r' && !relation.is_system();
    cells.extend([
        ("table_type", kind.into()),
        ("is_insertable_into", yes_or_no(insertable)),
        ("is_typed", "NO".into()),
    ]);
    rows.push(&cells);
}

fn yes_or_no(yes: bool) -> Value {
    if yes { "YES" } else { "NO" }.into()
}

fn columns(facts: &Facts, relation: &Listed, database: &str, rows: &mut Rows) {
    let updatable = relation.kind == 'r' && !relation.is_system();
    for (place, column) in relation.columns.iter().enumerate() {
        let mut cells = names(relation, database);
        cells.extend([
            ("column_name", column.name.as_str().into()),
            ("ordinal_position", (place + 1).into()),
            ("is_nullable", yes_or_no(!column.not_null)),
            ("dtd_identifier", (place + 1).to_string().into()),
            ("is_self_referencing", "NO".into()),
            ("is_identity", "NO".into()),
            ("identity_cycle", "NO".into()),
            ("is_generated", if column.is_generated { "ALWAYS" } else { "NEVER" }.into()),
            ("is_updatable", yes_or_no(updatable)),
        ]);
        let expression = if column.is_generated { "generation_expression" } else { "column_default" };
        cells.extend(column.default.as_deref().map(|default| (expression, default.into())));
        cells.extend(match user_types::place_of(&facts.catalog, column.type_oid) {
            Some((schema, name)) => vec![
                ("data_type", "USER-DEFINED".into()),
                ("udt_catalog", database.into()),
                ("udt_schema", schema.into()),
                ("udt_name", name.into()),
            ],
            None => type_cells(column.type_oid, column.modifier, database),
        });
        rows.push(&cells);
    }
}

/// Returns the standard's columns that describe a type.
fn type_cells(oid: i64, modifier: i64, database: &str) -> Cells {
    let known = types::of(oid);
    let name = known.map_or("", |known| known.name);
    let is_array = known.is_some_and(|known| known.column("typcategory") == "A");
    let mut cells: Cells = vec![
        ("data_type", if is_array { "ARRAY".into() } else { types::format(oid, None).into() }),
        ("udt_catalog", database.into()),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", name.into()),
    ];
    let modifier = (modifier >= 0).then_some(modifier);
    match name {
        "varchar" | "bpchar" => {
            cells.push(("character_maximum_length", modifier.map(|modifier| modifier - 4).into()));
            cells.push(("character_octet_length", modifier.map(|modifier| (modifier - 4) * 4).into()));
        }
        "bit" | "varbit" => cells.push(("character_maximum_length", modifier.into())),
        "text" => cells.push(("character_octet_length", 1_073_741_824.into())),
        "numeric" => {
            let digits = modifier.map(|modifier| modifier - 4);
            cells.push(("numeric_precision", digits.map(|digits| (digits >> 16) & 0xffff).into()));
            cells.push(("numeric_scale", digits.map(|digits| digits & 0x7ff).into()));
            cells.push(("numeric_precision_radix", 10.into()));
        }
        "int2" | "int4" | "int8" | "float4" | "float8" => {
            let bits = match name {
                "int2" => 16,
                "int4" => 32,
                "int8" => 64,
                "float4" => 24,
                _ => 53,
            };
            cells.push(("numeric_precision", bits.into()));
            cells.push(("numeric_precision_radix", 2.into()));
            if name.starts_with("int") {
                cells.push(("numeric_scale", 0.into()));
            }
        }
        "date" => cells.push(("datetime_precision", 0.into())),
        "time" | "timestamp" | "timestamptz" | "interval" => {
            cells.push(("datetime_precision", modifier.unwrap_or(6).into()));
        }
        _ => {}
    }
    cells
}

fn constraints_of(relation: &Listed, table: &str, database: &str, rows: &mut Rows) {
    let shared = |name: &str| {
        let mut cells = names(relation, database);
        cells.extend([
            ("constraint_catalog", database.into()),
            ("constraint_schema", relation.schema.as_str().into()),
            ("constraint_name", name.into()),
        ]);
        cells
    };
    constraints::information(relation, table, shared, rows);
}

fn view_usage(facts: &Facts, database: &str, rows: &mut Rows) {
    for relation in facts.relations().iter().filter(|relation| relation.kind == 'v') {
        let Some(object) = &relation.object else { continue };
        for read in object.reads.iter().filter(|read| facts.catalog.schemas().has_relation(read)) {
            rows.push(&[
                ("view_catalog", database.into()),
                ("view_schema", relation.schema.as_str().into()),
                ("view_name", relation.name.as_str().into()),
                ("table_catalog", database.into()),
                ("table_schema", facts.catalog.schemas().place_of(read).0.into()),
                ("table_name", facts.catalog.schemas().place_of(read).1.into()),
            ]);
        }
    }
}

fn specific(routine: &routines::Routine<'_>, database: &str) -> Cells {
    vec![
        ("specific_catalog", database.into()),
        ("specific_schema", "public".into()),
        ("specific_name", format!("{}_{}", routine.name, routine.oid).into()),
    ]
}

fn routine_row(routine: &routines::Routine<'_>, database: &str, rows: &mut Rows) {
    let mut cells = specific(routine, database);
    cells.extend([
        ("routine_catalog", database.into()),
        ("routine_schema", "public".into()),
        ("routine_name", routine.name.into()),
        // As in PostgreSQL: aggregates are not a kind of routine in the standard.
        ("routine_type", if routine.kind == 'f' { Value::from("FUNCTION") } else { Value::Null }),
        ("routine_body", "SQL".into()),
        ("routine_definition", routine.object.ddl.as_str().into()),
        ("external_language", "SQL".into()),
        ("is_deterministic", "YES".into()),
        ("sql_data_access", "CONTAINS".into()),
        ("is_null_call", yes_or_no(routine.strict)),
    ]);
    cells.extend(type_cells(routines::type_oid(routine.returns), -1, database));
    rows.push(&cells);
}

fn parameters(routine: &routines::Routine<'_>, database: &str, rows: &mut Rows) {
    for (place, parameter) in routine.parameters.iter().enumerate() {
        let mut cells = specific(routine, database);
        cells.extend([
            ("ordinal_position", (place + 1).into()),
            ("parameter_mode", "IN".into()),
            ("is_result", "NO".into()),
            ("as_locator", "NO".into()),
            ("parameter_name", parameter.name.clone().into()),
        ]);
        cells.extend(type_cells(routines::type_oid(&parameter.data_type), -1, database));
        rows.push(&cells);
    }
}
