//! Parameters of prepared statements: `$1`, `$2`, …
//!
//! A statement is planned once with its parameters' types to learn the result's schema, and with their values
//! to run. Undeclared types are inferred from the context, as in `id = $1`. If that fails, the type is text,
//! as in PostgreSQL.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues, Result, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::planner::PlannerContext;

use crate::functions::postgres::quantified;

/// The known types and values of a statement's parameters.
#[derive(Debug, Default)]
pub struct Parameters {
    types: Vec<Option<DataType>>,
    values: Option<Vec<ScalarValue>>,
    found: Mutex<Vec<Option<DataType>>>,
    /// The number of columns of the result when the statement was prepared.
    columns: Option<usize>,
}

impl Parameters {
    /// Creates parameters with these types, as far as they are declared.
    pub fn declared(types: Vec<Option<DataType>>) -> Parameters {
        Parameters { types, ..Parameters::default() }
    }

    /// Creates parameters with values: arrays of one value each.
    pub fn bound(types: Vec<Option<DataType>>, values: &[ArrayRef]) -> crate::Result<Parameters> {
        let values = values.iter().map(|value| ScalarValue::try_from_array(value, 0));
        let values = values.collect::<Result<_>>()?;
        Ok(Parameters { types, values: Some(values), ..Parameters::default() })
    }

    /// Adds the number of columns of the result when the statement was prepared.
    pub fn of_result(self, columns: Option<usize>) -> Parameters {
        Parameters { columns, ..self }
    }

    /// Returns the number of columns of the result when the statement was prepared, if it had any.
    pub fn columns(&self) -> Option<usize> {
        self.columns
    }

    /// Returns the type of each parameter seen while planning; none if it could not be inferred.
    pub fn found(&self) -> Vec<Option<DataType>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the planner's context with the declared types.
    pub(crate) fn context(&self) -> PlannerContext {
        let field = |data_type: &DataType| -> FieldRef { Arc::new(Field::new("", data_type.clone(), true)) };
        let fields = self.types.iter().map(|data_type| data_type.as_ref().map(field));
        PlannerContext::new().with_prepare_param_data_types(fields.collect())
    }

    /// Puts the values into a plan that was made before they were known.
    pub fn bind_plan(&self, plan: LogicalPlan) -> crate::Result<LogicalPlan> {
        Ok(self.bind(plan)?)
    }

    /// Puts the values, if there are any, into a plan as written.
    pub(crate) fn bind(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let found = seen(&plan)?;
        let Some(values) = &self.values else {
            let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            merge(&mut all, found);
            return Ok(plan);
        };
        if found.is_empty() {
            return Ok(plan);
        }
        // An INSERT's rows have the types of its columns. Elsewhere a decimal keeps the digits it came with.
        let exact = !matches!(plan, LogicalPlan::Dml(_));
        let fitted = values.iter().enumerate().map(|(place, value)| match found.get(place) {
            Some(Some(data_type)) => fitted(value, data_type, exact),
            _ => Ok(value.clone()),
        });
        let fitted = fitted.map(|value| Ok(ScalarAndMetadata::from(value?))).collect::<Result<_>>()?;
        plan.with_param_values(ParamValues::List(fitted))
    }
}

/// Casts a value to another type. If `exact`, a decimal stays as it is, since the cast may lose digits.
fn fitted(value: &ScalarValue, data_type: &DataType, exact: bool) -> Result<ScalarValue> {
    if exact && data_type.is_decimal() && value.data_type().is_decimal() {
        return Ok(value.clone());
    }
    value.cast_to(data_type)
}

/// Returns the types of a plan's parameters by their numbers.
fn seen(plan: &LogicalPlan) -> Result<Vec<Option<DataType>>> {
    let mut all = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for bound in [&limit.skip, &limit.fetch].into_iter().flatten() {
                if let Expr::Placeholder(placeholder) = bound.as_ref() {
                    note(&mut all, placeholder, Some(DataType::Int64));
                }
            }
        }
        let schema = || {
            let mut schema = DFSchema::empty();
            node.inputs().iter().for_each(|input| schema.merge(input.schema()));
            schema
        };
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::ScalarFunction(call) => match quantified::operands(call) {
                        Some((value, Expr::Placeholder(placeholder))) => {
                            let array =
                                value.get_type(&schema()).ok().map(|item| DataType::new_list(item, true));
                            note(&mut all, placeholder, array);
                        }
                        Some((Expr::Placeholder(placeholder), array)) => {
                            let array = array.get_type(&schema()).ok();
                            note(
                                &mut all,
                                placeholder,
                                array.as_ref().and_then(quantified::element).cloned(),
                            );
                        }
                        _ => {}
                    },
                    Expr::Placeholder(placeholder) => {
                        let data_type = placeholder.field.as_ref().map(|field| field.data_type().clone());
                        note(&mut all, placeholder, data_type);
                    }
                    // In `$1::INT` the parameter itself has the type INT.
                    Expr::Cast(cast) => {
                        if let Expr::Placeholder(placeholder) = cast.expr.as_ref() {
                            note(&mut all, placeholder, Some(cast.field.data_type().clone()));
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(all)
}

fn note(all: &mut Vec<Option<DataType>>, placeholder: &Placeholder, data_type: Option<DataType>) {
    let place = placeholder.id.trim_start_matches('$').parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    // PostgreSQL's protocol counts parameters in 16 bits.
    if let Some(place) = place.filter(|place| *place < usize::from(u16::MAX)) {
        if all.len() <= place {
            all.resize(place + 1, None);
        }
        all[place] = all[place].take().or(data_type);
    }
}

fn merge(all: &mut Vec<Option<DataType>>, found: Vec<Option<DataType>>) {
    if all.len() < found.len() {
        all.resize(found.len(), None);
    }
    for (known, found) in all.iter_mut().zip(found) {
        *known = known.take().or(found);
    }
}
