//! Encodes expressions as parts.

use datafusion::common::Column;
use datafusion::logical_expr::expr::{
    AggregateFunction, BinaryExpr, Case, GroupingSet, Like, SetQuantifier, Sort, WindowFunction,
};
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::{Expr, Operator, WindowFrame, WindowFrameBound};
use serde_json::{Value, json};

use super::CodecResult;
use super::words::{FRAMES, NULL_TREATMENTS, OPERATORS, word};
use super::writer::{PlanEncoder, metadata, reference};

impl PlanEncoder<'_> {
    /// Adds an expression and returns its index.
    pub(crate) fn expression(&mut self, expression: &Expr) -> CodecResult<usize> {
        self.deeper(|writer| {
            let part = match expression {
                Expr::BinaryExpr(chain) => return writer.chain(chain),
                Expr::Alias(_) | Expr::Column(_) | Expr::Literal(..) | Expr::OuterReferenceColumn(..) => {
                    writer.named(expression)?
                }
                Expr::Like(like) => writer.like("like", like)?,
                Expr::SimilarTo(like) => writer.like("similar", like)?,
                Expr::Case(case) => writer.case(case)?,
                Expr::AggregateFunction(call) => writer.aggregate(call)?,
                Expr::WindowFunction(call) => writer.window(call)?,
                Expr::GroupingSet(set) => writer.grouping_set(set)?,
                Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_) => {
                    writer.of_subquery(expression)?
                }
                other => match unary(other) {
                    Some((is, of)) => json!({"is": is, "of": writer.expression(of)?}),
                    None => writer.other(other)?,
                },
            };
            Ok(writer.push(part))
        })
    }

    pub(crate) fn expressions<'e>(
        &mut self,
        all: impl IntoIterator<Item = &'e Expr>,
    ) -> CodecResult<Vec<usize>> {
        all.into_iter().map(|expression| self.expression(expression)).collect()
    }

    pub(super) fn optional(&mut self, expression: Option<&Expr>) -> CodecResult<Option<usize>> {
        expression.map(|expression| self.expression(expression)).transpose()
    }

    /// Encodes names, columns and literals.
    fn named(&mut self, expression: &Expr) -> CodecResult<Value> {
        Ok(match expression {
            Expr::Alias(alias) => json!({
                "is": "alias", "of": self.expression(&alias.expr)?, "name": alias.name,
                "relation": alias.relation.as_ref().map(reference), "metadata": metadata(alias.metadata.as_ref()),
            }),
            Expr::Column(column) => json!({"is": "column", "column": column_json(column)}),
            Expr::Literal(value, about) => {
                json!({"is": "literal", "value": self.value(value), "metadata": metadata(about.as_ref())})
            }
            Expr::OuterReferenceColumn(field, column) => {
                json!({"is": "outer", "field": self.field(field), "column": column_json(column)})
            }
            other => return Err(format!("'{other}'")),
        })
    }

    /// Encodes `a AND b AND c …` iteratively: a long chain doesn't count as deep.
    fn chain(&mut self, chain: &BinaryExpr) -> CodecResult<usize> {
        let mut links: Vec<(&Operator, &Expr)> = vec![(&chain.op, &chain.right)];
        let mut first = chain.left.as_ref();
        while let Expr::BinaryExpr(link) = first {
            links.push((&link.op, &link.right));
            first = &link.left;
        }
        let mut left = self.expression(first)?;
        for (operator, right) in links.into_iter().rev() {
            if !OPERATORS.contains(operator) {
                return Err(format!("the operator {operator}"));
            }
            let right = self.expression(right)?;
            left = self.push(
                json!({"is": "binary", "left": left, "operator": operator.to_string(), "right": right}),
            );
        }
        Ok(left)
    }

    fn like(&mut self, is: &str, like: &Like) -> CodecResult<Value> {
        Ok(json!({
            "is": is, "of": self.expression(&like.expr)?, "pattern": self.expression(&like.pattern)?,
            "negated": like.negated, "escape": like.escape_char.map(String::from), "any_case": like.case_insensitive,
        }))
    }

    fn case(&mut self, case: &Case) -> CodecResult<Value> {
        let of = self.optional(case.expr.as_deref())?;
        let mut branches = Vec::with_capacity(case.when_then_expr.len());
        for (when, then) in &case.when_then_expr {
            branches.push([self.expression(when)?, self.expression(then)?]);
        }
        let otherwise = self.optional(case.else_expr.as_deref())?;
        Ok(json!({"is": "case", "of": of, "branches": branches, "else": otherwise}))
    }

    fn aggregate(&mut self, call: &AggregateFunction) -> CodecResult<Value> {
        let params = &call.params;
        let nulls = params.null_treatment.map(|nulls| word(NULL_TREATMENTS, &nulls)).transpose()?;
        Ok(json!({
            "is": "aggregate", "function": self.aggregate_function(&call.func)?,
            "arguments": self.expressions(&params.args)?, "distinct": params.distinct,
            "filter": self.optional(params.filter.as_deref())?, "order": self.order(&params.order_by)?, "nulls": nulls,
        }))
    }

    fn window(&mut self, call: &WindowFunction) -> CodecResult<Value> {
        let params = &call.params;
        let nulls = params.null_treatment.map(|nulls| word(NULL_TREATMENTS, &nulls)).transpose()?;
        Ok(json!({
            "is": "over", "function": self.window_definition(&call.fun)?, "arguments": self.expressions(&params.args)?,
            "partition": self.expressions(&params.partition_by)?, "order": self.order(&params.order_by)?,
            "frame": self.frame(&params.window_frame)?, "filter": self.optional(params.filter.as_deref())?,
            "nulls": nulls, "distinct": params.distinct,
        }))
    }

    fn frame(&mut self, frame: &WindowFrame) -> CodecResult<Value> {
        let units = word(FRAMES, &frame.units)?;
        let mut bound = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::Preceding(value) => json!(["preceding", self.value(value)]),
            WindowFrameBound::CurrentRow => json!(["current"]),
            WindowFrameBound::Following(value) => json!(["following", self.value(value)]),
        };
        Ok(json!([units, bound(&frame.start_bound), bound(&frame.end_bound), frame.is_causal()]))
    }

    /// Encodes sort keys, each with flags for ascending order and for NULLS FIRST.
    pub(super) fn order(&mut self, keys: &[Sort]) -> CodecResult<Vec<Value>> {
        let key = |key: &Sort| Ok(json!([self.expression(&key.expr)?, key.asc, key.nulls_first]));
        keys.iter().map(key).collect()
    }

    fn grouping_set(&mut self, set: &GroupingSet) -> CodecResult<Value> {
        Ok(match set {
            GroupingSet::Rollup(all) => json!({"is": "rollup", "of": self.expressions(all)?}),
            GroupingSet::Cube(all) => json!({"is": "cube", "of": self.expressions(all)?}),
            GroupingSet::GroupingSets(sets) => {
                let sets = sets.iter().map(|set| self.expressions(set)).collect::<CodecResult<Vec<_>>>()?;
                json!({"is": "grouping_sets", "of": sets})
            }
        })
    }

    fn of_subquery(&mut self, expression: &Expr) -> CodecResult<Value> {
        Ok(match expression {
            Expr::Exists(exists) => {
                json!({"is": "exists", "query": self.subquery(&exists.subquery)?, "negated": exists.negated})
            }
            Expr::InSubquery(within) => json!({
                "is": "in_query", "of": self.expression(&within.expr)?, "query": self.subquery(&within.subquery)?,
                "negated": within.negated,
            }),
            Expr::SetComparison(compared) => json!({
                "is": "compared", "of": self.expression(&compared.expr)?, "query": self.subquery(&compared.subquery)?,
                "operator": compared.op.to_string(), "all": compared.quantifier == SetQuantifier::All,
            }),
            Expr::ScalarSubquery(subquery) => json!({"is": "query", "query": self.subquery(subquery)?}),
            other => return Err(format!("'{other}'")),
        })
    }

    pub(super) fn subquery(&mut self, subquery: &Subquery) -> CodecResult<Value> {
        Ok(json!([self.plan(&subquery.subquery)?, self.expressions(&subquery.outer_ref_columns)?]))
    }

    fn other(&mut self, expression: &Expr) -> CodecResult<Value> {
        Ok(match expression {
            Expr::Between(between) => json!({
                "is": "between", "of": self.expression(&between.expr)?, "negated": between.negated,
                "low": self.expression(&between.low)?, "high": self.expression(&between.high)?,
            }),
            Expr::Cast(cast) => {
                json!({"is": "cast", "of": self.expression(&cast.expr)?, "field": self.field(&cast.field)})
            }
            Expr::TryCast(cast) => {
                json!({"is": "try_cast", "of": self.expression(&cast.expr)?, "field": self.field(&cast.field)})
            }
            Expr::ScalarFunction(call) => json!({
                "is": "call", "function": self.scalar_function(&call.func)?,
                "arguments": self.expressions(&call.args)?,
            }),
            Expr::HigherOrderFunction(call) => json!({
                "is": "higher_order", "function": self.higher_order_function(&call.func)?,
                "arguments": self.expressions(&call.args)?,
            }),
            Expr::Lambda(lambda) => {
                json!({"is": "lambda", "parameters": lambda.params, "body": self.expression(&lambda.body)?})
            }
            Expr::LambdaVariable(variable) => json!({
                "is": "parameter", "name": variable.name,
                "field": variable.field.as_ref().map(|field| self.field(field)),
            }),
            Expr::InList(list) => json!({
                "is": "in", "of": self.expression(&list.expr)?, "list": self.expressions(&list.list)?,
                "negated": list.negated,
            }),
            Expr::Unnest(unnest) => {
                json!({"is": "unnest", "of": self.expression(&unnest.expr)?, "outer": unnest.outer})
            }
            other => return Err(format!("the expression {other}")),
        })
    }
}

/// Encodes a column's name and its relation's.
pub(super) fn column_json(column: &Column) -> Value {
    json!([column.relation.as_ref().map(reference), column.name])
}

fn unary(expression: &Expr) -> Option<(&'static str, &Expr)> {
    Some(match expression {
        Expr::Not(of) => ("not", of),
        Expr::IsNotNull(of) => ("is_not_null", of),
        Expr::IsNull(of) => ("is_null", of),
        Expr::IsTrue(of) => ("is_true", of),
        Expr::IsFalse(of) => ("is_false", of),
        Expr::IsUnknown(of) => ("is_unknown", of),
        Expr::IsNotTrue(of) => ("is_not_true", of),
        Expr::IsNotFalse(of) => ("is_not_false", of),
        Expr::IsNotUnknown(of) => ("is_not_unknown", of),
        Expr::Negative(of) => ("negative", of),
        _ => return None,
    })
}
