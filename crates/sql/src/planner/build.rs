//! Builds a planner from a session state.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::optimizer::Analyzer;

use super::Planner;
use super::parser::StatementParser;
use crate::compatibility_level::CompatibilityLevel;
use crate::functions;
use crate::functions::bits::operators::BitOperators;
use crate::functions::geometry::operators::GeometricOperators;
use crate::functions::json::operators::JsonOperators;
use crate::functions::network::operators::NetworkOperators;
use crate::functions::ranges::operators::RangeOperators;
use crate::functions::text_search::operators::TextSearchOperators;
use crate::physical::Guards;
use crate::physical::missing_sorts::MissingSorts;
use crate::rules;
use crate::type_names::Spellings;
use crate::zones::UTC;

/// Returns a planner like [`Planner::with_state`], as in data directories of this level.
pub fn planner_at(state: SessionState, level: CompatibilityLevel) -> Planner {
    let mut builder = SessionStateBuilder::new_from_existing(state);
    // Functions copy their settings when a state is built, so the settings come first.
    let options = builder.config().get_or_insert_default().options_mut();
    settle(options);
    let zone = options.execution.time_zone.as_deref().unwrap_or(UTC).into();
    let type_planner = Arc::new(Spellings { users: builder.type_planner().clone(), zone, level });
    let rules = builder.optimizer().take().unwrap_or_default().rules;
    let rules: Vec<_> = rules.into_iter().filter(|rule| is_sound(rule.name())).collect();
    let physical = &mut builder.physical_optimizers().get_or_insert_default().rules;
    *physical = crate::physical::lambda_columns::guarded(std::mem::take(physical));
    physical.insert(0, Arc::new(Guards));
    let check = physical.iter().position(|rule| rule.name() == "SanityCheckPlan").unwrap_or(physical.len());
    physical.insert(check, Arc::new(MissingSorts));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(functions::nth::Nth));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(JsonOperators));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(functions::postgres::Arrays));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(NetworkOperators));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(BitOperators));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(RangeOperators));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(TextSearchOperators));
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(GeometricOperators));
    let mut state = builder.with_optimizer_rules(rules::joins::guarded(&rules)).build();
    functions::register(&mut state, level.timestamp_unit());
    // Physical expressions read the settings from here.
    state.mark_start_execution();
    state.execution_props_mut().query_execution_start_time = None;
    let analyzer = analyzer(&state, level);
    let parser = StatementParser::new(state.config_options());
    let (state, analyzer) = (Arc::new(state), Arc::new(analyzer));
    Planner {
        state,
        in_order: Arc::default(),
        now: None,
        type_planner,
        analyzer,
        parameters: None,
        parser,
        types: Arc::default(),
        level,
    }
}

/// Overrides settings whose defaults give wrong answers or worse errors. Each has its reason.
fn settle(options: &mut ConfigOptions) {
    // A plan that is kept and run again would keep the filters that its first run pushed into the scans.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // If this is off, a scalar subquery with two rows returns rows instead of an error.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = true;
    // A column that is never NULL in the logical plan may be nullable in the physical one: that's harmless.
    options.execution.skip_physical_aggregate_schema_check = true;
    // A rule that fails must fail the query rather than leave it partly planned.
    options.optimizer.skip_failed_rules = false;
    // Lets errors point into the text.
    options.sql_parser.collect_spans = true;
    // The engine's catalog alone resolves names.
    options.catalog.information_schema = false;
    // Without a zone, TIMESTAMP WITH TIME ZONE would lose its own.
    options.execution.time_zone.get_or_insert_with(|| UTC.to_string());
}

/// True if an optimizer rule preserves answers.
///
/// One unsound rule splits DISTINCT aggregates into two levels: a sum of floats beside them sums rounded sums.
/// Two others move struct fields closer to the scan, and lose those that are join keys within a function.
fn is_sound(rule: &str) -> bool {
    !["single_distinct_aggregation_to_group_by", "extract_leaf_expressions", "push_down_leaf_projections"]
        .contains(&rule)
}

/// Builds the analyzer's rules: ours for plans as written, DataFusion's, the user's, ours that need types.
fn analyzer(state: &SessionState, level: CompatibilityLevel) -> Analyzer {
    let mut all = rules::before_types(level);
    all.extend(state.analyzer().rules.iter().cloned());
    all.extend(rules::after_types(level));
    let mut analyzer = Analyzer::with_rules(all);
    for rewrite in state.analyzer().function_rewrites() {
        analyzer.add_function_rewrite(Arc::clone(rewrite));
    }
    analyzer
}
