//! The epoch loop, sessions and statements. This crate owns all mutable state.
//!
//! An [`Engine`] is a handle on a loop. The loop runs on its own thread and is the only code that changes
//! anything. A [`Session`] plans text against a snapshot of the catalog and sends events to the loop.
//! Sessions read snapshots.
//!
//! Deliberately absent: query planning (crate `sql`), operators (crate `flow`), connectors (crate `connect`).

mod advisory_locks;
mod announced;
mod backfill;
mod catalog;
mod changes;
mod content;
mod copy;
mod cursor;
mod ddl;
mod deadline;
mod engine;
mod error;
mod evaluate;
mod event;
mod execution_options;
mod files;
mod generated_source;
mod idempotency;
mod jobs;
mod listener;
mod metrics;
mod names;
mod panics;
mod parts;
mod pg;
mod plan;
mod plan_cache;
mod point;
mod prepare;
mod query_pool;
mod reading;
mod recovery;
mod returning;
mod run;
mod script;
mod secrets;
mod sequences;
mod session;
mod settings;
mod sleep;
mod snapshot;
mod source_history;
mod stack;
mod stamp;
mod statement;
mod statement_memory;
mod statements;
mod storage;
mod system;
mod temporary;
mod transaction;
mod variables;
mod zoned_rows;

pub use announced::Announced;
pub use changes::{Change, Changes, Following, Op};
pub use copy::{CopyFormat, CopyHeader, CopyIn, CopyOptions, CopyOut};
pub use engine::{Engine, EngineBuilder, Progress, Record};
pub use error::{Error, Kind, Result};
pub use listener::{Batch, BatchWork, CheckpointWritten, Listener, OperatorStep, SinkDelivery};
pub use metrics::{
    ActiveBatch, Busy, History, Metric, MetricDoc, MetricKind, MetricValue, Sample, Second, Series, Totals,
    metrics,
};
pub use millstream_durable::{
    InspectedCheckpoint, InspectedPart, InspectedPlan, Inspection, StorePrefix, object_store,
};
pub use millstream_sql::functions::quoted_ident;
pub use millstream_sql::{ZoneOffsets, as_shown, in_utc, sqlstate, write_offset};
pub use millstream_sql::{tsquery_of_binary, tsquery_to_binary, tsvector_of_binary, tsvector_to_binary};
pub use names::{Names, ObjectName};
pub use pg::is_of_catalog;
pub use pg::pg_types::type_of as postgres_type;
pub use prepare::Prepared;
pub use recovery::{Recovered, inspect, inspect_store};
pub use script::{Outcome, Script};
pub use session::{Response, Session, Tag};
pub use settings::{SettingDoc, ShutdownSettings, settings};
pub use statement::{RowsTag, Statement};
pub use statements::{open_statement_set, rows_tag, statements};
pub use system::{SystemColumnDoc, SystemColumnKind, SystemTableDoc, system_tables};
pub use transaction::TransactionStatus;
pub use variables::SERVER_VERSION;
