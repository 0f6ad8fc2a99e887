//! Gives casts to integers, `round` and casts of bytes to text the results that they have in PostgreSQL.
//!
//! | expression | becomes |
//! | --- | --- |
//! | `x::INT` of a DOUBLE PRECISION | `CAST(round_half_even(x) AS INT)` |
//! | `x::INT` of a NUMERIC, `(v * 0.5)::INT` | `CAST(round_half_up(x) AS INT)` |
//! | `round(x)` of a DOUBLE PRECISION | `round_half_even(x)` |
//! | `bytes::TEXT` | `'\x' \|\| encode(bytes, 'hex')` |
//! | `CAST(bytes AS STRING)`, as in Spark and Flink | `convert_from(bytes, 'UTF8')` |
//!
//! The first pass sees what a statement says, before casts of operands and arguments are added. A second pass, after types
//! are resolved, sees the casts that rewrites of functions have added.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::functions::encoding;
use datafusion::functions::math::round::RoundFunc;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::postgres::byte_strings;
use crate::functions::rounding::{self, Mode};
use crate::rules::exact_numbers::is_numeric;
use crate::rules::names::{has_part, input_schema, map_named};
use crate::rules::retyped::retyped;
use crate::tree_rewrite::TreeRewrite;
use crate::type_names::{is_string, without_string};

/// The analyzer rule.
#[derive(Debug)]
pub struct PostgresCasts {
    /// True before types are resolved.
    pub(super) is_first: bool,
}

impl AnalyzerRule for PostgresCasts {
    fn name(&self) -> &str {
        if self.is_first { "postgres_casts" } else { "postgres_casts_of_functions" }
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        retyped(plan, |node| self.change_node(node))
    }
}

impl PostgresCasts {
    fn change_node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !has_part(&node, may_change)? {
            return Ok(Transformed::no(node));
        }
        let schema = input_schema(&node);
        let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
        let inputs: Vec<&LogicalPlan> = inputs.iter().collect();
        map_named(node, |expression| expression.rewrite_up(|part| self.change(part, &schema, &inputs)))
    }

    fn change(&self, part: Expr, schema: &DFSchema, inputs: &[&LogicalPlan]) -> Result<Transformed<Expr>> {
        Ok(match part {
            Expr::Cast(Cast { expr, field }) => self
                .cast(*expr, field, schema, inputs)
                .update_data(|(expr, field)| Expr::Cast(Cast { expr, field })),
            // Bytes that aren't UTF-8 are NULL.
            Expr::TryCast(TryCast { expr, field }) if is_string(&field) => {
                Transformed::yes(Expr::TryCast(TryCast { expr, field: without_string(field) }))
            }
            Expr::TryCast(TryCast { expr, field }) => self
                .cast(*expr, field, schema, inputs)
                .update_data(|(expr, field)| Expr::TryCast(TryCast { expr, field })),
            Expr::ScalarFunction(mut call) if self.is_first && is_round(&call.func, &call.args) => {
                let found = call.args[0].get_type(schema)?;
                match found.is_floating() && !is_numeric(&call.args[0], inputs) {
                    true => Transformed::yes(rounding::call(Mode::HalfEven, call.args.remove(0))),
                    false => Transformed::no(Expr::ScalarFunction(call)),
                }
            }
            other => Transformed::no(other),
        })
    }

    /// Returns what is cast, and the type.
    fn cast(
        &self,
        expr: Expr,
        field: FieldRef,
        schema: &DFSchema,
        inputs: &[&LogicalPlan],
    ) -> Transformed<(Box<Expr>, FieldRef)> {
        let is_marked = is_string(&field);
        let (written, field) = (Arc::clone(&field), without_string(field));
        let had_marks = field != written;
        let found = match expr.get_type(schema) {
            Ok(found) if !rounding::is_call(&expr) => found,
            _ => return Transformed::new_transformed((Box::new(expr), field), had_marks),
        };
        let changed = if rounding::rounds(&found) && rounding::leaf_type(field.data_type()).is_integer() {
            let mode = match is_numeric(&expr, inputs) {
                true => Mode::HalfUp,
                false => Mode::HalfEven,
            };
            rounding::call(mode, expr)
        } else if self.is_first && found.is_binary() && field.data_type().is_string() {
            if is_marked { byte_strings::read_utf8(expr) } else { hexadecimal(expr) }
        } else {
            return Transformed::new_transformed((Box::new(expr), field), had_marks);
        };
        Transformed::yes((Box::new(changed), field))
    }
}

/// True if the rule may change a part of an expression.
fn may_change(part: &Expr) -> bool {
    match part {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
            let target = field.data_type();
            target.is_integer() || target.is_string() || target.is_nested()
        }
        Expr::ScalarFunction(call) => is_round(&call.func, &call.args),
        _ => false,
    }
}

fn is_round(function: &ScalarUDF, arguments: &[Expr]) -> bool {
    arguments.len() == 1 && function.inner().is::<RoundFunc>()
}

/// Returns the text of bytes as PostgreSQL shows them.
fn hexadecimal(bytes: Expr) -> Expr {
    let digits = encoding::encode().call(vec![bytes, lit("hex")]);
    Expr::BinaryExpr(BinaryExpr::new(Box::new(lit("\\x")), Operator::StringConcat, Box::new(digits)))
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    fn tables() -> Tables {
        Tables::new()
            .table(
                "t",
                "(id INT, d DOUBLE, r REAL, n NUMERIC(4, 1), raw BYTEA)",
                "VALUES (1, 2.5, 0.5, 2.5, '\\x6162'), (2, -2.5, 1.5, -2.5, '\\xff'), (3, NULL, NULL, NULL, NULL)",
            )
            .table("whole", "(a INT, b SMALLINT[])", "SELECT d, [d, d + 1] FROM t WHERE id = 1")
            .view("halves", "SELECT id, id * 0.5 AS h, d FROM t")
    }

    #[test]
    fn casts_to_integers_round() {
        let tables = tables();
        tables.check(
            "SELECT d::INT, r::BIGINT, n::SMALLINT, TRY_CAST(d AS INT) FROM t",
            &["-2|2|-3|-2", "2|0|3|2", "NULL|NULL|NULL|NULL"],
        );
        tables.check("SELECT a, b FROM whole", &["2|[2, 4]"]);
        tables.check("SELECT 2.5::INT, (-2.5)::INT, 2.5::FLOAT8::INT, '2.5'::NUMERIC::INT", &["3|-3|2|3"]);
        tables.check(
            "SELECT ARRAY[0.5, 2.5]::INT[], ROW(2.5, 'a')::STRUCT<x INT, y TEXT>",
            &["[1, 3]|{x: 3, y: a}"],
        );
        tables.check("SELECT id FROM t WHERE d::INT = 2", &["1"]);
        tables.check("SELECT id FROM t WHERE n::INT = 3", &["1"]);
        tables.fails("SELECT 2147483647.5::INT", "2147483648.0 is out of the range of INT");
    }

    #[test]
    fn what_is_numeric_in_postgresql_is_rounded_away_from_zero() {
        let tables = tables();
        tables.check("SELECT (id * 0.5)::INT, round(id * 0.5) FROM t WHERE id = 1", &["1|1.0"]);
        tables.check("SELECT h::INT, round(h), round(h * d) FROM halves WHERE id = 1", &["1|1.0|1.0"]);
        tables.check(
            "SELECT round(avg(id)), round(avg(d)), round(sum(d)) FROM t WHERE id < 3",
            &["2.0|0.0|0.0"],
        );
        tables.check(
            "SELECT round(a / 2.0) FROM (SELECT sum(id) AS a FROM t GROUP BY id) AS s",
            &["1.0", "1.0", "2.0"],
        );
        tables.check("SELECT round(avg(id) OVER ()) FROM t WHERE id < 3", &["2.0", "2.0"]);
        tables.check("SELECT round(x) FROM (SELECT 0.5 AS x UNION ALL SELECT 2.5) AS s", &["1.0", "3.0"]);
        tables.check(
            "SELECT round(x) FROM (SELECT 0.5 AS x UNION ALL SELECT d FROM t) AS s",
            &["-2.0", "0.0", "2.0", "NULL"],
        );
        tables.check(
            "SELECT round(CASE WHEN id = 1 THEN 0.5 ELSE id END), round(coalesce(d, 0.5)) FROM t",
            &["1.0|2.0", "2.0|-2.0", "3.0|0.0"],
        );
        tables.check("SELECT x::INT FROM (VALUES (2.5), (1), (NULL)) AS v (x)", &["1", "3", "NULL"]);
        tables.check("SELECT round((SELECT 0.5)), round((SELECT max(d) FROM t))", &["1.0|2.0"]);
    }

    #[test]
    fn numeric_is_known_in_groups_arrays_and_recursion() {
        let tables = tables();
        tables.check(
            "SELECT round(avg(id)) FROM t WHERE id > 1 GROUP BY ROLLUP (id % 2)",
            &["2.0", "3.0", "3.0"],
        );
        tables.check(
            "SELECT round(h) FROM (SELECT id * 0.5 AS h FROM t GROUP BY CUBE (id * 0.5)) AS s",
            &["1.0", "1.0", "2.0", "NULL"],
        );
        tables.check(
            "SELECT round((ARRAY[0.5])[1]), round(nvl(NULL, 0.5)), round(0.5 ^ 1), round(sqrt(6.25))",
            &["1.0|1.0|1.0|3.0"],
        );
        tables.check("WITH RECURSIVE q AS (SELECT 0.5 AS x UNION ALL SELECT x + 1 FROM q WHERE x < 2) SELECT round(x) FROM q", &["1.0", "2.0", "3.0"]);
    }

    #[test]
    fn columns_of_nested_queries_are_found_in_bounded_time() {
        let mut sql = "SELECT d AS a FROM t".to_string();
        for at in 0..12 {
            sql = format!("SELECT a + a * 0.0 AS a FROM ({sql}) AS s{at}");
        }
        tables().check(&format!("SELECT round(a) FROM ({sql}) AS s"), &["-2.0", "2.0", "NULL"]);
    }

    #[test]
    fn round_of_a_double_rounds_to_the_even_number() {
        let tables = tables();
        tables.check(
            "SELECT round(d), round(r), round(n), round(d, 0) FROM t",
            &["-2.0|2.0|-3|-3.0", "2.0|0.0|3|3.0", "NULL|NULL|NULL|NULL"],
        );
        tables.check("SELECT round(2.5), round(0.5), round(2.5::FLOAT8)", &["3.0|1.0|2.0"]);
    }

    #[test]
    fn bytes_are_cast_to_hexadecimal_digits() {
        let tables = tables();
        tables.check(
            "SELECT raw::TEXT, raw::VARCHAR(3), upper(raw::TEXT) FROM t",
            &["NULL|NULL|NULL", "\\x6162|\\x6|\\X6162", "\\xff|\\xf|\\XFF"],
        );
        tables.check("SELECT CAST(raw AS STRING), convert_from(raw, 'UTF8') FROM t WHERE id = 1", &["ab|ab"]);
        tables.check("SELECT TRY_CAST(raw AS STRING) FROM t WHERE id = 2", &["NULL"]);
        tables.check("SELECT CAST(raw AS STRING) LIKE 'a%' FROM t WHERE id = 1", &["true"]);
        tables.check("SELECT CAST(id AS STRING) || 'x', STRING 'a' FROM t WHERE id = 1", &["1x|a"]);
    }
}
