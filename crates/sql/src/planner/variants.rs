//! Copies of a planner with a changed session state.

use std::sync::Arc;

use datafusion::optimizer::Analyzer;

use super::Planner;
use crate::rules::session_zone::SessionZone;

impl Planner {
    /// Returns a copy of the planner whose `now()` is fixed at these microseconds since 1970 UTC.
    pub fn at(&self, now_us: i64) -> Planner {
        let mut state = self.state.as_ref().clone();
        let now = arrow::temporal_conversions::timestamp_us_to_datetime(now_us).map(|now| now.and_utc());
        state.execution_props_mut().query_execution_start_time = now;
        Planner { state: Arc::new(state), ..self.clone() }
    }

    /// Returns a copy of the planner for the statements of a session with this time zone. `None` is UTC.
    pub fn in_zone(&self, zone: Option<&Arc<str>>) -> Planner {
        let Some(zone) = zone else { return self.clone() };
        let mut state = self.state.as_ref().clone();
        state.config_mut().options_mut().execution.time_zone = Some(zone.to_string());
        let mut analyzer = Analyzer::with_rules(self.analyzer.rules.clone());
        let casts = analyzer.rules.iter().position(|rule| rule.name() == "text_casts");
        let place = casts.unwrap_or(analyzer.rules.len());
        analyzer.rules.insert(place, Arc::new(SessionZone::new(zone.clone())));
        for rewrite in self.analyzer.function_rewrites() {
            analyzer.add_function_rewrite(Arc::clone(rewrite));
        }
        Planner { state: Arc::new(state), analyzer: Arc::new(analyzer), ..self.clone() }
    }

    /// Returns a copy of the planner for plans with one partition, whose rows always have the same order.
    pub fn in_order(&self) -> Planner {
        let mut state = self.state.as_ref().clone();
        let config = state.config().clone().with_target_partitions(1);
        *state.config_mut() = config;
        Planner { state: Arc::new(state), ..self.clone() }
    }
}

/// Returns a copy of a planner that accepts, if `replays`, what earlier versions accepted in statements of a
/// data directory.
pub fn replaying(planner: &Planner, replays: bool) -> Planner {
    let parser = planner.parser.clone().accepting_open_joins(replays);
    Planner { parser, ..planner.clone() }
}
