//! The names that a statement can use, for completion.

use std::sync::Arc;

use arrow::datatypes::Schema;
use millstream_connect::Connector;
use millstream_delta::sql_type_of;
use millstream_sql::function_names;

use crate::catalog::Definition;
use crate::session::Session;
use crate::settings::{SETTINGS, SettingDoc};
use crate::system;

/// The names that a statement can use at one point in time.
#[derive(Clone, Debug)]
pub struct Names {
    /// Objects by name, then the system tables. Users' functions are listed in `functions`.
    pub objects: Vec<ObjectName>,
    /// Functions and aggregates, built-in and users', by name.
    pub functions: Vec<String>,
    /// Settings.
    pub settings: &'static [SettingDoc],
    /// Connectors with their options.
    pub connectors: Vec<Arc<dyn Connector>>,
}

/// An object's name and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Its stored name: folded to lower case unless it was quoted.
    pub name: String,
    /// Its kind: `table`, `materialized view`, `system table`.
    pub kind: &'static str,
    /// Its columns with their types, including hidden ones; empty for a sink.
    pub columns: Vec<(String, String)>,
}

impl Session {
    /// Returns the names that a statement can use now.
    pub fn names(&self) -> Names {
        let catalog = self.shared.catalog();
        let mut objects: Vec<ObjectName> = Vec::new();
        let mut functions: Vec<String> =
            function_names(self.shared.planner.state()).map(str::to_string).collect();
        for object in catalog.objects() {
            if !object.definition.is_relation() {
                continue;
            }
            let stamped = object.definition.stamped();
            objects.push(ObjectName {
                name: object.name.to_string(),
                kind: object.definition.kind(),
                columns: stamped
                    .as_ref()
                    .or(object.definition.schema())
                    .map_or_else(Vec::new, |schema| columns(schema)),
            });
        }
        functions.extend(catalog.routines().filter_map(|object| match &object.definition {
            Definition::Function(function) => Some(function.name.to_string()),
            Definition::Aggregate(aggregate) => Some(aggregate.name.to_string()),
            _ => None,
        }));
        // Functions that only planner rules insert have names that users don't type.
        functions.retain(|name| name.starts_with(|first: char| first.is_ascii_alphabetic()));
        functions.sort_unstable();
        functions.dedup();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        objects.extend(system::TABLES.iter().map(|table| ObjectName {
            name: format!("{}.{}", millstream_sql::SYSTEM_SCHEMA, table.name),
            kind: "system table",
            columns: columns(&table.schema()),
        }));
        let connectors = self.shared.connectors.values().cloned().collect();
        Names { objects, functions, settings: SETTINGS, connectors }
    }
}

fn columns(schema: &Schema) -> Vec<(String, String)> {
    schema.fields().iter().map(|field| (field.name().clone(), sql_type_of(field))).collect()
}
