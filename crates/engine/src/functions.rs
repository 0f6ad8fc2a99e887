//! The engine's own functions: those of sequences, and of advisory locks.

use std::sync::Arc;

use datafusion::execution::context::SessionContext;
use millstream_sql::{Planner, Result};

use crate::advisory_locks;
use crate::sequences::{self, Sequences};

/// Returns a planner with the functions of a user's context, and those of the engine.
pub(crate) fn planner(context: Option<SessionContext>, sequences: &Arc<Sequences>) -> Result<Planner> {
    let context = context.unwrap_or_default();
    let mut state = context.state();
    sequences::register(&mut state, sequences)?;
    advisory_locks::register(&mut state)?;
    Ok(Planner::with_state(state))
}
