//! The names of indexes and constraints. As in PostgreSQL, an index shares the names of relations.

use std::sync::Arc;

use arrow::datatypes::Schema;
use millstream_delta::checks_of;
use millstream_sql::{Error, PUBLIC, Result, TableIndex, constraint_name_in, name_in, split_schema};

use super::{Catalog, Definition, Object};

impl Object {
    /// Returns the indexes of a table with their names in its schema, without that of its key.
    pub(crate) fn indexes(&self) -> Vec<(String, TableIndex)> {
        let Definition::Table { schema, .. } = &self.definition else { return Vec::new() };
        TableIndex::all(schema).into_iter().map(|index| (index.name_in(&self.name), index)).collect()
    }
}

impl Catalog {
    /// Returns the table that has an index of this name.
    pub(crate) fn indexed(&self, name: &str) -> Option<&Arc<Object>> {
        let find = |place: &dyn Fn(&str) -> (String, String)| {
            let (schema, name) = place(name);
            let has = |object: &Arc<Object>| object.indexes().iter().any(|(known, _)| *known == name);
            self.objects().find(|object| has(object) && place(&object.name).0 == schema)
        };
        let owned = |(schema, name): (&str, &str)| (schema.to_string(), name.to_string());
        // The statement of a schema that has been dropped since may be repeated.
        let found = find(&|name: &str| owned(self.schemas().place_of(name)));
        found.or_else(|| find(&|name: &str| owned(split_schema(name).unwrap_or((PUBLIC, name)))))
    }

    /// Returns the table whose primary key has this name.
    fn keyed(&self, name: &str) -> Option<&Arc<Object>> {
        let (schema, name) = self.schemas().place_of(name);
        let table = self.find(&name_in(schema, name.strip_suffix("_pkey")?))?;
        matches!(&table.definition, Definition::Table { key, .. } if !key.is_empty()).then_some(table)
    }

    /// Fails if an index of a table with these columns has the name of a relation or of another index, or if two of the
    /// table's constraints have one name.
    pub(crate) fn check_constraint_names(&self, table: &str, columns: &Schema) -> Result<()> {
        let taken = |name: &str, of: &str| {
            Err(Error::invalid(format!("\"{name}\" already exists: {of}")).hint("Choose another name."))
        };
        let indexes: Vec<String> =
            TableIndex::all(columns).iter().map(|index| index.name_in(table)).collect();
        let checks = columns.fields().iter().flat_map(|field| checks_of(field));
        let checks = checks.map(|(name, _)| constraint_name_in(table, name));
        let mut own: Vec<String> = vec![constraint_name_in(table, ".pkey")];
        for name in indexes.iter().cloned().chain(checks) {
            if own.contains(&name) {
                return taken(&name, &format!("a constraint of table \"{table}\""));
            }
            own.push(name);
        }
        let (schema, _) = self.schemas().place_of(table);
        for name in indexes.iter().map(|name| name_in(schema, name)) {
            let other = self.indexed(&name).or_else(|| self.keyed(&name));
            let other = other.filter(|other| other.name.as_ref() != table).or_else(|| self.find(&name));
            if let Some(other) = other {
                return taken(&name, &format!("{} \"{}\"", other.definition.kind(), other.name));
            }
        }
        Ok(())
    }
}
