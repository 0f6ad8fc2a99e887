//! The planner of an engine.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use millstream_sql::{Planner, Result};

use crate::sequences::{self, Sequences};
use crate::{advisory_locks, sleep};

/// Returns a planner with the functions of a user's context, and those that need the engine.
pub(crate) fn planner(context: Option<SessionContext>, sequences: &Arc<Sequences>) -> Result<Planner> {
    let mut state = context.unwrap_or_default().state();
    sequences::register(&mut state, sequences)?;
    advisory_locks::register(&mut state)?;
    sleep::register(&mut state)?;
    Ok(Planner::with_state(state))
}
