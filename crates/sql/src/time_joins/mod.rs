//! Temporal joins: `ASOF JOIN`, which joins each left row with the one right row nearest in time, and joins
//! with a table `FOR SYSTEM_TIME AS OF` some moment.
//!
//! ```sql
//! SELECT * FROM trades t ASOF JOIN quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol = q.symbol
//! SELECT * FROM trades t ASOF LEFT JOIN quotes q ON t.symbol = q.symbol AND t.ts >= q.ts
//! SELECT * FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts r ON o.currency = r.currency
//! SELECT * FROM orders o JOIN rates FOR SYSTEM_TIME AS OF PROCTIME() r ON o.currency = r.currency
//! ```
//!
//! Such a join is put in parentheses in the parsed statement, like one with USING ([`crate::using_joins`]), so
//! that DataFusion asks the planner here. The version of a table as of a row's time is its nearest earlier
//! row, by the column that has a watermark: an ASOF JOIN. A join as of PROCTIME() is a lookup join
//! ([`lookup`]).
//!
//! Deliberately absent: an execution of its own for ASOF JOIN. [`as_of`] plans it as a union and OVER, which
//! batch and stream support.

mod as_of;
mod conditions;
mod lookup;
mod syntax;
mod versions;

use datafusion::common::Column;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{
    Expr as ExprTree, Join as JoinTree, JoinConstraint, JoinOperator, TableFactor,
};

use crate::error::Error;
use conditions::Conditions;
pub use lookup::LOOKED_UP;
pub(crate) use lookup::{is_in as looks_up, looked_up};
pub(crate) use syntax::{dialect, rewrite};

/// The parameters of a temporal join other than its keys.
#[derive(Debug)]
pub(crate) struct TimeJoin {
    /// True if left rows without a match are kept.
    left: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The nearest row, by this MATCH_CONDITION, or else by a comparison in the condition.
    Nearest(Option<ExprTree>),
    /// The row that was valid at this time of the left side.
    ValidAt(ExprTree),
    /// The rows that exist when a left row arrives.
    LookUp,
}

impl TimeJoin {
    /// Returns the parameters of a parsed temporal join; none for other joins.
    pub(crate) fn of(join: &JoinTree) -> Option<TimeJoin> {
        let (left, _) = syntax::in_time(join)?;
        let kind = match (&join.join_operator, syntax::version(&join.relation)) {
            (JoinOperator::AsOf { match_condition, .. }, _) => Kind::Nearest(Some(match_condition.clone())),
            (_, Some(at)) if versions::is_present(at) => Kind::LookUp,
            (_, Some(at)) => Kind::ValidAt(at.clone()),
            (_, None) => Kind::Nearest(None),
        };
        Some(TimeJoin { left, kind })
    }

    /// Returns a temporal join's constraint, and true if left rows without a match are kept.
    pub(crate) fn constraint(join: &JoinTree) -> Option<(bool, &JoinConstraint)> {
        syntax::in_time(join)
    }

    /// Plans a join by columns that both sides have. Without a MATCH_CONDITION the last of them is the time.
    pub(crate) fn by_columns(
        self,
        left: LogicalPlan,
        right: LogicalPlan,
        mut keys: Vec<(Column, Column)>,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<LogicalPlan> {
        let time = match self.kind {
            Kind::Nearest(None) => Some(keys.pop().ok_or_else(conditions::no_time)?),
            _ => None,
        };
        let mut conditions = Conditions::default();
        conditions.keys.extend(keys.into_iter().map(|(l, r)| (Expr::Column(l), Expr::Column(r))));
        conditions.time = time.map(|(l, r)| (Expr::Column(l), Operator::GtEq, Expr::Column(r)));
        self.plan(left, right, conditions, None, context)
    }

    fn on(
        self,
        left: LogicalPlan,
        right: LogicalPlan,
        constraint: JoinConstraint,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<LogicalPlan> {
        let on = match constraint {
            JoinConstraint::On(on) => Some(on),
            JoinConstraint::None => None,
            JoinConstraint::Using(_) | JoinConstraint::Natural => {
                return Err(Error::unsupported("a join in time with these columns in USING").into());
            }
        };
        self.plan(left, right, Conditions::default(), on, context)
    }

    /// Plans a join by resolved conditions and a written one.
    fn plan(
        self,
        left: LogicalPlan,
        right: LogicalPlan,
        mut conditions: Conditions,
        on: Option<ExprTree>,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<LogicalPlan> {
        let written = match self.kind {
            Kind::LookUp => {
                let both = left.schema().join(right.schema())?;
                let mut parts: Vec<Expr> = conditions.keys.into_iter().map(|(l, r)| l.eq(r)).collect();
                if let Some(on) = on {
                    parts.push(context.sql_to_expr(on, &both)?);
                }
                return lookup::plan(left, right, self.left, parts);
            }
            Kind::ValidAt(at) => {
                conditions.time = Some(versions::valid_at(at, &left, &right, context)?);
                None
            }
            Kind::Nearest(written) => written,
        };
        for written in on.into_iter().chain(written) {
            conditions.take(written, (&left, &right), context)?;
        }
        as_of::plan(left, right, self.left, conditions)
    }
}

/// Plans temporal joins that are alone in parentheses.
#[derive(Debug)]
pub(crate) struct TimeJoins;

impl RelationPlanner for TimeJoins {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> PlanResult<RelationPlanning> {
        let (table_with_joins, alias) = match relation {
            TableFactor::Table { version: Some(_), .. } => return Err(versions::misplaced().into()),
            TableFactor::NestedJoin { table_with_joins, alias } => (table_with_joins, alias),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let asked = match table_with_joins.joins.as_slice() {
            [join] => TimeJoin::of(join),
            _ => None,
        };
        let Some(asked) = asked else {
            return Ok(RelationPlanning::Original(Box::new(TableFactor::NestedJoin {
                table_with_joins,
                alias,
            })));
        };
        let constraint = table_with_joins.joins.first().and_then(TimeJoin::constraint);
        let constraint = constraint.map_or(JoinConstraint::None, |(_, constraint)| constraint.clone());
        let left = context.plan(table_with_joins.relation)?;
        let mut right =
            table_with_joins.joins.into_iter().map(|join| context.plan(at_present(join.relation)));
        let right = right.next().ok_or_else(|| Error::bug("a join without a right side"))??;
        let plan = asked.on(left, right, constraint, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// Removes the moment from the right side of a temporal join.
pub(crate) fn at_present(mut factor: TableFactor) -> TableFactor {
    if let (true, TableFactor::Table { version, .. }) = (syntax::version(&factor).is_some(), &mut factor) {
        *version = None;
    }
    factor
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table(
                "t",
                "(k TEXT, at INT)",
                "VALUES ('a', 1), ('a', 5), ('a', 5), ('a', 9), ('b', 4), (NULL, 5), ('a', NULL), ('c', 3)",
            )
            .table(
                "q",
                "(k TEXT, ts BIGINT, p INT)",
                "VALUES ('a', 2, 20), ('a', 5, 50), ('a', 5, NULL), ('b', 4, 40), (NULL, 5, 1), ('a', NULL, 2)",
            )
    }

    /// Checks all spellings of the join of t and q by a comparison.
    #[track_caller]
    fn check(compared: &str, inner: &[&str], left: &[&str]) {
        let tables = tables();
        let columns = "SELECT t.k, t.at, q.ts, q.p FROM t";
        for (from, expected) in [
            (format!("ASOF JOIN q MATCH_CONDITION (t.at {compared} q.ts) ON t.k = q.k"), inner),
            (format!("ASOF JOIN q ON t.k = q.k AND t.at {compared} q.ts"), inner),
            (format!("INNER ASOF JOIN q MATCH_CONDITION (t.at {compared} q.ts) USING (k)"), inner),
            (format!("LEFT ASOF JOIN q MATCH_CONDITION (t.at {compared} q.ts) ON q.k = t.k"), left),
            (format!("ASOF LEFT JOIN q ON t.at {compared} q.ts AND t.k = q.k"), left),
            (format!("LEFT OUTER ASOF JOIN q MATCH_CONDITION (t.at {compared} q.ts) USING (k)"), left),
        ] {
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            tables.check(&format!("{columns} {from}"), &expected);
        }
    }

    #[test]
    fn the_nearest_row_before_or_after() {
        // Of two rows at the same time, the one whose columns sort last matches: NULL.
        let none = ["NULL|5|NULL|NULL", "a|NULL|NULL|NULL"];
        let with = |rows: &[&'static str]| [rows, &none].concat();
        let found = ["a|5|5|NULL", "a|5|5|NULL", "a|9|5|NULL", "b|4|4|40"];
        check(">=", &found, &with(&[&found[..], &["a|1|NULL|NULL", "c|3|NULL|NULL"]].concat()));
        let found = ["a|5|2|20", "a|5|2|20", "a|9|5|NULL"];
        check(
            ">",
            &found,
            &with(&[&found[..], &["a|1|NULL|NULL", "b|4|NULL|NULL", "c|3|NULL|NULL"]].concat()),
        );
        let found = ["a|1|2|20", "a|5|5|NULL", "a|5|5|NULL", "b|4|4|40"];
        check("<=", &found, &with(&[&found[..], &["a|9|NULL|NULL", "c|3|NULL|NULL"]].concat()));
        let found = ["a|1|2|20"];
        let none = ["a|5|NULL|NULL", "a|5|NULL|NULL", "a|9|NULL|NULL", "b|4|NULL|NULL", "c|3|NULL|NULL"];
        check("<", &found, &with(&[&found[..], &none].concat()));
    }

    #[test]
    fn such_joins_stand_among_others() {
        let tables = tables();
        tables.check(
            "SELECT t.at, q.p, u.p FROM t ASOF JOIN q ON t.k = q.k AND t.at > q.ts JOIN q u ON u.k = t.k AND u.ts = t.at",
            &["5|20|50", "5|20|50", "5|20|NULL", "5|20|NULL"],
        );
        tables.check(
            "SELECT x.k, x.at, x.p, y.p FROM (t JOIN q USING (k)) x ASOF LEFT JOIN q y ON x.k = y.k AND x.at < y.ts \
             WHERE x.p = 40",
            &["b|4|40|NULL"],
        );
        tables.check(
            "SELECT k, at FROM t ASOF JOIN q MATCH_CONDITION (at > ts) USING (k) WHERE k = 'a'",
            &["a|5", "a|5", "a|9"],
        );
        tables.check("SELECT t.k, p FROM t ASOF JOIN q ON t.at > q.ts WHERE t.at < 5", &["b|20", "c|20"]);
        tables.check(
            "SELECT * FROM (SELECT at AS ts, k FROM t) x ASOF JOIN q USING (k, ts) WHERE k = 'b'",
            &["b|4|40"],
        );
        tables.check(
            "SELECT t.at FROM t WHERE EXISTS (SELECT 1 FROM t x ASOF JOIN q ON x.k = q.k AND x.at >= q.ts WHERE x.at > t.at)",
            &["1", "3", "4", "5", "5", "5"],
        );
    }

    #[test]
    fn what_is_wrong_with_them_is_said() {
        let tables = tables();
        let fails = |from: &str, expected: &str| {
            let error = tables.planner.query(&format!("SELECT * FROM {from}"), &tables).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        };
        fails("t ASOF JOIN q ON t.k = q.k", "ASOF JOIN: its condition compares no times of both sides");
        fails("t ASOF JOIN q ON t.at > q.ts AND t.at < q.ts + 3", "its condition compares the sides twice");
        fails(
            "t ASOF JOIN q ON t.at > q.ts AND q.p > 3",
            "a term is not a comparison of a value of the left side",
        );
        fails(
            "t ASOF JOIN q ON t.at > q.ts OR t.k = q.k",
            "a term is not a comparison of a value of the left side",
        );
        fails("t ASOF RIGHT JOIN q ON t.at > q.ts", "RIGHT ASOF JOIN is not supported yet");
        fails("t FULL ASOF JOIN q MATCH_CONDITION (t.at > q.ts)", "FULL ASOF JOIN is not supported yet");
        fails("t GLOBAL JOIN q ON t.k = q.k", "GLOBAL JOIN is not supported yet");
        fails("t ASOF JOIN q ON t.k = q.k AND ARRAY[t.at] >= q.ts", "which can't be compared");
    }
}
