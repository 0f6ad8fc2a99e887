//! Copies of a planner with changed settings.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::optimizer::{Analyzer, OptimizerConfig};

use super::Planner;
use crate::rules::session_zone::SessionZone;

impl Planner {
    /// Returns a copy of the planner whose `now()` is fixed at these microseconds since 1970 UTC.
    pub fn at(&self, now_us: i64) -> Planner {
        let now = arrow::temporal_conversions::timestamp_us_to_datetime(now_us).map(|now| now.and_utc());
        Planner { now, ..self.clone() }
    }

    /// Returns a copy of the planner for the statements of a session with this time zone.
    pub fn in_zone(&self, zone: &Arc<str>) -> Planner {
        let mut state = self.state.as_ref().clone();
        state.config_mut().options_mut().execution.time_zone = Some(zone.to_string());
        let mut analyzer = Analyzer::with_rules(self.analyzer.rules.clone());
        let casts = analyzer.rules.iter().position(|rule| rule.name() == "text_casts");
        let place = casts.unwrap_or(analyzer.rules.len());
        analyzer.rules.insert(place, Arc::new(SessionZone::new(zone.clone())));
        for rewrite in self.analyzer.function_rewrites() {
            analyzer.add_function_rewrite(Arc::clone(rewrite));
        }
        Planner {
            state: Arc::new(state),
            in_order: Arc::default(),
            analyzer: Arc::new(analyzer),
            ..self.clone()
        }
    }

    /// Returns a copy of the planner for plans with one partition, whose rows always have the same order.
    pub fn in_order(&self) -> Planner {
        let state = self.in_order.get_or_init(|| {
            let mut state = self.state.as_ref().clone();
            let config = state.config().clone().with_target_partitions(1);
            *state.config_mut() = config;
            Arc::new(state)
        });
        Planner { state: Arc::clone(state), ..self.clone() }
    }
}

/// The optimizer's settings for one statement.
pub(super) struct StatementConfig<'a> {
    planner: &'a Planner,
    /// Generated names count from one in each statement, so a statement always gets the same plan.
    aliases: Arc<AliasGenerator>,
}

impl<'a> StatementConfig<'a> {
    pub(super) fn new(planner: &'a Planner) -> StatementConfig<'a> {
        StatementConfig { planner, aliases: Arc::new(AliasGenerator::new()) }
    }
}

impl OptimizerConfig for StatementConfig<'_> {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        self.planner.now
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.aliases
    }

    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(self.planner.state.config_options())
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(self.planner.state.as_ref())
    }
}

/// Returns a copy of a planner that accepts, if `replays`, what earlier versions accepted in statements of a
/// data directory.
pub fn replaying(planner: &Planner, replays: bool) -> Planner {
    let parser = planner.parser.clone().accepting_open_joins(replays);
    Planner { parser, ..planner.clone() }
}
