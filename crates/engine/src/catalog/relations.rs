//! The catalog as the planner sees it.

use arrow::datatypes::SchemaRef;
use millstream_sql::{
    AS_OF, FILE_READERS, Relation, Relations, Result, RoutineCatalog, SYSTEM_SCHEMA, SearchPath,
};

use super::{Catalog, Definition};
use crate::files;
use crate::pg;
use crate::stamp::stamped;
use crate::system;

impl Relations for Catalog {
    fn get(&self, name: &str) -> Option<Relation> {
        let object = self.find(name)?;
        let rows =
            |schema: &SchemaRef, key: Option<Vec<usize>>| Relation::Rows { schema: schema.clone(), key };
        let schema = object.definition.schema()?;
        Some(match &object.definition {
            Definition::Source { spec, .. } => {
                let stamped = object.definition.stamped();
                let key = (!spec.key.is_empty()).then(|| spec.key.clone());
                rows(stamped.as_ref().unwrap_or(schema), key)
            }
            Definition::Stream { .. } => rows(&stamped(schema), None),
            Definition::Table { key, .. } => rows(schema, (!key.is_empty()).then(|| key.clone())),
            Definition::View { raw, .. } => Relation::View(raw.clone()),
            _ => rows(schema, None),
        })
    }

    fn names(&self, schema: Option<&str>) -> Vec<String> {
        match schema {
            None => {
                let relations = self.objects.values().filter(|object| object.definition.schema().is_some());
                relations.map(|object| object.name.to_string()).collect()
            }
            Some(SYSTEM_SCHEMA) => system::TABLES.iter().map(|table| table.name.to_string()).collect(),
            Some(other) => {
                let tables = pg::layout::all().filter(|layout| layout.namespace == other);
                tables.map(|layout| layout.name.to_string()).collect()
            }
        }
    }

    fn path(&self) -> Option<&dyn SearchPath> {
        Some(self)
    }

    fn event_time(&self, name: &str) -> Option<usize> {
        Some(self.find(name)?.definition.watermark()?.column)
    }

    fn system(&self, schema: &str, name: &str) -> Option<Relation> {
        let schema = match schema {
            SYSTEM_SCHEMA => system::find(name)?.schema(),
            other => pg::layout::find(other, name)?.schema.clone(),
        };
        Some(Relation::Rows { schema, key: None })
    }

    fn is_scalar(&self, name: &str) -> bool {
        pg::is_function(name)
    }

    fn function(&self, name: &str, arguments: &[String]) -> Result<Option<Relation>> {
        match name {
            "bad_rows" => self.bad_rows(arguments).map(Some),
            "late_rows" => self.late_rows(arguments).map(Some),
            "watermark" => self.watermark(arguments).map(Some),
            AS_OF => self.as_of(arguments).map(Some),
            name if FILE_READERS.contains(&name) => Err(files::refused(arguments)),
            _ => Ok(None),
        }
    }

    fn routine_catalog(&self) -> &dyn RoutineCatalog {
        self
    }
}
