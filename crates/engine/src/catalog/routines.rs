//! The users' functions and aggregates.

use std::sync::Arc;

use millstream_sql::RoutineCatalog;
use millstream_sql::routines::{Routine, routine_name};

use super::{Catalog, Definition, Object};

impl RoutineCatalog for Catalog {
    fn routine(&self, name: &str) -> Option<Routine> {
        match &self.find(&routine_name(name))?.definition {
            Definition::Function(function) => Some(Routine::Function(function.clone())),
            Definition::Aggregate(aggregate) => Some(Routine::Aggregate(aggregate.clone())),
            _ => None,
        }
    }

    fn routine_names(&self) -> Vec<String> {
        let routines = self.routines().filter_map(|object| object.name.strip_suffix("()"));
        routines.map(str::to_string).collect()
    }
}

impl Catalog {
    /// Returns the users' functions and aggregates in the order of their names.
    pub fn routines(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects()
            .filter(|object| matches!(object.definition, Definition::Function(_) | Definition::Aggregate(_)))
    }
}
