//! Relations of which one is the statement's own.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Expr, ScalarUDF};

use crate::error::Result;
use crate::relation::{Relation, Relations, RoutineCatalog, SearchPath};

/// Relations, and one more, which may hide another of its name. Code that runs the statement binds its rows.
pub(super) struct WithRelation<'a> {
    pub(super) all: &'a dyn Relations,
    pub(super) name: &'a str,
    pub(super) columns: SchemaRef,
    pub(super) key: Option<Vec<usize>>,
}

impl Relations for WithRelation<'_> {
    fn get(&self, name: &str) -> Option<Relation> {
        if name == self.name {
            return Some(Relation::Rows { schema: Arc::clone(&self.columns), key: self.key.clone() });
        }
        self.all.get(name)
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.all.path().map(|_| self as &dyn SearchPath)
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.all.names(schema)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Relation> {
        self.all.system(schema, name)
    }

    fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.all.scalar(name)
    }

    fn is_scalar(&self, name: &str) -> bool {
        self.all.is_scalar(name)
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        if name == self.name { None } else { self.all.event_time(name) }
    }

    fn defaults(&self, name: &str) -> Vec<(String, Expr)> {
        self.all.defaults(name)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        self.all.function(name, arguments)
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self.all.routine_catalog()
    }
}

impl SearchPath for WithRelation<'_> {
    fn find(&self, name: &str) -> Option<String> {
        if name == self.name { None } else { self.all.path()?.find(name) }
    }

    fn place(&self, name: &str) -> String {
        self.all.path().map_or_else(|| name.into(), |path| path.place(name))
    }

    fn schemas(&self) -> Vec<String> {
        self.all.path().map(SearchPath::schemas).unwrap_or_default()
    }
}

impl fmt::Debug for WithRelation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithRelation").field("name", &self.name).finish_non_exhaustive()
    }
}
