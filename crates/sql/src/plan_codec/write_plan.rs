//! Encodes the nodes of a plan as parts.

use datafusion::common::{Column, UnnestOptions};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::logical_plan::{Distinct, Join, TableScan, Unnest};
use serde_json::{Value, json};

use super::CodecResult;
use super::words::{JOINED_BY, JOINS, NULLS_ARE, UNNESTED_NULLS, word};
use super::write_expression::column_json;
use super::writer::{PlanEncoder, reference};

impl PlanEncoder<'_> {
    /// Adds a plan and returns the index of its root.
    pub(super) fn plan(&mut self, plan: &LogicalPlan) -> CodecResult<usize> {
        self.deeper(|writer| {
            let part = match plan {
                LogicalPlan::TableScan(scan) => writer.scan(scan)?,
                LogicalPlan::Join(join) => writer.join(join)?,
                LogicalPlan::Unnest(unnest) => writer.unnest(unnest)?,
                LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Window(_)
                | LogicalPlan::Aggregate(_) => writer.rows_by_rows(plan)?,
                other => writer.other_node(other)?,
            };
            Ok(writer.push(part))
        })
    }

    fn scan(&mut self, scan: &TableScan) -> CodecResult<Value> {
        if !scan.statistics_requests.is_empty() {
            return Err("a scan that is asked for statistics".into());
        }
        Ok(json!({
            "is": "scan", "name": reference(&scan.table_name), "source": self.source(&scan.source)?,
            "projection": scan.projection, "columns": self.columns(&scan.projected_schema),
            "filters": self.expressions(&scan.filters)?, "fetch": scan.fetch,
        }))
    }

    fn join(&mut self, join: &Join) -> CodecResult<Value> {
        let (left, right) = (self.plan(&join.left)?, self.plan(&join.right)?);
        let on = join.on.iter().map(|(left, right)| Ok([self.expression(left)?, self.expression(right)?]));
        let on = on.collect::<CodecResult<Vec<_>>>()?;
        Ok(json!({
            "is": "join", "left": left, "right": right, "on": on, "filter": self.optional(join.filter.as_ref())?,
            "kind": word(JOINS, &join.join_type)?, "by": word(JOINED_BY, &join.join_constraint)?,
            "nulls": word(NULLS_ARE, &join.null_equality)?, "null_aware": join.null_aware,
            "columns": self.columns(&join.schema),
        }))
    }

    fn unnest(&mut self, unnest: &Unnest) -> CodecResult<Value> {
        let UnnestOptions { null_handling, recursions } = &unnest.options;
        let recursions: Vec<Value> = recursions
            .iter()
            .map(|of| json!([column_json(&of.input_column), column_json(&of.output_column), of.depth]))
            .collect();
        let lists = unnest.list_type_columns.iter();
        let lists: Vec<Value> =
            lists.map(|(at, list)| json!([at, column_json(&list.output_column), list.depth])).collect();
        let executed: Vec<Value> =
            unnest.exec_columns.iter().map(|column: &Column| column_json(column)).collect();
        Ok(json!({
            "is": "unnested", "input": self.plan(&unnest.input)?, "executed": executed, "lists": lists,
            "structs": unnest.struct_type_columns, "dependencies": unnest.dependency_indices,
            "nulls": word(UNNESTED_NULLS, null_handling)?, "recursions": recursions,
            "columns": self.columns(&unnest.schema),
        }))
    }

    /// Encodes nodes of expressions over one input.
    fn rows_by_rows(&mut self, plan: &LogicalPlan) -> CodecResult<Value> {
        Ok(match plan {
            LogicalPlan::Projection(node) => json!({
                "is": "projection", "input": self.plan(&node.input)?, "expressions": self.expressions(&node.expr)?,
                "columns": self.columns(&node.schema),
            }),
            LogicalPlan::Filter(node) => json!({
                "is": "filter", "input": self.plan(&node.input)?, "predicate": self.expression(&node.predicate)?,
            }),
            LogicalPlan::Window(node) => json!({
                "is": "window", "input": self.plan(&node.input)?, "expressions": self.expressions(&node.window_expr)?,
                "columns": self.columns(&node.schema),
            }),
            LogicalPlan::Aggregate(node) => json!({
                "is": "group", "input": self.plan(&node.input)?, "by": self.expressions(&node.group_expr)?,
                "aggregates": self.expressions(&node.aggr_expr)?, "columns": self.columns(&node.schema),
            }),
            other => return Err(node_name(other)),
        })
    }

    fn other_node(&mut self, plan: &LogicalPlan) -> CodecResult<Value> {
        Ok(match plan {
            LogicalPlan::SubqueryAlias(node) => json!({
                "is": "aliased", "input": self.plan(&node.input)?, "name": reference(&node.alias),
                "columns": self.columns(&node.schema),
            }),
            LogicalPlan::Sort(node) => json!({
                "is": "sort", "input": self.plan(&node.input)?, "order": self.order(&node.expr)?, "fetch": node.fetch,
            }),
            LogicalPlan::Limit(node) => json!({
                "is": "limit", "input": self.plan(&node.input)?, "skip": self.optional(node.skip.as_deref())?,
                "fetch": self.optional(node.fetch.as_deref())?,
            }),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                json!({"is": "distinct", "input": self.plan(input)?})
            }
            LogicalPlan::Subquery(node) => json!({"is": "subquery", "query": self.subquery(node)?}),
            LogicalPlan::EmptyRelation(node) => json!({
                "is": "empty", "one_row": node.produce_one_row, "columns": self.columns(&node.schema),
            }),
            LogicalPlan::Union(node) => {
                let inputs =
                    node.inputs.iter().map(|input| self.plan(input)).collect::<CodecResult<Vec<_>>>()?;
                json!({"is": "union", "inputs": inputs, "columns": self.columns(&node.schema)})
            }
            LogicalPlan::Values(node) => {
                let rows =
                    node.values.iter().map(|row| self.expressions(row)).collect::<CodecResult<Vec<_>>>()?;
                json!({"is": "values", "rows": rows, "columns": self.columns(&node.schema)})
            }
            LogicalPlan::RecursiveQuery(node) => json!({
                "is": "recursive", "name": node.name, "first": self.plan(&node.static_term)?,
                "next": self.plan(&node.recursive_term)?, "distinct": node.is_distinct,
                "columns": self.columns(&node.schema),
            }),
            other => return Err(node_name(other)),
        })
    }
}

/// Returns the name of an unsupported node.
fn node_name(plan: &LogicalPlan) -> String {
    let shown = plan.display().to_string();
    format!("the plan's node {}", shown.split([':', ' ']).next().unwrap_or_default())
}
