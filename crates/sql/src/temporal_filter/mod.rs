//! Temporal filters: the present time in a continuous query, as in `WHERE ts > now() - INTERVAL '1 hour'`.
//!
//! Such a condition compares a value of the row with a value that never decreases over time. So each row
//! passes from some time on, or until some time. Timers insert and delete the rows, and nothing is
//! recomputed. In the plan of a continuous query, each of these conditions is a Filter of its own: `row >
//! epoch_time() - …`.
//!
//! The optimizer would treat the present time as a constant, and move and merge expressions over it.
//! Therefore it sees each condition as one function of the row ([`condition`]), which can move wherever the
//! row's columns go. Afterwards the condition is restored.
//!
//! Deliberately absent: the timers, which belong to an operator.

pub(crate) mod clock;
mod condition;
mod monotonicity;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::logical_expr::logical_plan::{Filter, Join};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::determinism;
use crate::error::{Error, Result};
use crate::planner::{Planner, Query};
use crate::tree_rewrite::TreeRewrite;
use crate::zones::UTC;
pub use clock::at;
use clock::{asked, asks, replace_clocks};
pub(crate) use clock::{clock_of_parts, clock_parts};
use condition::Condition;
pub(crate) use monotonicity::{Obstacle, TimeArgument};

type PlanResult<T> = datafusion::error::Result<T>;

impl Query {
    /// Fails if the query calls functions that return another value each time.
    pub fn check_determinism(&self) -> Result<()> {
        determinism::check(&self.raw)
    }
}

impl Planner {
    /// Converts a query to a continuous one. Temporal filters insert and delete its rows as time passes, see
    /// [`crate::at`]. Fails on clauses that a continuous query can't contain.
    pub fn continuous(&self, query: &mut Query) -> Result<()> {
        query.check_determinism()?;
        if asks(&query.raw)? {
            let zone = self.state().config_options().execution.time_zone.as_deref().unwrap_or(UTC);
            let analysed =
                self.analysed(replace_clocks(query.raw.clone(), zone, self.level.timestamp_unit())?)?;
            let hidden = hidden(analysed)?;
            // A filter above a semi join can't see both sides. For a condition over both, keep the join.
            query.plan = match placed(self.optimized(hidden.clone(), "")?) {
                Ok(plan) => plan,
                Err(_) => placed(self.optimized(hidden, "eliminate_join")?)?,
            };
        }
        Ok(())
    }
}

/// Replaces each condition on the present time in a typed plan by one function of the row. Fails if the plan
/// reads the present time anywhere else.
fn hidden(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.rewrite_down(|node| match node {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            let predicate = hide(predicate, input.schema())?;
            predicate.map_data(|predicate| Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
        }
        LogicalPlan::Join(mut join) => match join.filter.take() {
            Some(filter) => {
                let filter = hide(filter, &join.schema)?;
                Ok(filter.update_data(|filter| LogicalPlan::Join(Join { filter: Some(filter), ..join })))
            }
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    refuse_all(&plan.data, asked)?;
    Ok(plan.data)
}

/// Replaces each condition on the present time in a predicate by a function.
fn hide(predicate: Expr, schema: &datafusion::common::DFSchema) -> PlanResult<Transformed<Expr>> {
    if asked(&predicate).is_none() {
        return Ok(Transformed::no(predicate));
    }
    let mut hidden = Vec::new();
    for part in split_conjunction_owned(predicate) {
        match condition::read(&part, schema)? {
            Some(conditions) => hidden.extend(conditions),
            None => hidden.push(part),
        }
    }
    let hidden = conjunction(hidden).ok_or_else(|| Error::bug("a condition of no parts"))?;
    Ok(Transformed::yes(hidden))
}

/// Turns each condition on the present time in an optimised plan into a Filter of its own.
fn placed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.rewrite_up(|node| match node {
        LogicalPlan::Filter(Filter { predicate, input, .. }) => match taken_out(predicate) {
            (rest, Some(conditions)) => {
                let input = match rest {
                    Some(rest) => LogicalPlan::Filter(Filter::try_new(rest, input)?),
                    None => std::sync::Arc::unwrap_or_clone(input),
                };
                Ok(Transformed::yes(above(input, conditions)?))
            }
            (Some(rest), None) => Ok(Transformed::no(LogicalPlan::Filter(Filter::try_new(rest, input)?))),
            (None, None) => Err(Error::bug("a filter without a condition").into()),
        },
        LogicalPlan::Join(mut join) if join.join_type == JoinType::Inner => {
            let Some(filter) = join.filter.take() else {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            };
            let (rest, conditions) = taken_out(filter);
            let join = LogicalPlan::Join(Join { filter: rest, ..join });
            match conditions {
                Some(conditions) => Ok(Transformed::yes(above(join, conditions)?)),
                None => Ok(Transformed::no(join)),
            }
        }
        other => Ok(Transformed::no(other)),
    })?;
    refuse_all(&plan.data, Condition::found)?;
    refuse_recursion(&plan.data)?;
    Ok(plan.data)
}

/// Takes the conditions on the present time out of a predicate's conjuncts. Returns the rest, and the
/// conditions if there are any.
fn taken_out(predicate: Expr) -> (Option<Expr>, Option<Vec<Expr>>) {
    let (mut rest, mut conditions) = (Vec::new(), Vec::new());
    for part in split_conjunction_owned(predicate) {
        match Condition::written_out(&part) {
            Some(condition) => conditions.push(condition),
            None => rest.push(part),
        }
    }
    (conjunction(rest), (!conditions.is_empty()).then_some(conditions))
}

fn above(mut input: LogicalPlan, conditions: Vec<Expr>) -> PlanResult<LogicalPlan> {
    for condition in conditions {
        input = LogicalPlan::Filter(Filter::try_new(condition, input.into())?);
    }
    Ok(input)
}

/// Fails if an expression of a plan contains a part for which `found` returns a function of the present time.
fn refuse_all(plan: &LogicalPlan, found: fn(&Expr) -> Option<&'static str>) -> Result<()> {
    let mut name = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            name = name.or_else(|| found(expression));
            Ok(if name.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    match name {
        Some(name) => Err(misplaced(name)),
        None => Ok(()),
    }
}

/// Refuses a recursive query over the present time: it would have to be recomputed when rows pass the filter.
fn refuse_recursion(plan: &LogicalPlan) -> Result<()> {
    let mut asks_within = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::RecursiveQuery(query) = node {
            asks_within |= asks(&query.recursive_term)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match asks_within {
        true => {
            Err(Error::unsupported("now() in the recursive part of WITH RECURSIVE, in a continuous query,")
                .hint("Compare with now() in a query over the recursive one, or in its non-recursive term."))
        }
        false => Ok(()),
    }
}

/// The error for the present time in an unsupported place.
fn misplaced(name: &str) -> Error {
    Error::invalid(format!(
        "{name}() in a continuous query is supported only in a condition of WHERE that compares it with columns of a row"
    ))
    .hint(
        "Write it alone on one side of <, <=, >, >=, = or BETWEEN, plus or minus an interval, as in WHERE ts > now() - \
         INTERVAL '1 hour': rows enter and leave the result as time passes. Elsewhere a value would change \
         without any change of the \
         input. A query FOR EACH BATCH, or a SELECT, which runs once, may use the time anywhere.",
    )
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table(
                "t",
                "(id INT PRIMARY KEY, k INT, ts TIMESTAMP, z TIMESTAMPTZ)",
                "VALUES (1, 2, NULL, NULL)",
            )
            .table("u", "(k INT, until TIMESTAMPTZ)", "VALUES (2, NULL)")
            .view("recent", "SELECT * FROM t WHERE ts > now() - INTERVAL '1 hour'")
    }

    /// Returns the filters of a continuous query's plan.
    fn filters(sql: &str) -> Vec<String> {
        let tables = tables();
        let mut query = tables.planner.query(sql, &tables).unwrap();
        tables.planner.continuous(&mut query).unwrap();
        let text = query.plan.display_indent().to_string();
        let lines = text.lines().map(str::trim).filter_map(|line| line.strip_prefix("Filter: "));
        lines.map(String::from).collect()
    }

    #[test]
    fn each_condition_is_a_filter_of_its_own() {
        let hour = "IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 3600000000000 }\")";
        assert_eq!(
            filters("SELECT id FROM t WHERE now() - INTERVAL '1 hour' < z AND id > 0"),
            [format!("t.z > epoch_time() - {hour}"), "t.id > Int32(0)".into()]
        );
        assert_eq!(filters("SELECT id FROM t WHERE NOT (z < now())"), ["t.z >= epoch_time()"]);
        assert_eq!(
            filters("SELECT id FROM t WHERE z BETWEEN now() - INTERVAL '1 hour' AND now()"),
            ["t.z <= epoch_time()".to_string(), format!("t.z >= epoch_time() - {hour}")]
        );
        assert_eq!(
            filters("SELECT id FROM t WHERE INTERVAL '1 hour' > now() - z"),
            [format!("t.z > epoch_time() - {hour}")]
        );
        assert_eq!(
            filters("SELECT id FROM t WHERE z - now() >= INTERVAL '1 hour'"),
            [format!("t.z >= epoch_time() + {hour}")]
        );
    }

    #[test]
    fn conditions_go_where_their_columns_go() {
        assert_eq!(
            filters("SELECT t.id FROM t LEFT JOIN u ON t.k = u.k AND u.until > now()"),
            ["u.until > epoch_time()"]
        );
        // A join stays a join if a condition needs both sides, even if no column of its right side is used.
        let both = filters("SELECT u.k FROM u JOIN t ON t.id = u.k WHERE greatest(t.z, u.until) > now()");
        assert_eq!(both, ["greatest(t.z, u.until) > epoch_time()"]);
        let grouped = "SELECT k FROM recent GROUP BY k HAVING max(z) < now()";
        assert_eq!(filters(grouped).iter().filter(|filter| filter.contains("epoch_time()")).count(), 2);
    }

    #[track_caller]
    fn refused(condition: &str, expected: &str) {
        let tables = tables();
        let mut query =
            tables.planner.query(&format!("SELECT id FROM t WHERE {condition}"), &tables).unwrap();
        let error = tables.planner.continuous(&mut query).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.message);
        assert!(error.hint.is_some());
    }

    #[test]
    fn what_may_decrease_is_refused() {
        refused("z > now() - INTERVAL '1 month'", "now() plus or minus months");
        refused("z > date_trunc('hour', now()) - INTERVAL '1 month'", "now() plus or minus months");
        filters("SELECT id FROM t WHERE z > date_trunc('day', now()) - INTERVAL '1 month'");
        filters("SELECT id FROM t WHERE z::date > current_date - INTERVAL '1 year'");
        refused("extract(hour FROM now()) > id", "compares it with columns of a row");
        refused("z > now() OR id = 1", "compares it with columns of a row");
        refused("z <> now()", "compares it with columns of a row");
        // A month of a length has 30 days.
        filters("SELECT id FROM t WHERE now() - z < INTERVAL '1 month'");
        refused(
            "id IN (WITH RECURSIVE r AS (SELECT id FROM t UNION ALL SELECT r.id FROM r JOIN t ON t.k = r.id WHERE t.z < now()) SELECT id FROM r)",
            "WITH RECURSIVE",
        );
    }
}
