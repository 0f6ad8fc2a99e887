//! Decodes expressions from parts.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, Alias, Between, BinaryExpr, Case, Cast, Exists, GroupingSet,
    HigherOrderFunction, InList, InSubquery, Lambda, LambdaVariable, Like, ScalarFunction, SetComparison,
    SetQuantifier, Sort, TryCast, Unnest, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::{Expr, Operator, WindowFrame, WindowFrameBound};
use serde_json::Value;

use super::CodecResult;
use super::reader::{PlanDecoder, column, flag, list, maybe_reference, member, metadata, text};
use super::words::{FRAMES, NULL_TREATMENTS, OPERATORS, UNARY, named};

impl PlanDecoder<'_> {
    pub(super) fn read_expression(&mut self, is: &str, part: &Value) -> CodecResult<Expr> {
        match is {
            "alias" => Ok(Expr::Alias(Alias {
                expr: self.boxed(part.get("of"))?,
                relation: maybe_reference(part.get("relation"))?,
                name: text(part, "name")?.into(),
                metadata: metadata(part.get("metadata"))?,
            })),
            "column" => Ok(Expr::Column(column(part.get("column"))?)),
            "literal" => Ok(Expr::Literal(self.value(part.get("value"))?, metadata(part.get("metadata"))?)),
            "outer" => {
                Ok(Expr::OuterReferenceColumn(self.field(part.get("field"))?, column(part.get("column"))?))
            }
            "binary" => Ok(Expr::BinaryExpr(BinaryExpr {
                left: self.boxed(part.get("left"))?,
                op: operator(part)?,
                right: self.boxed(part.get("right"))?,
            })),
            "like" => self.read_like(part).map(Expr::Like),
            "similar" => self.read_like(part).map(Expr::SimilarTo),
            "case" => self.read_case(part),
            "aggregate" => self.read_aggregate(part),
            "over" => self.read_window(part),
            "rollup" | "cube" | "grouping_sets" => self.read_grouping_set(is, part),
            "exists" | "in_query" | "compared" | "query" => self.read_of_subquery(is, part),
            _ => match named(UNARY, is) {
                Ok(unary) => Ok(unary(self.boxed(part.get("of"))?)),
                Err(_) => self.read_other(is, part),
            },
        }
    }

    fn read_like(&mut self, part: &Value) -> CodecResult<Like> {
        let escape = member(part, "escape")?.as_str().and_then(|escape| escape.chars().next());
        Ok(Like {
            negated: flag(part.get("negated"))?,
            expr: self.boxed(part.get("of"))?,
            pattern: self.boxed(part.get("pattern"))?,
            escape_char: escape,
            case_insensitive: flag(part.get("any_case"))?,
        })
    }

    fn read_case(&mut self, part: &Value) -> CodecResult<Expr> {
        let expr = self.optional(part.get("of"))?.map(Box::new);
        let when_then_expr =
            list(part.get("branches"), |of| Ok((self.boxed(of.get(0))?, self.boxed(of.get(1))?)))?;
        let else_expr = self.optional(part.get("else"))?.map(Box::new);
        Ok(Expr::Case(Case { expr, when_then_expr, else_expr }))
    }

    fn read_aggregate(&mut self, part: &Value) -> CodecResult<Expr> {
        Ok(Expr::AggregateFunction(AggregateFunction {
            func: self.aggregate_function(member(part, "function")?)?,
            params: AggregateFunctionParams {
                args: self.expressions(part.get("arguments"))?,
                distinct: flag(part.get("distinct"))?,
                filter: self.optional(part.get("filter"))?.map(Box::new),
                order_by: self.read_order(part.get("order"))?,
                null_treatment: nulls(part)?,
            },
        }))
    }

    fn read_window(&mut self, part: &Value) -> CodecResult<Expr> {
        let fun = self.window_definition(member(part, "function")?)?;
        let params = WindowFunctionParams {
            args: self.expressions(part.get("arguments"))?,
            partition_by: self.expressions(part.get("partition"))?,
            order_by: self.read_order(part.get("order"))?,
            window_frame: self.read_frame(member(part, "frame")?)?,
            filter: self.optional(part.get("filter"))?.map(Box::new),
            null_treatment: nulls(part)?,
            distinct: flag(part.get("distinct"))?,
        };
        Ok(Expr::WindowFunction(Box::new(WindowFunction { fun, params })))
    }

    fn read_frame(&self, part: &Value) -> CodecResult<WindowFrame> {
        let bound = |of: Option<&Value>| {
            let of = of.ok_or("a frame has no end")?;
            match of.get(0).and_then(Value::as_str) {
                Some("preceding") => Ok(WindowFrameBound::Preceding(self.value(of.get(1))?)),
                Some("current") => Ok(WindowFrameBound::CurrentRow),
                Some("following") => Ok(WindowFrameBound::Following(self.value(of.get(1))?)),
                _ => Err("the end of a frame is unknown".to_string()),
            }
        };
        let units = named(FRAMES, part.get(0).and_then(Value::as_str).unwrap_or_default())?;
        let frame = WindowFrame::new_bounds(units, bound(part.get(1))?, bound(part.get(2))?);
        // The flag was computed before the frame's bounds had their types, and is not recomputed.
        let causal = part.get(3).map_or(Ok(frame.is_causal()), |causal| flag(Some(causal)))?;
        if frame.is_causal() == causal {
            return Ok(frame);
        }
        let end = match causal {
            true => WindowFrameBound::Preceding(ScalarValue::Null),
            false => WindowFrameBound::Following(ScalarValue::Null),
        };
        let mut decided = WindowFrame::new_bounds(units, frame.start_bound, end);
        decided.end_bound = frame.end_bound;
        Ok(decided)
    }

    pub(super) fn read_order(&mut self, keys: Option<&Value>) -> CodecResult<Vec<Sort>> {
        list(keys, |key| {
            let expr = self.expression(key.get(0))?;
            Ok(Sort { expr, asc: flag(key.get(1))?, nulls_first: flag(key.get(2))? })
        })
    }

    fn read_grouping_set(&mut self, is: &str, part: &Value) -> CodecResult<Expr> {
        let of = part.get("of");
        Ok(Expr::GroupingSet(match is {
            "rollup" => GroupingSet::Rollup(self.expressions(of)?),
            "cube" => GroupingSet::Cube(self.expressions(of)?),
            _ => GroupingSet::GroupingSets(list(of, |set| self.expressions(Some(set)))?),
        }))
    }

    fn read_of_subquery(&mut self, is: &str, part: &Value) -> CodecResult<Expr> {
        let subquery = self.read_subquery(member(part, "query")?)?;
        Ok(match is {
            "exists" => Expr::Exists(Exists { subquery, negated: flag(part.get("negated"))? }),
            "in_query" => Expr::InSubquery(InSubquery {
                expr: self.boxed(part.get("of"))?,
                subquery,
                negated: flag(part.get("negated"))?,
            }),
            "compared" => Expr::SetComparison(SetComparison {
                expr: self.boxed(part.get("of"))?,
                subquery,
                op: operator(part)?,
                quantifier: if flag(part.get("all"))? { SetQuantifier::All } else { SetQuantifier::Any },
            }),
            _ => Expr::ScalarSubquery(subquery),
        })
    }

    pub(super) fn read_subquery(&mut self, part: &Value) -> CodecResult<Subquery> {
        Ok(Subquery {
            subquery: self.plan(part.get(0))?,
            outer_ref_columns: self.expressions(part.get(1))?,
            spans: Default::default(),
        })
    }

    fn read_other(&mut self, is: &str, part: &Value) -> CodecResult<Expr> {
        Ok(match is {
            "between" => Expr::Between(Between {
                expr: self.boxed(part.get("of"))?,
                negated: flag(part.get("negated"))?,
                low: self.boxed(part.get("low"))?,
                high: self.boxed(part.get("high"))?,
            }),
            "cast" => {
                Expr::Cast(Cast { expr: self.boxed(part.get("of"))?, field: self.field(part.get("field"))? })
            }
            "try_cast" => Expr::TryCast(TryCast {
                expr: self.boxed(part.get("of"))?,
                field: self.field(part.get("field"))?,
            }),
            "call" => Expr::ScalarFunction(ScalarFunction {
                func: self.scalar_function(member(part, "function")?)?,
                args: self.expressions(part.get("arguments"))?,
            }),
            "higher_order" => Expr::HigherOrderFunction(HigherOrderFunction {
                func: self.higher_order_function(text(part, "function")?)?,
                args: self.expressions(part.get("arguments"))?,
            }),
            "lambda" => {
                let parameter = |of: &Value| {
                    of.as_str().map(str::to_string).ok_or_else(|| "a name is no text".to_string())
                };
                let params = list(part.get("parameters"), parameter)?;
                Expr::Lambda(Lambda { params, body: self.boxed(part.get("body"))? })
            }
            "parameter" => {
                let field = match member(part, "field")? {
                    Value::Null => None,
                    place => Some(self.field(Some(place))?),
                };
                Expr::LambdaVariable(LambdaVariable::new(text(part, "name")?.into(), field))
            }
            "in" => Expr::InList(InList {
                expr: self.boxed(part.get("of"))?,
                list: self.expressions(part.get("list"))?,
                negated: flag(part.get("negated"))?,
            }),
            "unnest" => {
                Expr::Unnest(Unnest { expr: self.boxed(part.get("of"))?, outer: flag(part.get("outer"))? })
            }
            other => return Err(format!("'{other}' is unknown")),
        })
    }
}

fn operator(part: &Value) -> CodecResult<Operator> {
    let written = text(part, "operator")?;
    let found = OPERATORS.iter().find(|operator| operator.to_string() == written);
    found.copied().ok_or_else(|| format!("the operator '{written}' is unknown"))
}

fn nulls(part: &Value) -> CodecResult<Option<datafusion::logical_expr::expr::NullTreatment>> {
    match member(part, "nulls")? {
        Value::Null => Ok(None),
        word => named(NULL_TREATMENTS, word.as_str().unwrap_or_default()).map(Some),
    }
}
