//! The changes of relations in an epoch.

use std::collections::HashMap;
use std::sync::Arc;

use millstream_delta::{Delta, consolidate};

/// The changes of an epoch by relation.
pub(super) type Deltas = HashMap<Arc<str>, Delta>;

/// Consolidates the change of an epoch, so a row that was deleted and inserted again cancels out. Rows of a type that
/// can't be compared stay as they are.
pub(crate) fn in_sum(delta: Delta) -> Delta {
    match delta.chunks.first().filter(|_| !delta.is_append_only()) {
        Some(first) => consolidate(delta.clone(), &first.rows.schema()).unwrap_or(delta),
        None => delta,
    }
}
