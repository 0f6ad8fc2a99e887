//! Enums and domains in `pg_type`, `pg_enum` and the columns that have them.

use std::sync::Arc;

use arrow::datatypes::Field;
use millstream_delta::{declared_type, enum_parts};
use millstream_sql::{Domain, PUBLIC, TokenReader, UserType, relation_ident};

use super::facts::{Facts, OWNER};
use super::pg_types as types;
use super::rows::{Rows, Value};
use crate::catalog::{Catalog, Definition, Object, schema_key};

/// The OIDs of an enum's labels follow that of its type by so much, above those of objects.
const FIRST_LABEL: i64 = 1 << 29;

/// The most labels of an enum.
const LABELS_MAX: i64 = 10_000;

type Cells = Vec<(&'static str, Value)>;

fn all(catalog: &Catalog) -> impl Iterator<Item = (&Arc<Object>, &UserType)> {
    catalog.objects().filter_map(|object| match &object.definition {
        Definition::Type(found) => Some((object, found)),
        _ => None,
    })
}

/// Returns the OID of a column's enum type.
pub(super) fn oid_of(catalog: &Catalog, field: &Field) -> Option<i64> {
    let (name, _) = enum_parts(declared_type(field)?)?;
    all(catalog)
        .find(|(object, _)| relation_ident(&object.name) == name)
        .map(|(object, _)| catalog.oid(&object.name))
}

/// Returns the type with an OID, as SQL spells it.
pub(super) fn name_of(catalog: &Catalog, oid: i64) -> Option<String> {
    let found = all(catalog).find(|(object, _)| catalog.oid(&object.name) == oid);
    found.map(|(object, _)| relation_ident(&object.name))
}

/// Returns the OID of the type with a name.
pub(super) fn oid_named(catalog: &Catalog, written: &str) -> Option<i64> {
    let mut reader = TokenReader::new(written).ok()?.on_path(None);
    let name = reader.relation_name().ok().filter(|_| reader.is_end())?;
    all(catalog).find(|(object, _)| *object.name == *name).map(|(object, _)| catalog.oid(&object.name))
}

/// Returns the schema and the name of the type with an OID.
pub(super) fn place_of(catalog: &Catalog, oid: i64) -> Option<(String, String)> {
    let found = all(catalog).find(|(object, _)| catalog.oid(&object.name) == oid);
    found.map(|(object, _)| {
        let (schema, name) = catalog.schemas().place_of(&object.name);
        (schema.to_string(), name.to_string())
    })
}

/// Adds the rows of `pg_type`.
pub(super) fn types(facts: &Facts, rows: &mut Rows) {
    for (object, found) in all(&facts.catalog) {
        let (namespace, name) = facts.catalog.schemas().place_of(&object.name);
        let number = if namespace == PUBLIC { 2200 } else { facts.catalog.oid(&schema_key(namespace)) };
        let mut row: Cells = vec![
            ("oid", facts.catalog.oid(&object.name).into()),
            ("typname", name.to_string().into()),
            ("typnamespace", number.into()),
            ("typowner", OWNER.into()),
            ("typisdefined", true.into()),
            ("typdelim", ','.into()),
            ("typtypmod", (-1).into()),
        ];
        row.extend(match found {
            UserType::Enum(_) => enum_cells(),
            UserType::Domain(domain) => domain_cells(domain),
            UserType::Composite(_) => composite_cells(),
        });
        rows.push(&row);
    }
}

fn enum_cells() -> Cells {
    vec![
        ("typlen", 4.into()),
        ("typbyval", true.into()),
        ("typtype", 'e'.into()),
        ("typcategory", 'E'.into()),
        ("typinput", 3504.into()),
        ("typoutput", 3505.into()),
        ("typreceive", 3532.into()),
        ("typsend", 3533.into()),
        ("typalign", 'i'.into()),
        ("typstorage", 'p'.into()),
    ]
}

fn composite_cells() -> Cells {
    vec![
        ("typlen", (-1).into()),
        ("typtype", 'c'.into()),
        ("typcategory", 'C'.into()),
        ("typinput", 2290.into()),
        ("typoutput", 2291.into()),
        ("typreceive", 2402.into()),
        ("typsend", 2403.into()),
        ("typalign", 'd'.into()),
        ("typstorage", 'x'.into()),
    ]
}

fn domain_cells(domain: &Domain) -> Cells {
    let base = types::by_sql_name(&domain.base).unwrap_or(25);
    let known = types::of(base);
    let text = |name: &str| known.map_or(String::new(), |known| known.column(name).to_string());
    vec![
        ("typlen", known.map_or(-1, |known| known.number("typlen")).into()),
        ("typtype", 'd'.into()),
        ("typcategory", text("typcategory").into()),
        ("typalign", text("typalign").into()),
        ("typstorage", text("typstorage").into()),
        ("typnotnull", domain.not_null.into()),
        ("typbasetype", base.into()),
        ("typdefault", domain.default.clone().into()),
    ]
}

/// Fills `pg_enum`.
pub(super) fn labels(facts: &Facts, rows: &mut Rows) {
    for (object, found) in all(&facts.catalog) {
        let UserType::Enum(labels) = found else { continue };
        let oid = facts.catalog.oid(&object.name);
        for (label, place) in labels.iter().zip(0_i64..) {
            rows.push(&[
                ("oid", (FIRST_LABEL + oid * LABELS_MAX + place).into()),
                ("enumtypid", oid.into()),
                ("enumsortorder", (place + 1).into()),
                ("enumlabel", label.as_str().into()),
            ]);
        }
    }
}
