//! Schemas: the objects whose names share a prefix, and the search path that finds names without one.
//!
//! The relation `t` of the schema `s` is called `s.t`, that of the schema `public` `t`. A schema is itself an object, which the
//! relations in it read, so that it can't be dropped before them.

use std::sync::Arc;

use millstream_sql::{
    Error, PUBLIC, Result, SYSTEM_SCHEMAS, SearchPath, name_in, split_schema, unknown_schema,
};

use super::{Catalog, Definition};

/// Returns the name of a schema in the catalog: `s.`. A relation may then be called `s`.
pub(crate) fn schema_key(schema: &str) -> String {
    format!("{schema}.")
}

/// Returns the name of a schema from its name in the catalog.
pub(crate) fn schema_of_key(key: &str) -> Option<&str> {
    key.strip_suffix('.')
}

impl SearchPath for Catalog {
    fn find(&self, name: &str) -> Option<String> {
        self.on_search_path(name)
    }

    fn place(&self, name: &str) -> String {
        let first = self.path.iter().find(|schema| *schema == PUBLIC || self.has_schema(schema));
        first.map_or_else(|| name.to_string(), |schema| name_in(schema, name))
    }
}

impl Catalog {
    /// Returns the names of the schemas that CREATE SCHEMA made.
    pub(crate) fn created_schemas(&self) -> impl Iterator<Item = &str> {
        let schemas = self.objects().filter(|object| matches!(object.definition, Definition::Schema));
        schemas.filter_map(|object| schema_of_key(&object.name))
    }

    /// Returns true if there is a schema that CREATE SCHEMA made.
    pub(crate) fn has_schema(&self, schema: &str) -> bool {
        self.find(&schema_key(schema)).is_some()
    }

    /// Returns the schema of a relation, and its name there.
    pub(crate) fn place_of<'a>(&self, name: &'a str) -> (&'a str, &'a str) {
        split_schema(name).filter(|(schema, _)| self.has_schema(schema)).unwrap_or((PUBLIC, name))
    }

    /// Fails if a relation can't have this name because its schema isn't there. `is_qualified`: the name was written with
    /// its schema.
    pub(crate) fn check_schema(&self, name: &str, is_qualified: bool) -> Result<()> {
        match split_schema(name).filter(|_| is_qualified) {
            Some((schema, _)) if !self.has_schema(schema) && !SYSTEM_SCHEMAS.contains(&schema) => {
                Err(self.no_schema(schema))
            }
            _ if name.ends_with('.') => {
                Err(Error::invalid(format!("\"{name}\" can't be a name: it ends with a dot")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the error for a schema that there is not.
    pub(crate) fn no_schema(&self, schema: &str) -> Error {
        unknown_schema(schema, self.created_schemas().map(str::to_string).collect())
    }

    /// Returns the schema that a relation must be dropped before, as an entry of the relations that it reads.
    pub(crate) fn schema_read(&self, name: &str) -> Option<Arc<str>> {
        let (schema, _) = split_schema(name)?;
        self.find(&schema_key(schema)).map(|object| object.name.clone())
    }

    /// Returns the same catalog for a session with this search path.
    pub(crate) fn with_path(&self, path: Arc<[String]>) -> Catalog {
        Catalog { path, ..self.clone() }
    }

    /// Returns the name of the relation that a name without a schema stands for.
    pub(crate) fn on_search_path(&self, name: &str) -> Option<String> {
        let found = |schema: &&String| self.find(&name_in(schema, name)).is_some();
        self.path.iter().find(found).map(|schema| name_in(schema, name))
    }

    /// Returns this copy as the search path of statements, unless it finds names in `public` alone.
    pub(crate) fn search_path(self: &Arc<Self>) -> Option<Arc<dyn SearchPath>> {
        (!self.path.is_empty()).then(|| self.clone() as Arc<dyn SearchPath>)
    }

    /// Returns the schemas of the search path that are there, the first one is that of new relations.
    pub(crate) fn current_schemas(&self) -> Vec<String> {
        if self.path.is_empty() {
            return vec![PUBLIC.into()];
        }
        self.path.iter().filter(|schema| *schema == PUBLIC || self.has_schema(schema)).cloned().collect()
    }
}
