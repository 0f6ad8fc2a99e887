//! PostgreSQL's system catalog, derived from the engine's catalog, for clients that inspect the schema.
//!
//! The tables of `pg_catalog` and `information_schema` have the columns of PostgreSQL 15 ([`layout`]). Tables
//! of features that don't exist here are empty. Tables are computed when a SELECT names them, from one state
//! of the catalog ([`Facts`]). The same holds for the functions that look things up in it ([`functions`]).
//!
//! | here | there | why |
//! | --- | --- | --- |
//! | table | `r` | |
//! | view | `v` | |
//! | materialized view, stream | `m` | it is read as a table and never written; clients list it |
//! | source | `f`, a foreign table | rows from outside, whose columns can be looked up |
//! | system table | `v` | |
//! | sequence | `S` | |
//! | sink | none | it can't be read: SHOW SINKS |

mod builtins;
mod constraints;
mod facts;
mod functions;
mod information;
pub(crate) mod layout;
mod objects;
pub(crate) mod pg_types;
mod relations;
mod routines;
mod rows;
mod sequences;
mod session;
mod user_types;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use millstream_sql::{Error, INFORMATION_SCHEMA, PG_CATALOG, Result};

pub(crate) use facts::{Facts, OneShot};

use self::rows::Rows;
use crate::statements::relations_of;

/// Returns true if a relation's name is in a schema of PostgreSQL's.
pub(crate) fn is_name(relation: &str) -> bool {
    parts(relation).is_some()
}

/// Returns true if a query reads PostgreSQL's catalog.
pub(crate) fn is_read_by(plan: &LogicalPlan) -> Result<bool> {
    Ok(relations_of(plan)?.iter().any(|name| is_name(name)))
}

/// The schema metadata key of a result that comes from PostgreSQL's catalog.
const OF_CATALOG: &str = "millstream.of_catalog";

/// Returns the schema marked as a result of the catalog, so that front ends send OIDs with their type.
pub(crate) fn marked(schema: &SchemaRef) -> SchemaRef {
    let mut metadata = schema.metadata().clone();
    metadata.insert(OF_CATALOG.to_string(), String::new());
    Arc::new(schema.as_ref().clone().with_metadata(metadata))
}

/// Returns true if a result comes from PostgreSQL's catalog, where unsigned 32-bit integers are `oid`.
pub fn is_of_catalog(schema: &Schema) -> bool {
    schema.metadata().contains_key(OF_CATALOG)
}

/// Returns true if this is the name of a function over the catalog.
pub(crate) fn is_function(name: &str) -> bool {
    functions::is_function(name)
}

fn parts(relation: &str) -> Option<(&str, &str)> {
    relation.split_once('.').filter(|(schema, _)| [PG_CATALOG, INFORMATION_SCHEMA].contains(schema))
}

/// Returns the rows of one of these tables.
pub(crate) fn batch(facts: &Facts, relation: &str) -> Result<RecordBatch> {
    let (schema, name) = parts(relation).unwrap_or(("", relation));
    let layout = layout::find(schema, name)
        .ok_or_else(|| Error::invalid(format!("relation \"{relation}\" not found")))?;
    let mut rows = Rows::new(layout);
    if schema == INFORMATION_SCHEMA {
        information::fill(facts, name, &mut rows);
    } else if !relations::fill(facts, name, &mut rows)
        && !routines::fill(facts, name, &mut rows)
        && !sequences::fill(facts, name, &mut rows)
    {
        // Tables that none of these functions fills are empty.
        let _ = session::fill(facts, name, &mut rows)
            || objects::fill(name, &mut rows)
            || builtins::fill(name, &mut rows);
    }
    rows.batch()
}
