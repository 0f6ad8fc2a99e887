//! Schemas: the objects whose names share a prefix, and the search path that finds names without one.
//!
//! The relation `t` of the schema `s` is called `s.t`, that of the schema `public` `t`. A schema is itself an object, which the
//! relations in it read, so that it can't be dropped before them.

use std::sync::Arc;

use millstream_sql::{
    Error, PUBLIC, Result, SYSTEM_SCHEMAS, SearchPath, name_in, split_schema, unknown_schema,
};

use super::{Catalog, Definition};
use crate::temporary::is_temporary;

/// Returns the name of a schema in the catalog: `s.`. A relation may then be called `s`.
pub(crate) fn schema_key(schema: &str) -> String {
    format!("{schema}.")
}

/// Returns the name of a schema from its name in the catalog.
pub(crate) fn schema_of_key(key: &str) -> Option<&str> {
    key.strip_suffix('.')
}

/// The schemas of a catalog.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schemas<'a>(&'a Catalog);

impl Catalog {
    /// Returns the schemas.
    pub(crate) fn schemas(&self) -> Schemas<'_> {
        Schemas(self)
    }

    /// Returns the same catalog for a session with this search path.
    pub(crate) fn with_path(&self, path: Arc<[String]>) -> Catalog {
        Catalog { path, ..self.clone() }
    }

    /// Returns this copy as the search path of statements, unless it finds names in `public` alone.
    pub(crate) fn search_path(self: &Arc<Self>) -> Option<Arc<dyn SearchPath>> {
        (!self.path.is_empty()).then(|| self.clone() as Arc<dyn SearchPath>)
    }
}

impl SearchPath for Catalog {
    fn find(&self, name: &str) -> Option<String> {
        let found = |schema: &&String| Catalog::find(self, &name_in(schema, name)).is_some();
        if let Some(schema) = self.path.iter().find(found) {
            return Some(name_in(schema, name));
        }
        // A relation of `public` is not found by its name alone.
        let is_hidden = Catalog::find(self, name).is_some() && self.schemas().place_of(name).0 == PUBLIC;
        let first = self.path.iter().find(|schema| !is_temporary(schema));
        first.filter(|_| is_hidden).map(|schema| name_in(schema, name))
    }

    fn place(&self, name: &str) -> String {
        let mut path = self.path.iter().filter(|schema| !is_temporary(schema));
        let first = path.clone().find(|schema| *schema == PUBLIC || self.schemas().has(schema));
        first.or(path.next()).map_or_else(|| name.to_string(), |schema| name_in(schema, name))
    }

    fn alias(&self, schema: &str) -> Option<String> {
        let own = || self.path.first().filter(|first| is_temporary(first)).cloned();
        if schema == "pg_temp" { own() } else { None }
    }

    fn schemas(&self) -> Vec<String> {
        Schemas(self).created().map(str::to_string).collect()
    }
}

impl<'a> Schemas<'a> {
    /// Returns the names of the schemas that CREATE SCHEMA made.
    pub(crate) fn created(self) -> impl Iterator<Item = &'a str> {
        let schemas = self.0.objects().filter(|object| matches!(object.definition, Definition::Schema));
        schemas.filter_map(|object| schema_of_key(&object.name))
    }

    /// Returns true if an object is a relation in a schema.
    pub(crate) fn has_relation(self, name: &str) -> bool {
        self.0.find(name).is_some_and(|object| object.definition.is_relation())
    }

    /// Returns true if there is a schema that CREATE SCHEMA made.
    pub(crate) fn has(self, schema: &str) -> bool {
        self.0.find(&schema_key(schema)).is_some()
    }

    /// Returns the schema of a relation, and its name there.
    pub(crate) fn place_of(self, name: &str) -> (&str, &str) {
        split_schema(name).filter(|(schema, _)| self.has(schema)).unwrap_or((PUBLIC, name))
    }

    /// Fails if a new relation can't have this name. `is_qualified`: the name was written with its schema, or found on a path.
    pub(crate) fn check(self, name: &str, is_qualified: bool) -> Result<()> {
        if name.ends_with('.') {
            return Err(Error::invalid(format!("\"{name}\" can't be a name: it ends with a dot")));
        }
        match split_schema(name).filter(|_| !is_qualified) {
            None => self.missing_in(name).filter(|_| is_qualified).map_or(Ok(()), Err),
            Some((schema, _)) if self.has(schema) => Err(Error::invalid(format!(
                "\"{name}\" can't be a name: it would be one of the schema \"{schema}\""
            ))
            .hint("Write the schema before the name, or choose another name.")),
            Some(_) => Ok(()),
        }
    }

    /// Returns the error for a schema that there is not.
    pub(crate) fn missing(self, schema: &str) -> Error {
        unknown_schema(schema, SearchPath::schemas(self.0))
    }

    /// Returns the error for the schema in the name of a relation, or of a schema, if it isn't there.
    pub(super) fn missing_in(self, name: &str) -> Option<Error> {
        let schema = schema_of_key(name).or_else(|| Some(split_schema(name)?.0))?;
        (!self.has(schema) && !SYSTEM_SCHEMAS.contains(&schema)).then(|| self.missing(schema))
    }

    /// Returns the schema that a relation must be dropped before, as an entry of the relations that it reads.
    pub(crate) fn read_of(self, name: &str) -> Option<Arc<str>> {
        let (schema, _) = split_schema(name)?;
        self.0.find(&schema_key(schema)).map(|object| object.name.clone())
    }

    /// Returns the schemas of the search path; none for `public` alone.
    pub(crate) fn path(self) -> &'a Arc<[String]> {
        &self.0.path
    }

    /// Returns the schemas of the search path that are there. New relations are in the first one.
    pub(crate) fn current(self) -> Vec<String> {
        if self.0.path.is_empty() {
            return vec![PUBLIC.into()];
        }
        let is_there = |schema: &&String| *schema == PUBLIC || self.has(schema) && !is_temporary(schema);
        self.0.path.iter().filter(is_there).cloned().collect()
    }

    /// Returns the schema of the session's temporary objects, if there are any.
    pub(crate) fn temporary(self) -> Option<&'a str> {
        self.0.path.first().map(String::as_str).filter(|first| is_temporary(first) && self.has(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Object;

    fn with(names: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        for name in names {
            let definition = Definition::Schema;
            let object = Object { name: (*name).into(), ddl: String::new(), reads: Vec::new(), definition };
            catalog.add(Arc::new(object)).unwrap();
        }
        catalog
    }

    #[test]
    fn names_have_the_schema_that_is_there() {
        let catalog = with(&["s.", "s.t", "a.b", "t"]);
        let place = |name| catalog.schemas().place_of(name);
        assert_eq!([place("s.t"), place("a.b"), place("t")], [("s", "t"), (PUBLIC, "a.b"), (PUBLIC, "t")]);
        assert_eq!(catalog.schemas().read_of("s.t").as_deref(), Some("s."));
        assert_eq!(catalog.schemas().read_of("a.b"), None);
        let error =
            |name, is_qualified| catalog.schemas().check(name, is_qualified).err().map(|error| error.message);
        assert_eq!((error("s.u", true), error("a.c", false)), (None, None));
        let inside = "\"s.u\" can't be a name: it would be one of the schema \"s\"";
        assert_eq!(error("s.u", false).as_deref(), Some(inside));
        assert_eq!(error("a.c", true).as_deref(), Some("schema \"a\" not found"));
        assert_eq!(error("x.", false).as_deref(), Some("\"x.\" can't be a name: it ends with a dot"));
    }

    #[test]
    fn the_first_schema_of_the_path_that_has_a_name_counts() {
        let catalog = with(&["s.", "s.t", "t", "u"]);
        assert_eq!((SearchPath::find(&catalog, "t"), catalog.place("t")), (None, "t".into()));
        let catalog = catalog.with_path(["x".into(), "s".into(), PUBLIC.into()].into());
        let find = |name| SearchPath::find(&catalog, name);
        assert_eq!((find("t"), find("u"), find("v")), (Some("s.t".into()), Some("u".into()), None));
        // Without `public` on the path, its relations need the schema.
        let strict = catalog.with_path(["s".into()].into());
        let find = |name| SearchPath::find(&strict, name);
        assert_eq!((find("t"), find("u"), find("v")), (Some("s.t".into()), Some("s.u".into()), None));
        assert_eq!(find("s.t"), None);
        assert_eq!(
            (catalog.place("v"), catalog.schemas().current()),
            ("s.v".into(), vec!["s".into(), "public".into()])
        );
    }
}
