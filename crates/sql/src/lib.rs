//! Turns SQL text into a logical plan that means the same to a batch and to a stream.
//!
//! [`statements`] splits a text into statements, and a [`TokenReader`] reads Millstream's own statements. The
//! [`Planner`] turns a query into a [`Query`]. It plans against relations that only have a schema
//! ([`Relations`]) and makes the result deterministic where the query leaves it open (see [`rules`]).
//!
//! Deliberately absent: IO, execution, the catalog's content, and statements other than queries and DML,
//! whose syntax lives beside their execution.

mod ast_rewrite;
mod ast_walk;
pub mod batches;
mod checks;
mod columns;
mod compatibility_level;
pub mod complexity;
mod context;
mod declared_types;
mod defaults;
mod determinism;
pub mod dialect;
pub mod dml;
mod error;
mod event_time;
mod expression_type;
mod extension;
mod failure;
#[cfg(test)]
mod fixture;
pub mod functions;
mod generated_columns;
mod grammar;
mod hidden_columns;
mod identity;
mod indexes;
mod literals;
mod output_names;
mod parameters;
mod physical;
mod plan_codec;
pub mod planner;
mod reader;
pub mod relation;
mod relation_keys;
mod relation_rename;
pub mod routines;
mod row_pattern;
pub mod rules;
mod sequence;
pub mod sqlstate;
pub mod suggestion;
mod system_time;
mod temporal_filter;
mod time_joins;
mod tokens;
mod tree_rewrite;
mod type_names;
mod unsupported_clauses;
mod user_types;
mod using_joins;
mod watermark;
mod zones;

pub use ast_rewrite::files::READERS as FILE_READERS;
pub use batches::{BatchClock, BatchQuery, Window, WindowKind, WindowOf, length_text};
pub use checks::{Checks, constraint_name_in, row_text};
pub use columns::{Alteration, Columns, Sources};
pub use compatibility_level::CompatibilityLevel;
pub use defaults::{ColumnDefault, NEXT_OF_IDENTITY};
pub use dialect::Emit;
pub use dml::conflict::{EXCLUDED, OnConflict};
pub use dml::merge::{Merged, changed_twice};
pub use dml::returning::{RETURNED, Returning};
pub use dml::{Dml, Operation};
pub use error::{Error, Kind, Result};
pub use extension::extends;
pub use failure::of_data;
pub use functions::postgres::ZoneOffsets;
pub use functions::quote_ident;
pub use functions::read_text::checked_rows;
pub use functions::text_search::{
    tsquery_of_binary, tsquery_to_binary, tsvector_of_binary, tsvector_to_binary,
};
pub use functions::time_text::write_offset;
pub use functions::zoned_times::in_utc;
pub use generated_columns::GeneratedColumns;
pub use hidden_columns::{HIDDEN, hide_field, is_hidden};
pub use identity::Identity;
pub use indexes::{IndexKind, TableIndex, WrittenIndex, without_order};
pub use output_names::as_shown;
pub use parameters::Parameters;
pub use planner::{Planner, Query, function_names, planner_at, replaying, timestamp_unit};
pub use reader::{TokenReader, column_name};
pub use relation::{
    INFORMATION_SCHEMA, PG_CATALOG, PUBLIC, Provide, Relation, RelationTable, Relations, RoutineCatalog,
    SYSTEM_SCHEMA, SYSTEM_SCHEMAS, SearchPath, bind, name_in, qualified_ident, relation_ident, relation_of,
    scans, split_schema, unknown_schema,
};
pub use relation_rename::rename_relations;
pub use routines::{Routine, routine_name};
pub use row_pattern::MATCH_ROWS;
pub use sequence::{SequenceChange, SequenceOptions};
pub use system_time::AS_OF;
pub use temporal_filter::at;
pub use time_joins::LOOKED_UP;
pub use tokens::{AtomicBlocks, Lexeme, Piece, is_complete, statements, tokenise, with_xor_for_caret};
pub use user_types::{Domain, UserType, UserTypes};
pub use watermark::{Watermark, WatermarkFunction};
pub use zones::in_zone as type_in_zone;
