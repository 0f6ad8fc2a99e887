//! Temporary objects: those of one session, which are dropped when it ends.
//!
//! They are in a schema of the session, `pg_temp_1`. Names without a schema are looked up there first. A start drops those of
//! sessions that a crash ended.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use millstream_sql::split_schema;

/// The beginning of the names of all sessions' schemas.
pub(crate) const PREFIX: &str = "pg_temp_";

/// The schema of a session's temporary objects. It is dropped with its objects when the session ends.
pub(crate) struct TempSchema {
    name: String,
    /// The tables to drop when the transaction ends.
    drops: Mutex<Vec<String>>,
    /// Drops the schema of this name.
    end: Box<dyn Fn(String) + Send + Sync>,
}

impl TempSchema {
    /// Returns a schema with a name of its own. `end` drops it.
    pub(crate) fn new(end: impl Fn(String) + Send + Sync + 'static) -> TempSchema {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("{PREFIX}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        TempSchema { name, drops: Mutex::default(), end: Box::new(end) }
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Drops a table when the transaction ends.
    pub(crate) fn drop_at_end(&self, table: String) {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).push(table);
    }

    /// Returns the tables to drop when the transaction ends.
    pub(crate) fn take_drops(&self) -> Vec<String> {
        std::mem::take(&mut *self.drops.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for TempSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for TempSchema {
    fn drop(&mut self) {
        (self.end)(std::mem::take(&mut self.name));
    }
}

/// Returns true if a schema is one of temporary objects.
pub(crate) fn is_temporary(schema: &str) -> bool {
    schema.starts_with(PREFIX)
}

/// Returns true if a relation is temporary.
pub(crate) fn is_in_temporary(relation: &str) -> bool {
    split_schema(relation).is_some_and(|(schema, _)| is_temporary(schema))
}
