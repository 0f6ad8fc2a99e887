//! Decodes the nodes of a plan from parts.

use std::collections::BTreeSet;

use datafusion::common::{RecursionUnnestOption, UnnestOptions};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::logical_plan::{
    Aggregate, ColumnUnnestList, Distinct, EmptyRelation, Filter, Join, Limit, Projection, RecursiveQuery,
    Sort, SubqueryAlias, TableScan, Union, Unnest, Values, Window,
};
use serde_json::Value;

use super::CodecResult;
use super::reader::{PlanDecoder, column, flag, list, member, number, numbers, reference, text};
use super::scans::maybe_number;
use super::words::{JOINED_BY, JOINS, NULLS_ARE, UNNESTED_NULLS, named};

impl PlanDecoder<'_> {
    /// Returns `None` if a part is not a node of a plan.
    pub(super) fn read_plan(&mut self, is: &str, part: &Value) -> CodecResult<Option<LogicalPlan>> {
        Ok(Some(match is {
            "scan" => self.read_scan(part)?,
            "join" => self.read_join(part)?,
            "unnested" => self.read_unnest(part)?,
            "projection" | "filter" | "window" | "group" => self.read_rows_by_rows(is, part)?,
            _ => return self.read_other_node(is, part),
        }))
    }

    fn read_scan(&mut self, part: &Value) -> CodecResult<LogicalPlan> {
        let projection = match member(part, "projection")? {
            Value::Null => None,
            all => Some(numbers(Some(all))?),
        };
        Ok(LogicalPlan::TableScan(TableScan {
            table_name: reference(part.get("name"))?,
            source: self.source(member(part, "source")?)?,
            projection,
            projected_schema: self.columns(part.get("columns"))?,
            filters: self.expressions(part.get("filters"))?,
            fetch: maybe_number(part.get("fetch"))?,
            statistics_requests: BTreeSet::new(),
        }))
    }

    fn read_join(&mut self, part: &Value) -> CodecResult<LogicalPlan> {
        let (left, right) = (self.plan(part.get("left"))?, self.plan(part.get("right"))?);
        let on = |of: &Value| Ok((self.expression(of.get(0))?, self.expression(of.get(1))?));
        let on = list(part.get("on"), on)?;
        Ok(LogicalPlan::Join(Join {
            left,
            right,
            on,
            filter: self.optional(part.get("filter"))?,
            join_type: named(JOINS, text(part, "kind")?)?,
            join_constraint: named(JOINED_BY, text(part, "by")?)?,
            schema: self.columns(part.get("columns"))?,
            null_equality: named(NULLS_ARE, text(part, "nulls")?)?,
            null_aware: flag(part.get("null_aware"))?,
        }))
    }

    fn read_unnest(&mut self, part: &Value) -> CodecResult<LogicalPlan> {
        let recursion = |of: &Value| {
            Ok(RecursionUnnestOption {
                input_column: column(of.get(0))?,
                output_column: column(of.get(1))?,
                depth: number(of.get(2))?,
            })
        };
        let of_list = |of: &Value| {
            let list = ColumnUnnestList { output_column: column(of.get(1))?, depth: number(of.get(2))? };
            Ok((number(of.get(0))?, list))
        };
        Ok(LogicalPlan::Unnest(Unnest {
            input: self.plan(part.get("input"))?,
            exec_columns: list(part.get("executed"), |of| column(Some(of)))?,
            list_type_columns: list(part.get("lists"), of_list)?,
            struct_type_columns: numbers(part.get("structs"))?,
            dependency_indices: numbers(part.get("dependencies"))?,
            schema: self.columns(part.get("columns"))?,
            options: UnnestOptions {
                null_handling: named(UNNESTED_NULLS, text(part, "nulls")?)?,
                recursions: list(part.get("recursions"), recursion)?,
            },
        }))
    }

    fn read_rows_by_rows(&mut self, is: &str, part: &Value) -> CodecResult<LogicalPlan> {
        let input = self.plan(part.get("input"))?;
        Ok(match is {
            "filter" => LogicalPlan::Filter(Filter::new(self.expression(part.get("predicate"))?, input)),
            "projection" => {
                let (expressions, columns) =
                    (self.expressions(part.get("expressions"))?, self.columns(part.get("columns"))?);
                LogicalPlan::Projection(
                    Projection::try_new_with_schema(expressions, input, columns).map_err(failed)?,
                )
            }
            "window" => LogicalPlan::Window(Window {
                input,
                window_expr: self.expressions(part.get("expressions"))?,
                schema: self.columns(part.get("columns"))?,
            }),
            _ => {
                let (by, aggregates) =
                    (self.expressions(part.get("by"))?, self.expressions(part.get("aggregates"))?);
                let columns = self.columns(part.get("columns"))?;
                let made = Aggregate::try_new_with_schema(input, by, aggregates, columns.clone());
                let mut made = made.map_err(failed)?;
                made.schema = columns;
                LogicalPlan::Aggregate(made)
            }
        })
    }

    fn read_other_node(&mut self, is: &str, part: &Value) -> CodecResult<Option<LogicalPlan>> {
        let input = part.get("input");
        Ok(Some(match is {
            "aliased" => {
                let input = self.plan(input)?;
                let made = SubqueryAlias::try_new(input.clone(), reference(part.get("name"))?);
                let mut made = made.map_err(failed)?;
                (made.input, made.schema) = (input, self.columns(part.get("columns"))?);
                LogicalPlan::SubqueryAlias(made)
            }
            "sort" => LogicalPlan::Sort(Sort {
                input: self.plan(input)?,
                expr: self.read_order(part.get("order"))?,
                fetch: maybe_number(part.get("fetch"))?,
            }),
            "limit" => LogicalPlan::Limit(Limit {
                input: self.plan(input)?,
                skip: self.optional(part.get("skip"))?.map(Box::new),
                fetch: self.optional(part.get("fetch"))?.map(Box::new),
            }),
            "distinct" => LogicalPlan::Distinct(Distinct::All(self.plan(input)?)),
            "subquery" => LogicalPlan::Subquery(self.read_subquery(member(part, "query")?)?),
            "empty" => LogicalPlan::EmptyRelation(EmptyRelation {
                produce_one_row: flag(part.get("one_row"))?,
                schema: self.columns(part.get("columns"))?,
            }),
            "union" => LogicalPlan::Union(Union {
                inputs: list(part.get("inputs"), |input| self.plan(Some(input)))?,
                schema: self.columns(part.get("columns"))?,
            }),
            "values" => LogicalPlan::Values(Values {
                values: list(part.get("rows"), |row| self.expressions(Some(row)))?,
                schema: self.columns(part.get("columns"))?,
            }),
            "recursive" => LogicalPlan::RecursiveQuery(RecursiveQuery {
                name: text(part, "name")?.into(),
                static_term: self.plan(part.get("first"))?,
                recursive_term: self.plan(part.get("next"))?,
                is_distinct: flag(part.get("distinct"))?,
                schema: self.columns(part.get("columns"))?,
            }),
            _ => return Ok(None),
        }))
    }
}

fn failed(error: DataFusionError) -> String {
    error.to_string()
}
