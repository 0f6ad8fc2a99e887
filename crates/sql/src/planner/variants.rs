//! Planners that differ from another in the state of its session.

use std::sync::Arc;

use super::Planner;

impl Planner {
    /// The same planner with a clock that stands at these microseconds since 1970 UTC: what `now()` says.
    pub fn at(&self, now_us: i64) -> Planner {
        let mut state = self.state.as_ref().clone();
        let now = arrow::temporal_conversions::timestamp_us_to_datetime(now_us).map(|now| now.and_utc());
        state.execution_props_mut().query_execution_start_time = now;
        Planner { state: Arc::new(state), ..self.clone() }
    }

    /// The same planner for plans that run in one part, so that their rows come in the same order each time.
    pub fn in_order(&self) -> Planner {
        let mut state = self.state.as_ref().clone();
        let config = state.config().clone().with_target_partitions(1);
        *state.config_mut() = config;
        Planner { state: Arc::new(state), ..self.clone() }
    }
}
