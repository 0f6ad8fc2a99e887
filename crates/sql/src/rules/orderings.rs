//! Completes orderings that a query leaves open, so that ties can't be broken differently next time.
//!
//! | in the query | completed by |
//! | --- | --- |
//! | `ORDER BY … LIMIT`, `DISTINCT ON` | all columns that are left |
//! | `LIMIT` without `ORDER BY` (unless switched off) | all columns |
//! | `OVER (…)` of what depends on the order among peers | all columns that are left |
//! | `array_agg`, `string_agg`, `first_value`, `last_value`, `nth_value` | their arguments |
//! | `any_value` | becomes the least value |
//!
//! Rows that tie in all columns are equal, so it doesn't matter which is taken. Never touched: `rank`, `dense_rank`,
//! `percent_rank`, `cume_dist`, and aggregates over RANGE and GROUPS frames: more keys would change who their peers
//! are. `last_value` up to the CURRENT ROW of such a frame is the last of its peers: it is computed within them.
//!
//! Left open: columns that can't be ordered (maps, unions); `nth_value`, ordered aggregates and IGNORE NULLS over
//! RANGE and GROUPS frames that end among peers.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Dependency};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, WindowFunction};
use datafusion::logical_expr::logical_plan::{Aggregate, Projection, Window};
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, LogicalPlan, LogicalPlanBuilder, Sort, SortExpr, WindowFrame,
    WindowFrameBound, WindowFrameUnits,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::relation::RelationTable;

/// The rule.
#[derive(Debug)]
pub struct Orderings;

impl AnalyzerRule for Orderings {
    fn name(&self) -> &str {
        "orderings"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let completed = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Limit(mut limit) => {
                let input = limited(Arc::unwrap_or_clone(limit.input));
                limit.input = Arc::new(input);
                Ok(Transformed::yes(LogicalPlan::Limit(limit)))
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_some() => {
                Ok(Transformed::yes(LogicalPlan::Sort(complete_sort(sort))))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => {
                Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(complete_distinct(on)))))
            }
            LogicalPlan::Window(window) => windows(window),
            LogicalPlan::Aggregate(aggregate) => aggregates(aggregate),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(completed.data)
    }
}

/// The input of a LIMIT with its ordering complete: that of the Sort whose rows it takes, or one of its own.
fn limited(input: LogicalPlan) -> LogicalPlan {
    match input {
        LogicalPlan::Sort(sort) => LogicalPlan::Sort(complete_sort(sort)),
        // DISTINCT ON gives its rows in the order that it takes them in, which is complete.
        LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)) => input,
        LogicalPlan::Projection(mut inner) if ordered(&inner.input) => {
            inner.input = Arc::new(limited(Arc::unwrap_or_clone(inner.input)));
            LogicalPlan::Projection(inner)
        }
        LogicalPlan::SubqueryAlias(mut inner) if ordered(&inner.input) => {
            inner.input = Arc::new(limited(Arc::unwrap_or_clone(inner.input)));
            LogicalPlan::SubqueryAlias(inner)
        }
        other => {
            let sort = complete_sort(Sort { expr: Vec::new(), input: Arc::new(other), fetch: None });
            // A single row needs no order, nor can one be made of no orderable column.
            if sort.expr.is_empty() { Arc::unwrap_or_clone(sort.input) } else { LogicalPlan::Sort(sort) }
        }
    }
}

/// Whether a plan's rows come in an order that a LIMIT above it takes.
pub(super) fn ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)) => true,
        LogicalPlan::Projection(inner) => ordered(&inner.input),
        LogicalPlan::SubqueryAlias(inner) => ordered(&inner.input),
        _ => false,
    }
}

/// Whether rows can be sorted by a column of this type.
pub(crate) fn orderable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) | DataType::Union(..) => false,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => orderable(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| orderable(field.data_type())),
        DataType::Dictionary(_, value) => orderable(value),
        _ => true,
    }
}

fn ascending(expression: Expr) -> SortExpr {
    SortExpr::new(expression, true, false)
}

/// The sort keys that make an ordering of a plan's rows complete: its key's columns, or all, less those it has.
fn missing(plan: &LogicalPlan, known: &[&Expr]) -> Vec<SortExpr> {
    let schema = plan.schema();
    let column = |at: usize| Expr::Column(Column::from(schema.qualified_field(at)));
    let all = || (0..schema.fields().len()).collect();
    let wanted: Vec<usize> = key(plan).unwrap_or_else(all);
    let wanted = wanted.into_iter().filter(|at| orderable(schema.field(*at).data_type()));
    wanted.map(column).filter(|column| !known.contains(&column)).map(ascending).collect()
}

/// Columns that no two rows share, where that is certain: above a table with a key, through nodes that keep each row
/// at most once. (Dependencies that the query engine derives through others are not relied on.)
fn key(plan: &LogicalPlan) -> Option<Vec<usize>> {
    certain(plan).then_some(())?;
    let width = plan.schema().fields().len();
    let dependencies = plan.schema().functional_dependencies();
    let found = dependencies.iter().find(|dependence| {
        dependence.mode == Dependency::Single
            && !dependence.nullable
            && dependence.target_indices.len() == width
    })?;
    Some(found.source_indices.clone())
}

fn certain(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => source_as_provider(&scan.source)
            .is_ok_and(|provider| (provider.as_ref() as &dyn Any).is::<RelationTable>()),
        LogicalPlan::Filter(inner) => certain(&inner.input),
        LogicalPlan::SubqueryAlias(inner) => certain(&inner.input),
        LogicalPlan::Projection(inner) => certain(&inner.input),
        LogicalPlan::Sort(inner) => certain(&inner.input),
        LogicalPlan::Limit(inner) => certain(&inner.input),
        _ => false,
    }
}

fn complete_sort(mut sort: Sort) -> Sort {
    let known: Vec<&Expr> = sort.expr.iter().map(|key| &key.expr).collect();
    let more = missing(&sort.input, &known);
    sort.expr.extend(more);
    sort
}

/// Drops keys that say again what one before them says; the query engine counts on there being none.
fn without_repeated(keys: &mut Vec<SortExpr>) -> bool {
    let before = keys.len();
    let mut known: Vec<Expr> = Vec::with_capacity(before);
    keys.retain(|key| {
        let fresh = !known.contains(&key.expr);
        known.push(key.expr.clone());
        fresh
    });
    keys.len() < before
}

fn complete_distinct(mut on: DistinctOn) -> DistinctOn {
    let mut known: Vec<Expr> = Vec::with_capacity(on.on_expr.len());
    for expr in std::mem::take(&mut on.on_expr) {
        if !known.contains(&expr) {
            known.push(expr);
        }
    }
    on.on_expr = known;
    let mut order = on.sort_expr.take().unwrap_or_default();
    without_repeated(&mut order);
    if order.is_empty() {
        order.extend(on.on_expr.iter().cloned().map(ascending));
    }
    let known: Vec<&Expr> = order.iter().map(|key| &key.expr).collect();
    let more = missing(&on.input, &known);
    order.extend(more);
    on.sort_expr = Some(order);
    on
}

/// Replaces calls in a Window node; those that changed get their old names back in a projection above.
fn windows(window: Window) -> Result<Transformed<LogicalPlan>> {
    let mut calls = Vec::with_capacity(window.window_expr.len());
    let mut changed = false;
    for call in &window.window_expr {
        let completed = match call {
            Expr::WindowFunction(function) => complete_window(function, &window.input),
            _ => None,
        };
        changed |= completed.is_some();
        calls.push(completed.unwrap_or_else(|| call.clone()));
    }
    match changed {
        false => Ok(Transformed::no(LogicalPlan::Window(window))),
        true => with_calls(window, calls),
    }
}

/// The window with other calls, under the names of those that it has.
pub(super) fn with_calls(window: Window, calls: Vec<Expr>) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(&window.input);
    let mut items: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    for (call, at) in calls.iter().zip(items.len()..) {
        let (qualifier, field) = window.schema.qualified_field(at);
        let column = Expr::Column(Column::from_name(call.schema_name().to_string()));
        items.push(column.alias_qualified(qualifier.cloned(), field.name()));
    }
    let mut different: Vec<Expr> = Vec::with_capacity(calls.len());
    for call in calls {
        if !different.contains(&call) {
            different.push(call);
        }
    }
    // Calls that were alike may differ now: each ordering is a node of its own.
    let plan = LogicalPlanBuilder::window_plan(Arc::unwrap_or_clone(input), different)?;
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(plan))?)))
}

/// What a window function takes from the order of its rows.
enum Depends {
    /// Nothing that peers differ in.
    Not,
    /// The order of all rows of the partition.
    OnOrder,
    /// The last (or first) row of the current row's peers.
    OnPeers,
}

fn depends(function: &WindowFunction) -> Depends {
    let params = &function.params;
    let frame = &params.window_frame;
    let (start, end) = (&frame.start_bound, &frame.end_bound);
    let plain = params.null_treatment != Some(NullTreatment::IgnoreNulls);
    let by_rows = frame.units == WindowFrameUnits::Rows;
    let whole = start.is_unbounded() && end.is_unbounded();
    let (starts_free, ends_free) = (free(start), free(end));
    match function.fun.name() {
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" => Depends::Not,
        "row_number" | "ntile" | "lag" | "lead" => Depends::OnOrder,
        _ if by_rows || (whole && params.order_by.is_empty()) => Depends::OnOrder,
        "first_value" if start.is_unbounded() && ends_free && plain => Depends::OnOrder,
        "first_value" if matches!(start, WindowFrameBound::CurrentRow) && ends_free && plain => {
            Depends::OnPeers
        }
        "last_value" if end.is_unbounded() && starts_free && plain => Depends::OnOrder,
        "last_value" if matches!(end, WindowFrameBound::CurrentRow) && starts_free && plain => {
            Depends::OnPeers
        }
        "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg" if whole => Depends::OnOrder,
        _ => Depends::Not,
    }
}

/// Whether a bound is no distance.
pub(super) fn free(bound: &WindowFrameBound) -> bool {
    matches!(bound, WindowFrameBound::CurrentRow) || bound.is_unbounded()
}

/// Whether the order of rows can't show: the frame is the whole partition and the function ignores order.
fn ignores_order(function: &WindowFunction) -> bool {
    let frame = &function.params.window_frame;
    let whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    whole
        && matches!(
            function.fun.name(),
            "sum"
                | "avg"
                | "count"
                | "min"
                | "max"
                | "bool_and"
                | "bool_or"
                | "bit_and"
                | "bit_or"
                | "bit_xor"
                | "median"
        )
}

fn complete_window(function: &WindowFunction, input: &LogicalPlan) -> Option<Expr> {
    let params = &function.params;
    let known: Vec<&Expr> =
        params.partition_by.iter().chain(params.order_by.iter().map(|key| &key.expr)).collect();
    let more = missing(input, &known);
    if more.is_empty() || ignores_order(function) {
        return None;
    }
    let mut completed = function.clone();
    let params = &mut completed.params;
    match depends(function) {
        Depends::Not => return None,
        Depends::OnOrder => {
            params.order_by.extend(more);
            let frame = &params.window_frame;
            if frame.units == WindowFrameUnits::Range && !(free(&frame.start_bound) && free(&frame.end_bound))
            {
                // A distance is measured along one key only; what gets here ignores its frame.
                params.window_frame = WindowFrame::new(Some(true));
            }
        }
        Depends::OnPeers => {
            let peers = std::mem::take(&mut params.order_by);
            params.partition_by.extend(peers.into_iter().map(|key| key.expr));
            params.order_by = more;
            params.window_frame = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::Following(ScalarValue::UInt64(None)),
            );
        }
    }
    Some(Expr::WindowFunction(Box::new(completed)))
}

/// Replaces calls in an Aggregate node; those that changed get their old names back in a projection above.
fn aggregates(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(aggregate.input.schema());
    let mut changed = false;
    let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
    for call in &aggregate.aggr_expr {
        let completed = call.clone().transform_up(|part| match part {
            Expr::AggregateFunction(function) => complete_aggregate(function, &schema),
            other => Ok(Transformed::no(other)),
        })?;
        changed |= completed.transformed;
        calls.push(completed.data);
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let first = aggregate.schema.fields().len() - calls.len();
    let mut items: Vec<Expr> =
        (0..first).map(|at| Expr::Column(Column::from(aggregate.schema.qualified_field(at)))).collect();
    let mut different: Vec<Expr> = Vec::with_capacity(calls.len());
    for (at, call) in calls.into_iter().enumerate() {
        let (qualifier, field) = aggregate.schema.qualified_field(first + at);
        let column = Expr::Column(Column::from_name(call.schema_name().to_string()));
        items.push(column.alias_qualified(qualifier.cloned(), field.name()));
        if !different.contains(&call) {
            different.push(call);
        }
    }
    let node = LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, aggregate.group_expr, different)?);
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(items, Arc::new(node))?)))
}

fn complete_aggregate(
    mut function: AggregateFunction,
    schema: &datafusion::common::DFSchema,
) -> Result<Transformed<Expr>> {
    use datafusion::logical_expr::ExprSchemable;

    let name = function.func.name();
    if name == "any_value" {
        let simple = function.params.args.first().map(|argument| argument.get_type(schema)).transpose()?;
        if simple.is_some_and(|found| !found.is_nested()) {
            function.func = min_udaf();
            function.params.order_by.clear();
            function.params.null_treatment = None;
            return Ok(Transformed::yes(Expr::AggregateFunction(function)));
        }
    }
    if !matches!(name, "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value" | "any_value")
    {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    }
    let mut more = Vec::new();
    for argument in &function.params.args {
        let known = function.params.order_by.iter().any(|key| key.expr == *argument);
        let constant = matches!(argument, Expr::Literal(..));
        if !known && !constant && orderable(&argument.get_type(schema)?) {
            more.push(ascending(argument.clone()));
        }
    }
    let repeated = without_repeated(&mut function.params.order_by);
    match more.is_empty() && !repeated {
        true => Ok(Transformed::no(Expr::AggregateFunction(function))),
        false => {
            function.params.order_by.extend(more);
            Ok(Transformed::yes(Expr::AggregateFunction(function)))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table(
                "t",
                "(p INT, o INT, x TEXT, y DOUBLE)",
                "VALUES (1, 1, 'c', 1), (1, 1, 'a', 2), (1, 1, 'b', 3), (1, 2, 'd', 4), (2, 1, 'e', 5), (2, 1, 'f', NULL), (2, NULL, 'g', 6)",
            )
            .table("k", "(id INT PRIMARY KEY, o INT, m TEXT)", "VALUES (1, 1, 'z'), (2, 1, 'y'), (3, 1, 'x')")
    }

    #[test]
    fn limits_take_the_first_of_equal_rows_by_all_columns() {
        let tables = tables();
        tables.check("SELECT x FROM t ORDER BY o LIMIT 2", &["a", "b"]);
        tables.check("SELECT x, o FROM t ORDER BY o LIMIT 2", &["a|1", "b|1"]);
        tables.check("SELECT x FROM t ORDER BY p, o OFFSET 1 LIMIT 1", &["b"]);
        tables.check("SELECT * FROM t LIMIT 2", &["1|1|a|2.0", "1|1|b|3.0"]);
        tables.check("SELECT x FROM t OFFSET 5", &["f", "g"]);
        tables.check("SELECT * FROM (SELECT x FROM t ORDER BY o LIMIT 3) LIMIT 1", &["a"]);
        tables.check("SELECT x FROM (SELECT x, o FROM t ORDER BY o) AS s LIMIT 1", &["a"]);
        tables.check("SELECT (SELECT x FROM t ORDER BY o LIMIT 1)", &["a"]);
        tables.check("SELECT id FROM k ORDER BY o LIMIT 1", &["1"]);
        tables.check("SELECT count(*) FROM t LIMIT 1", &["7"]);
    }

    #[test]
    fn a_key_completes_an_ordering_alone() {
        let tables = tables();
        let plan = tables.plan("SELECT * FROM k ORDER BY o LIMIT 1");
        assert!(plan.starts_with("Sort: k.o ASC NULLS LAST, k.id ASC NULLS LAST, fetch=1"), "{plan}");
        let plan = tables.plan("SELECT * FROM k JOIN t ON k.o = t.o ORDER BY k.id LIMIT 1");
        assert!(plan.contains("k.id ASC NULLS LAST") && plan.contains("t.x ASC NULLS LAST"), "{plan}");
    }

    #[test]
    fn distinct_on_keeps_the_first_by_all_columns() {
        let tables = tables();
        tables.check("SELECT DISTINCT ON (p) p, x FROM t", &["1|a", "2|e"]);
        tables.check("SELECT DISTINCT ON (p) p, x FROM t ORDER BY p, o DESC NULLS LAST", &["1|d", "2|e"]);
        tables.check("SELECT DISTINCT ON (p) x FROM t ORDER BY p DESC LIMIT 1", &["e"]);
        tables.check("SELECT DISTINCT ON (p, p) x FROM t ORDER BY p, p DESC, x DESC LIMIT 1", &["d"]);
    }

    #[test]
    fn what_depends_on_the_order_among_peers_has_one() {
        let tables = tables();
        tables.check(
            "SELECT x, row_number() OVER (PARTITION BY p ORDER BY o) FROM t WHERE p = 1",
            &["a|1", "b|2", "c|3", "d|4"],
        );
        tables.check(
            "SELECT x, lag(x) OVER (ORDER BY p) FROM t WHERE o = 1",
            &["a|NULL", "b|a", "c|b", "e|c", "f|e"],
        );
        tables.check("SELECT x, ntile(2) OVER () FROM t WHERE p = 1", &["a|1", "b|1", "c|2", "d|2"]);
        tables.check(
            "SELECT x, first_value(x) OVER (ORDER BY o) FROM t WHERE p = 1",
            &["a|a", "b|a", "c|a", "d|a"],
        );
        tables.check(
            "SELECT x, sum(o) OVER (ORDER BY p ROWS 1 PRECEDING) FROM t WHERE o IS NOT NULL",
            &["a|1", "b|2", "c|2", "d|3", "e|3", "f|2"],
        );
        tables.check("SELECT x, row_number() OVER () AS n FROM t WHERE p = 2", &["e|1", "f|2", "g|3"]);
    }

    #[test]
    fn peers_stay_peers() {
        let tables = tables();
        tables.check(
            "SELECT x, rank() OVER (ORDER BY o), dense_rank() OVER (ORDER BY o) FROM t WHERE p = 1",
            &["a|1|1", "b|1|1", "c|1|1", "d|4|2"],
        );
        tables
            .check("SELECT x, count(*) OVER (ORDER BY o) FROM t WHERE p = 1", &["a|3", "b|3", "c|3", "d|4"]);
        tables.check(
            "SELECT x, sum(y) OVER (ORDER BY o) FROM t WHERE p = 1",
            &["a|6.0", "b|6.0", "c|6.0", "d|10.0"],
        );
        tables.check(
            "SELECT x, last_value(x) OVER (PARTITION BY p ORDER BY o) FROM t WHERE p = 1",
            &["a|c", "b|c", "c|c", "d|d"],
        );
        tables.check(
            "SELECT x, last_value(x) OVER (ORDER BY o RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM t WHERE p = 1",
            &["a|d", "b|d", "c|d", "d|d"],
        );
        tables.check(
            "SELECT x, first_value(x) OVER (ORDER BY o RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM t WHERE p = 1",
            &["a|a", "b|a", "c|a", "d|d"],
        );
    }

    #[test]
    fn different_needs_over_one_window_are_kept_apart_and_names_stay() {
        let tables = tables();
        let sql = "SELECT x, rank() OVER w AS r, row_number() OVER w, row_number() OVER w + 1 AS n, count(*) OVER w \
                   FROM t WHERE p = 1 WINDOW w AS (ORDER BY o)";
        tables.check(sql, &["a|1|1|2|3", "b|1|2|3|3", "c|1|3|4|3", "d|4|4|5|4"]);
        let query = tables.planner.query("SELECT row_number() OVER (ORDER BY o) FROM t", &tables).unwrap();
        let name = query.schema.field(0).name();
        assert_eq!(
            name,
            "row_number() ORDER BY [t.o ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        );
    }

    #[test]
    fn aggregates_that_depend_on_order_have_one() {
        let tables = tables();
        tables.check("SELECT p, array_agg(x) FROM t GROUP BY p", &["1|[a, b, c, d]", "2|[e, f, g]"]);
        tables.check("SELECT string_agg(x, ',' ORDER BY o DESC NULLS LAST) FROM t WHERE p = 1", &["d,a,b,c"]);
        tables.check("SELECT string_agg(x, ',') FROM t", &["a,b,c,d,e,f,g"]);
        tables.check(
            "SELECT array_agg(DISTINCT o), string_agg(DISTINCT x, '-') FROM t WHERE p = 1",
            &["[1, 2]|a-b-c-d"],
        );
        tables.check("SELECT first_value(x), last_value(x), nth_value(x, 2) FROM t", &["a|g|b"]);
        tables.check("SELECT first_value(x ORDER BY o) FROM t", &["a"]);
        tables.check("SELECT p, any_value(x) FROM t GROUP BY p", &["1|a", "2|e"]);
        tables.check("SELECT array_agg(x) FILTER (WHERE o = 1), count(*) FROM t", &["[a, b, c, e, f]|7"]);
        let query =
            tables.planner.query("SELECT array_agg(x), first_value(y ORDER BY o) FROM t", &tables).unwrap();
        let names: Vec<&str> = query.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["array_agg(t.x)", "first_value(t.y) ORDER BY [t.o ASC NULLS LAST]"]);
    }

    #[test]
    fn grouping_sets_keep_their_columns() {
        let tables = tables();
        tables.check(
            "SELECT p, array_agg(x), grouping(p) FROM t WHERE o = 1 GROUP BY ROLLUP(p)",
            &["1|[a, b, c]|0", "2|[e, f]|0", "NULL|[a, b, c, e, f]|1"],
        );
    }

    #[test]
    fn what_cannot_be_ordered_is_left_aside() {
        let tables = tables();
        tables.check("SELECT MAP {1: p} AS m, x FROM t ORDER BY p DESC LIMIT 1", &["{1: 2}|e"]);
        tables.check("SELECT MAP {1: 2} AS m LIMIT 1", &["{1: 2}"]);
    }

    #[test]
    fn functions_that_ignore_their_frame_may_have_any() {
        let over = "OVER (ORDER BY o RANGE BETWEEN 1 PRECEDING AND CURRENT ROW)";
        tables().check(
            &format!("SELECT x, row_number() {over}, count(*) {over} FROM t WHERE p = 1"),
            &["a|1|3", "b|2|3", "c|3|3", "d|4|4"],
        );
    }

    #[test]
    fn any_type_that_can_be_ordered_is() {
        let tables = tables();
        for (value, expected) in [
            ("[x]", "[a]"),
            ("named_struct('v', x)", "{v: a}"),
            ("x = 'a'", "false"),
            ("x::BYTEA", "61"),
            ("y::NUMERIC(5, 2)", "1.00"),
            ("DATE '2024-01-01' + p", "2024-01-02"),
            ("CASE WHEN p = 1 THEN INTERVAL '1 day' ELSE INTERVAL '2 days' END", "1 days"),
            ("TIMESTAMP '2024-01-01' - TIMESTAMP '2023-01-01'", "PT31536000S"),
            ("NULL", "NULL"),
            ("p::SMALLINT", "1"),
            ("y::REAL", "1.0"),
        ] {
            tables.check(&format!("SELECT v FROM (SELECT {value} AS v FROM t) LIMIT 1"), &[expected]);
        }
        tables.check("SELECT array_agg([x]) FROM t WHERE p = 2", &["[[e], [f], [g]]"]);
        tables.check(
            "SELECT array_agg(named_struct('v', x)) FROM t WHERE p = 2",
            &["[{v: e}, {v: f}, {v: g}]"],
        );
    }

    #[test]
    fn nested_columns_order_too() {
        let tables = Tables::new().table("n", "(a INT[], s INT)", "VALUES ([2], 1), ([1, 2], 1), (NULL, 1)");
        tables.check("SELECT a FROM n LIMIT 1", &["[1, 2]"]);
        tables.check("SELECT named_struct('v', a) AS q, s FROM n ORDER BY s LIMIT 1", &["{v: [1, 2]}|1"]);
    }
}
