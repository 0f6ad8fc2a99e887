//! The keys, indexes and CHECK constraints of relations in PostgreSQL's catalog.

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::checks_of;
use millstream_sql::functions::quote_ident;
use millstream_sql::{IndexKind, TableIndex, TokenReader, constraint_name_in};

use super::facts::{Facts, Listed};
use super::rows::{Rows, Value};

/// The first OID of indexes that are not keys. Each has one for itself, and one for its constraint.
const FIRST_INDEX: i64 = 3 << 30;
/// The first OID of CHECK constraints.
const FIRST_CHECK: i64 = FIRST_INDEX + (1 << 29);
/// The most indexes, and CHECK constraints, of a relation that have an OID.
const EACH_MAX: i64 = 32;
/// The number of OIDs per object.
const OIDS_EACH: i64 = 8;

/// An index of a relation.
#[derive(Debug)]
pub(super) struct ListedIndex {
    pub(super) oid: i64,
    /// The OID of its constraint, if it belongs to one.
    pub(super) constraint: Option<i64>,
    pub(super) name: String,
    /// The positions of its columns.
    pub(super) columns: Vec<usize>,
    pub(super) is_primary: bool,
    pub(super) is_unique: bool,
    pub(super) nulls_distinct: bool,
}

/// A CHECK constraint of a relation.
#[derive(Debug)]
pub(super) struct ListedCheck {
    oid: i64,
    name: String,
    text: String,
    /// The positions of the columns that its condition names.
    columns: Vec<usize>,
}

/// Returns the indexes of a relation; that of its primary key comes first.
pub(super) fn indexes(oid: i64, name: &str, schema: &Schema, key: &[usize]) -> Vec<ListedIndex> {
    let primary = ListedIndex {
        oid: oid + 3,
        constraint: Some(oid + 4),
        name: format!("{name}_pkey"),
        columns: key.to_vec(),
        is_primary: true,
        is_unique: true,
        nulls_distinct: true,
    };
    let others = TableIndex::all(schema).into_iter().zip(0..EACH_MAX).map(|(index, number)| {
        let of = FIRST_INDEX + (oid / OIDS_EACH * EACH_MAX + number) * 2;
        ListedIndex {
            oid: of,
            constraint: (index.kind == IndexKind::Constraint).then_some(of + 1),
            name: index.name_in(name),
            is_primary: false,
            is_unique: index.is_unique(),
            nulls_distinct: index.nulls_distinct,
            columns: index.columns,
        }
    });
    Some(primary).filter(|primary| !primary.columns.is_empty()).into_iter().chain(others).collect()
}

/// Returns the CHECK constraints of a relation.
pub(super) fn checks(oid: i64, name: &str, schema: &Schema) -> Vec<ListedCheck> {
    let all = schema.fields().iter().flat_map(|field| checks_of(field));
    let check = |((known, text), number): ((&str, &str), i64)| ListedCheck {
        oid: FIRST_CHECK + oid / OIDS_EACH * EACH_MAX + number,
        name: constraint_name_in(name, known),
        text: text.to_string(),
        columns: named_columns(text, schema),
    };
    all.zip(0..EACH_MAX).map(check).collect()
}

/// Returns the positions of the columns that a condition names.
fn named_columns(text: &str, schema: &Schema) -> Vec<usize> {
    let Ok(mut reader) = TokenReader::new(text) else { return Vec::new() };
    let mut columns = Vec::new();
    while *reader.peek() != Token::EOF {
        match reader.identifier().ok().map(|name| schema.index_of(&name)) {
            Some(Ok(place)) if !columns.contains(&place) => columns.push(place),
            Some(_) => {}
            None => drop(reader.next()),
        }
    }
    columns
}

impl Facts {
    /// Returns the index with this OID, and its relation.
    pub(super) fn index(&self, oid: i64) -> Option<(&Listed, &ListedIndex)> {
        self.part(oid, FIRST_INDEX, 2 * EACH_MAX, |relation| {
            relation.indexes.iter().find(|index| index.oid == oid)
        })
    }

    /// Returns the definition of the constraint with this OID.
    pub(super) fn constraint(&self, oid: i64) -> Option<String> {
        let is_it = |index: &&ListedIndex| index.constraint == Some(oid);
        let index = self.part(oid, FIRST_INDEX, 2 * EACH_MAX, |relation| relation.indexes.iter().find(is_it));
        let check = || {
            self.part(oid, FIRST_CHECK, EACH_MAX, |relation| {
                relation.checks.iter().find(|check| check.oid == oid)
            })
        };
        match index {
            Some((relation, index)) => {
                let kind = if index.is_primary { "PRIMARY KEY" } else { "UNIQUE" };
                let nulls = if index.nulls_distinct { "" } else { " NULLS NOT DISTINCT" };
                Some(format!("{kind}{nulls} ({})", index.names(relation)))
            }
            None => check().map(|(_, check)| format!("CHECK (({}))", check.text)),
        }
    }

    /// Returns a part of a relation by OID: those of keys follow that of their relation.
    fn part<'a, T>(
        &'a self,
        oid: i64,
        first: i64,
        each: i64,
        find: impl Fn(&'a Listed) -> Option<&'a T>,
    ) -> Option<(&'a Listed, &'a T)> {
        let of_key = [oid - 3, oid - 4];
        let other = (oid >= first).then(|| (oid - first) / each * OIDS_EACH);
        let relations = of_key.into_iter().chain(other).filter_map(|oid| self.relation(oid));
        relations.into_iter().find_map(|relation| find(relation).map(|part| (relation, part)))
    }
}

impl ListedIndex {
    /// Returns its columns, as in its definition.
    pub(super) fn names(&self, relation: &Listed) -> String {
        let names = self.columns.iter().map(|place| quote_ident(&relation.columns[*place].name));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Returns the statement that would create it.
    pub(super) fn definition(&self, relation: &Listed) -> String {
        format!(
            "CREATE {}INDEX {} ON {}.{} USING btree ({}){}",
            if self.is_unique { "UNIQUE " } else { "" },
            quote_ident(&self.name),
            relation.schema.as_str(),
            quote_ident(&relation.name),
            self.names(relation),
            if self.nulls_distinct { "" } else { " NULLS NOT DISTINCT" }
        )
    }
}

/// Returns positions as numbers from 1.
fn numbers(places: &[usize]) -> Value {
    Value::Ints(places.iter().map(|place| *place as i64 + 1).collect())
}

/// Adds the indexes of a relation to `pg_index`.
pub(super) fn pg_index(relation: &Listed, rows: &mut Rows) {
    for index in &relation.indexes {
        let zeros = || Value::Ints(vec![0; index.columns.len()]);
        rows.push(&[
            ("indexrelid", index.oid.into()),
            ("indrelid", relation.oid.into()),
            ("indnatts", index.columns.len().into()),
            ("indnkeyatts", index.columns.len().into()),
            ("indisunique", index.is_unique.into()),
            ("indisprimary", index.is_primary.into()),
            ("indnullsnotdistinct", (!index.nulls_distinct).into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            ("indkey", numbers(&index.columns)),
            ("indcollation", zeros()),
            ("indclass", zeros()),
            ("indoption", zeros()),
        ]);
    }
}

/// Adds the indexes of a relation to `pg_indexes`.
pub(super) fn pg_indexes(relation: &Listed, rows: &mut Rows) {
    for index in &relation.indexes {
        rows.push(&[
            ("schemaname", relation.schema.as_str().into()),
            ("tablename", relation.name.as_str().into()),
            ("indexname", index.name.as_str().into()),
            ("indexdef", index.definition(relation).into()),
        ]);
    }
}

/// Adds the constraints of a relation to `pg_constraint`.
pub(super) fn pg_constraint(relation: &Listed, rows: &mut Rows) {
    let mut row = |oid: i64, name: &str, kind: char, index: i64, columns: &[usize]| {
        rows.push(&[
            ("oid", oid.into()),
            ("conname", name.into()),
            ("connamespace", relation.namespace.into()),
            ("contype", kind.into()),
            ("convalidated", true.into()),
            ("conrelid", relation.oid.into()),
            ("conindid", index.into()),
            ("confupdtype", ' '.into()),
            ("confdeltype", ' '.into()),
            ("confmatchtype", ' '.into()),
            ("conislocal", true.into()),
            ("connoinherit", (kind != 'c').into()),
            ("conkey", numbers(columns)),
        ]);
    };
    for index in &relation.indexes {
        if let Some(oid) = index.constraint {
            let kind = if index.is_primary { 'p' } else { 'u' };
            row(oid, &index.name, kind, index.oid, &index.columns);
        }
    }
    for check in &relation.checks {
        row(check.oid, &check.name, 'c', 0, &check.columns);
    }
}

/// Adds the CHECK constraints of a relation to `check_constraints`.
pub(super) fn check_constraints(relation: &Listed, database: &str, rows: &mut Rows) {
    for check in &relation.checks {
        rows.push(&[
            ("constraint_catalog", database.into()),
            ("constraint_schema", relation.schema.as_str().into()),
            ("constraint_name", check.name.as_str().into()),
            ("check_clause", format!("({})", check.text).into()),
        ]);
    }
}

/// Adds the constraints of a relation to a table of `information_schema`. `shared` returns the first cells of a row, for
/// the name of a constraint.
pub(super) fn information(
    relation: &Listed,
    table: &str,
    shared: impl Fn(&str) -> Vec<(&'static str, Value)>,
    rows: &mut Rows,
) {
    let constraints = relation.indexes.iter().filter(|index| index.constraint.is_some());
    if table == "table_constraints" || table == "constraint_table_usage" {
        let kinds = constraints
            .map(|index| (index.name.as_str(), if index.is_primary { "PRIMARY KEY" } else { "UNIQUE" }));
        let checks = relation.checks.iter().map(|check| (check.name.as_str(), "CHECK"));
        for (name, kind) in kinds.chain(checks) {
            let mut cells = shared(name);
            cells.extend([
                ("constraint_type", kind.into()),
                ("is_deferrable", "NO".into()),
                ("initially_deferred", "NO".into()),
                ("enforced", "YES".into()),
            ]);
            rows.push(&cells);
        }
        return;
    }
    for index in constraints {
        for (number, place) in index.columns.iter().enumerate() {
            let mut cells = shared(&index.name);
            cells.push(("column_name", relation.columns[*place].name.as_str().into()));
            cells.push(("ordinal_position", (number + 1).into()));
            rows.push(&cells);
        }
    }
}
