//! `pg_typeof(x)` of a VARCHAR(n). Arrow's type of its values is that of TEXT, so the name comes from the declaration.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::declared_types::declared_in;
use crate::rules::names::{has_part, map_named};
use crate::tree_rewrite::TreeRewrite;

/// The analyzer rule.
#[derive(Debug, Default)]
pub struct TypeNames;

impl AnalyzerRule for TypeNames {
    fn name(&self) -> &str {
        "type_names"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.rewrite_up(resolve_in)?.data)
    }
}

fn resolve_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_part(&node, |part| asked(part).is_some())? {
        return Ok(Transformed::no(node));
    }
    let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
    map_named(node, |expression| {
        expression.rewrite_up(|part| {
            let declared = asked(&part).and_then(|value| declared_in(value, &inputs));
            Ok(match declared.is_some_and(|spelling| spelling.starts_with("VARCHAR(")) {
                true => Transformed::yes(lit(ScalarValue::Utf8View(Some("character varying".into())))),
                false => Transformed::no(part),
            })
        })
    })
}

/// Returns the value whose type an expression asks for.
fn asked(expression: &Expr) -> Option<&Expr> {
    match expression {
        Expr::ScalarFunction(call) if call.name() == "sql_typeof" => call.args.first(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn declared_lengths_have_a_name() {
        let tables = Tables::new().table("t", "(a VARCHAR(3), b TEXT)", "VALUES ('x', 'y')");
        tables.check("SELECT pg_typeof(a), pg_typeof(b) FROM t", &["character varying|text"]);
        tables.check(
            "SELECT pg_typeof(b::VARCHAR(2)) AS x, pg_typeof(left(b, 2)) AS y FROM t",
            &["character varying|text"],
        );
        let derived = "(SELECT b::VARCHAR(2) AS x FROM t) AS s";
        tables.check(&format!("SELECT pg_typeof(x) FROM {derived}"), &["character varying"]);
        tables.check("SELECT pg_typeof(a || b) FROM t", &["text"]);
    }
}
