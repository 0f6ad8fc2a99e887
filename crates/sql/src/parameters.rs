//! Parameters of prepared statements: `$1`, `$2`, …
//!
//! A statement is planned once with its parameters' types to learn the result's schema, and with their values
//! to run. Undeclared types are inferred from the context, as in `id = $1`. If that fails, the type is text,
//! as in PostgreSQL.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ParamValues, Result, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::sql::planner::PlannerContext;

use crate::functions::marks::Mark;
use crate::functions::marks::columns::column_of;
use crate::functions::marks::expressions::expected_mark;
use crate::functions::marks::shape::Shape;
use crate::functions::postgres::quantified;
use crate::functions::read_text::ReadText;
use crate::functions::rounding::{self, Mode};
use crate::rules::equal_forms::is_comparison;
use crate::rules::names::input_schema;

/// The known types and values of a statement's parameters.
#[derive(Debug, Default)]
pub struct Parameters {
    types: Vec<Option<DataType>>,
    values: Option<Vec<ScalarValue>>,
    found: Mutex<Vec<Option<DataType>>>,
    /// The types of parameters that are stored as text, as CREATE TABLE takes them: UUID.
    spellings: Mutex<Vec<Option<&'static str>>>,
    /// The columns of the result when the statement was prepared.
    columns: Option<SchemaRef>,
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

    /// Adds the columns of the result when the statement was prepared.
    pub fn of_result(self, columns: Option<SchemaRef>) -> Parameters {
        Parameters { columns, ..self }
    }

    /// Returns the columns of the result when the statement was prepared, if it had any.
    pub fn columns(&self) -> Option<&SchemaRef> {
        self.columns.as_ref()
    }

    /// Returns the type of each parameter seen while planning; none if it could not be inferred.
    pub fn found(&self) -> Vec<Option<DataType>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns for each parameter that is a UUID, JSON or another type stored as text the name of the type.
    pub fn spellings(&self) -> Vec<Option<&'static str>> {
        self.spellings.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        if found.is_empty() {
            return Ok(plan);
        }
        let Some(values) = &self.values else {
            let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            merge(&mut all, found);
            let mut spellings = self.spellings.lock().unwrap_or_else(PoisonError::into_inner);
            merge(&mut spellings, spelled(&plan)?);
            return Ok(plan);
        };
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

/// Casts a value to another type. A cast to an integer rounds. If `exact`, a decimal stays as it is, since the cast may lose digits.
fn fitted(value: &ScalarValue, data_type: &DataType, exact: bool) -> Result<ScalarValue> {
    if exact && data_type.is_decimal() && value.data_type().is_decimal() {
        return Ok(value.clone());
    }
    match data_type.is_integer() && rounding::rounds(&value.data_type()) {
        true => rounding::rounded_value(value, Mode::HalfUp)?.cast_to(data_type),
        false => value.cast_to(data_type),
    }
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
        let schema = || input_schema(node);
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

/// Returns the names of the parameters' types that are stored as text, by their numbers: of `$1::UUID`, of `u = $1`, and of
/// a value for a column.
fn spelled(plan: &LogicalPlan) -> Result<Vec<Option<&'static str>>> {
    let mut all = Vec::new();
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        let columns = |column: &Column| column_of(inputs.iter().copied(), column);
        let compared = |all: &mut Vec<Option<&'static str>>, one: &Expr, other: &Expr| {
            if let Expr::Placeholder(placeholder) = one {
                note(all, placeholder, Shape::mark(other, &columns).map(Mark::type_name));
            }
        };
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Placeholder(placeholder) => {
                        let mark = placeholder.field.as_ref().and_then(|field| Mark::of(field));
                        note(&mut all, placeholder, mark.map(Mark::type_name));
                    }
                    Expr::ScalarFunction(call) => {
                        for (at, argument) in call.args.iter().enumerate() {
                            if let Expr::Placeholder(placeholder) = argument {
                                let mark = ReadText::mark_of(expr).or_else(|| expected_mark(&call.func, at));
                                note(&mut all, placeholder, mark.map(Mark::type_name));
                            }
                        }
                    }
                    Expr::BinaryExpr(binary) if is_comparison(binary.op) => {
                        compared(&mut all, &binary.left, &binary.right);
                        compared(&mut all, &binary.right, &binary.left);
                    }
                    Expr::InList(list) => {
                        list.list.iter().for_each(|element| compared(&mut all, element, &list.expr));
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(all)
}

fn note<T>(all: &mut Vec<Option<T>>, placeholder: &Placeholder, found: Option<T>) {
    let place = placeholder.id.trim_start_matches('$').parse::<usize>().ok().and_then(|n| n.checked_sub(1));
    // PostgreSQL's protocol counts parameters in 16 bits.
    if let Some(place) = place.filter(|place| *place < usize::from(u16::MAX)) {
        if all.len() <= place {
            all.resize_with(place + 1, || None);
        }
        all[place] = all[place].take().or(found);
    }
}

fn merge<T>(all: &mut Vec<Option<T>>, found: Vec<Option<T>>) {
    if all.len() < found.len() {
        all.resize_with(found.len(), || None);
    }
    for (known, found) in all.iter_mut().zip(found) {
        *known = known.take().or(found);
    }
}
