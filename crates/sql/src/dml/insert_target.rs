//! The relations that an INSERT is planned against.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::Expr;

use crate::error::Result;
use crate::relation::{Relation, Relations, RoutineCatalog, SearchPath};

/// Relations for an INSERT. All columns of its target are nullable, so that [`super::Dml::check`] can name
/// the column. Hidden columns are left out: an INSERT can't set them.
pub(super) struct InsertTarget<'a> {
    pub(super) all: &'a dyn Relations,
    pub(super) table: &'a str,
    pub(super) columns: &'a Schema,
    /// The defaults of columns that the INSERT doesn't name.
    pub(super) defaults: &'a [(String, Expr)],
}

impl Relations for InsertTarget<'_> {
    fn get(&self, name: &str) -> Option<Relation> {
        if name != self.table {
            return self.all.get(name);
        }
        let fields = self.columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        Some(Relation::Rows { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())), key: None })
    }

    fn defaults(&self, name: &str) -> Vec<(String, Expr)> {
        if name == self.table { self.defaults.to_vec() } else { Vec::new() }
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        self.all.path()
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        self.all.names(schema)
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        self.all.event_time(name)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        self.all.function(name, arguments)
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self.all.routine_catalog()
    }
}
