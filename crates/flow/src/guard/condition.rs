//! Terms of an AND or OR, evaluated one after the other, each for the rows that are still open.

use std::any::Any;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Case, ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, binary_expr, lit,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, create_physical_expr};

use super::as_written;
use super::overflow::unchecked;
use crate::failure_search::Terms;
use crate::parallelism::lock;

/// The maximum length of a condition's text in plans.
const TEXT_MAX: usize = 400;

/// A condition as a function of the columns that its terms read. Code that inspects expressions sees these
/// columns, and needs nothing else of a condition once a plan is optimised.
#[derive(Debug)]
pub(super) struct Guard {
    op: Operator,
    /// The terms; their columns are named by their places among the arguments.
    terms: Vec<Expr>,
    /// For each term, true if it may fail for a row that an earlier term decides.
    may_fail: Vec<bool>,
    text: String,
    signature: Signature,
    /// The physical form of the terms: first without a configuration, used only for their types, then with
    /// one.
    planned: [Mutex<Option<Arc<Planned>>>; 2],
}

#[derive(Debug)]
struct Planned {
    inputs: Arc<Schema>,
    config: Option<Arc<ConfigOptions>>,
    terms: Vec<Arc<dyn PhysicalExpr>>,
}

impl Guard {
    /// Returns the condition as one expression.
    pub(super) fn of(op: Operator, terms: Vec<Expr>, may_fail: Vec<bool>) -> Result<Expr> {
        if !terms.iter().map(reads_columns_only).collect::<Result<Vec<_>>>()?.iter().all(|reads| *reads) {
            let guard = |left, (right, may_fail)| {
                if may_fail { by_case(left, op, right) } else { binary_expr(left, op, right) }
            };
            let mut terms = terms.into_iter().zip(may_fail);
            let first = terms.next().map(|(term, _)| term).unwrap_or_default();
            return Ok(terms.fold(first, guard));
        }
        let text = text_of(op, &terms);
        let is_volatile = terms.iter().any(Expr::is_volatile);
        let volatility = if is_volatile { Volatility::Volatile } else { Volatility::Immutable };
        let mut inputs = Inputs::default();
        let terms = terms.into_iter().map(|term| inputs.numbered(term)).collect::<Result<Vec<_>>>()?;
        let signature = match inputs.exprs.len() {
            0 => Signature::nullary(volatility),
            _ => Signature::variadic_any(volatility),
        };
        let guard = Guard { op, terms, may_fail, text, signature, planned: Default::default() };
        Ok(ScalarUDF::from(guard).call(inputs.exprs))
    }

    /// Plans the terms, once for arguments of the same types.
    fn planned(&self, fields: &[FieldRef], config: Option<&Arc<ConfigOptions>>) -> Result<Arc<Planned>> {
        let mut planned = lock(&self.planned[usize::from(config.is_some())]);
        if let Some(planned) = planned.as_ref().filter(|planned| planned.is_for(fields, config)) {
            return Ok(Arc::clone(planned));
        }
        let field = |(at, field): (usize, &FieldRef)| field.as_ref().clone().with_name(name_of(at));
        let inputs = Arc::new(Schema::new(fields.iter().enumerate().map(field).collect::<Vec<Field>>()));
        let columns = DFSchema::try_from(Arc::clone(&inputs))?;
        let props = ExecutionProps { config_options: config.cloned(), ..ExecutionProps::default() };
        let context = PhysicalPlanningContext::default();
        let term = |term: &Expr| as_written(create_physical_expr(term, &columns, &props, &context)?);
        let terms = self.terms.iter().map(term).collect::<Result<Vec<_>>>()?;
        Ok(Arc::clone(planned.insert(Arc::new(Planned { inputs, config: config.cloned(), terms }))))
    }

    fn evaluate(&self, planned: &Planned, rows: RecordBatch) -> Result<BooleanArray> {
        // The value of a term that decides the condition.
        let decides = self.op == Operator::Or;
        let mut answers = vec![Some(!decides); rows.num_rows()];
        let (mut rows, mut places) = (rows, (0..answers.len() as u32).collect::<Vec<u32>>());
        for (term, may_fail) in planned.terms.iter().zip(&self.may_fail) {
            let is_open = |place: &u32| answers[*place as usize] != Some(decides);
            let open = places.iter().filter(|place| is_open(place)).count();
            if open == 0 {
                break;
            }
            if open < places.len() && (*may_fail || open < places.len() / 2) {
                let kept = (0..places.len() as u32).filter(|at| is_open(&places[*at as usize]));
                rows = take_record_batch(&rows, &UInt32Array::from_iter_values(kept))?;
                places.retain(is_open);
            }
            let values = term.evaluate(&rows)?.into_array(places.len())?;
            let values = cast(&values, &DataType::Boolean)?;
            for (place, value) in places.iter().zip(values.as_boolean()) {
                let answer = &mut answers[*place as usize];
                match value {
                    _ if *answer == Some(decides) => {}
                    Some(value) if value != decides => {}
                    value => *answer = value,
                }
            }
        }
        Ok(answers.into_iter().collect())
    }
}

impl Planned {
    fn is_for(&self, fields: &[FieldRef], config: Option<&Arc<ConfigOptions>>) -> bool {
        let is_same = |(known, field): (&FieldRef, &FieldRef)| {
            known.data_type() == field.data_type() && known.is_nullable() == field.is_nullable()
        };
        let known = self.inputs.fields();
        known.len() == fields.len()
            && known.iter().zip(fields).all(is_same)
            && self.config.as_ref().map(Arc::as_ptr) == config.map(Arc::as_ptr)
    }
}

/// Returns the terms of a condition that is a [`Guard`], once it was evaluated; `None` for another function.
/// The inner value is `None` if the terms' inputs can't be evaluated.
pub(crate) fn terms(function: &ScalarFunctionExpr, rows: &RecordBatch) -> Option<Option<Terms>> {
    let guard = (function.fun().inner().as_ref() as &dyn Any).downcast_ref::<Guard>()?;
    let planned = lock(&guard.planned[1]).clone();
    let count = rows.num_rows();
    let columns = function.args().iter().map(|column| column.evaluate(rows)?.into_array(count));
    let terms = |planned: Arc<Planned>| {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let columns = columns.collect::<Result<_>>().ok()?;
        let rows = RecordBatch::try_new_with_options(Arc::clone(&planned.inputs), columns, &options).ok()?;
        Some(Terms { rows, terms: planned.terms.clone(), decides: guard.op == Operator::Or })
    };
    Some(planned.and_then(terms))
}

impl PartialEq for Guard {
    fn eq(&self, other: &Guard) -> bool {
        self.op == other.op && self.terms == other.terms
    }
}

impl Eq for Guard {}

impl Hash for Guard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.op, &self.terms).hash(state);
    }
}

impl ScalarUDFImpl for Guard {
    fn name(&self) -> &str {
        &self.text
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let planned = self.planned(arguments.arg_fields, None)?;
        let nullable = planned.terms.iter().map(|term| term.nullable(&planned.inputs));
        let nullable = nullable.collect::<Result<Vec<bool>>>()?.contains(&true);
        Ok(Arc::new(Field::new(self.name(), DataType::Boolean, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let planned = self.planned(&arguments.arg_fields, Some(&arguments.config_options))?;
        let rows = arguments.number_rows;
        let columns =
            arguments.args.into_iter().map(|column| column.into_array(rows)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let inputs = RecordBatch::try_new_with_options(Arc::clone(&planned.inputs), columns, &options)?;
        Ok(ColumnarValue::Array(Arc::new(self.evaluate(&planned, inputs)?)))
    }

    fn short_circuits(&self) -> bool {
        true
    }
}

/// The inputs of terms: the arguments of the function.
#[derive(Default)]
struct Inputs {
    exprs: Vec<Expr>,
    places: std::collections::HashMap<Expr, usize>,
}

impl Inputs {
    /// Returns the term over numbered arguments.
    fn numbered(&mut self, term: Expr) -> Result<Expr> {
        let numbered = term.transform_down(|part| match part {
            Expr::Column(_) | Expr::ScalarSubquery(_) => {
                let next = self.exprs.len();
                let place = *self.places.entry(part.clone()).or_insert(next);
                if place == next {
                    self.exprs.push(part);
                }
                let column = Expr::Column(Column::new_unqualified(name_of(place)));
                Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
            }
            part => Ok(Transformed::no(part)),
        })?;
        Ok(numbered.data)
    }
}

/// Returns the name of an argument in terms.
fn name_of(place: usize) -> String {
    format!("input{place}")
}

/// Returns true if a term reads only columns and values of subqueries, not variables of a surrounding lambda.
fn reads_columns_only(term: &Expr) -> Result<bool> {
    let reads_more = |part: &Expr| {
        Ok(matches!(
            part,
            Expr::HigherOrderFunction(_)
                | Expr::Lambda(_)
                | Expr::LambdaVariable(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        ))
    };
    Ok(!term.exists(reads_more)?)
}

/// Returns the condition of two terms as a CASE, in which the right term occurs twice.
fn by_case(left: Expr, op: Operator, right: Expr) -> Expr {
    let decides = op == Operator::Or;
    let unknown = binary_expr(right.clone(), op, Expr::Literal(ScalarValue::Boolean(None), None));
    Expr::Case(Case {
        expr: Some(Box::new(left)),
        when_then_expr: vec![
            (Box::new(lit(decides)), Box::new(lit(decides))),
            (Box::new(lit(!decides)), Box::new(right)),
        ],
        else_expr: Some(Box::new(unknown)),
    })
}

/// Returns the text that plans show.
fn text_of(op: Operator, terms: &[Expr]) -> String {
    let mut text = String::from("[");
    for (at, term) in terms.iter().enumerate() {
        if text.len() > TEXT_MAX {
            text.push_str(&format!(" {op} … {} more", terms.len() - at));
            break;
        }
        let between = if at == 0 { String::new() } else { format!(" {op} ") };
        let shown = unchecked(term.clone()).unwrap_or_else(|_| term.clone());
        let _ = write!(Bounded(&mut text), "{between}{shown}");
    }
    text + "]"
}

/// A text that stops growing soon after its maximum length.
struct Bounded<'a>(&'a mut String);

impl Write for Bounded<'_> {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        if self.0.len() > TEXT_MAX {
            return Err(std::fmt::Error);
        }
        self.0.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::logical_expr::{cast, col};

    use super::*;

    /// Returns `10 / c > 0`, which fails if `c` is 0.
    fn division() -> Expr {
        (lit(10_i64) / col("c")).gt(lit(0_i64))
    }

    fn answers(condition: &Expr, a: &[Option<bool>], c: &[i64]) -> Result<Vec<Option<bool>>> {
        let columns: [(&str, ArrayRef); 2] =
            [("a", Arc::new(BooleanArray::from(a.to_vec()))), ("c", Arc::new(Int64Array::from(c.to_vec())))];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?;
        let schema = DFSchema::try_from(rows.schema())?;
        let props = ExecutionProps::default();
        let physical = create_physical_expr(condition, &schema, &props, &PhysicalPlanningContext::default())?;
        let values = physical.evaluate(&rows)?.into_array(rows.num_rows())?;
        Ok(values.as_boolean().iter().collect())
    }

    #[test]
    fn the_answers_are_those_of_three_valued_logic() {
        const ALL: [Option<bool>; 3] = [Some(true), Some(false), None];
        let positive = |value: Option<bool>| value.map_or(0, |value| if value { 1 } else { -1 });
        for op in [Operator::And, Operator::Or] {
            let right = Expr::Case(Case {
                expr: None,
                when_then_expr: vec![(Box::new(col("c").not_eq(lit(0_i64))), Box::new(division()))],
                else_expr: None,
            });
            let guarded =
                Guard::of(op, vec![col("a"), right.clone(), col("a")], vec![false, true, false]).unwrap();
            let plain = binary_expr(binary_expr(col("a"), op, right), op, col("a"));
            let pairs: Vec<_> = ALL.iter().flat_map(|a| ALL.map(|c| (*a, positive(c)))).collect();
            let (a, c): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            assert_eq!(answers(&guarded, &a, &c).unwrap(), answers(&plain, &a, &c).unwrap(), "{op}");
        }
    }

    #[test]
    fn a_term_sees_the_rows_that_are_open() {
        let guarded = |op| Guard::of(op, vec![col("a"), division()], vec![false, true]).unwrap();
        let found = answers(&guarded(Operator::And), &[Some(false), Some(true), None], &[0, 5, -5]).unwrap();
        assert_eq!(found, [Some(false), Some(true), Some(false)]);
        let found = answers(&guarded(Operator::Or), &[Some(true), Some(false), None], &[0, 5, -5]).unwrap();
        assert_eq!(found, [Some(true), Some(true), None]);
        for (op, open) in [(Operator::And, true), (Operator::Or, false)] {
            assert!(answers(&guarded(op), &[Some(open)], &[0]).is_err());
            assert!(answers(&guarded(op), &[None], &[0]).is_err());
        }
    }

    #[test]
    fn conditions_within_conditions_take_as_much_as_their_text() {
        let mut condition = division();
        for level in 0..400 {
            let op = if level % 2 == 0 { Operator::And } else { Operator::Or };
            let other = cast(col("c"), DataType::Float64).gt(lit(f64::from(level)));
            condition = match level % 3 {
                0 => binary_expr(condition, op, other),
                _ => binary_expr(other, op, condition),
            };
        }
        let guarded = crate::guard::with_guards(condition).unwrap();
        assert_eq!(answers(&guarded, &[None, None], &[1, 2]).unwrap(), [Some(false), Some(false)]);
        let many = (0..10_000).map(|_| division()).reduce(|left, right| left.and(right)).unwrap();
        let guarded = crate::guard::with_guards(many).unwrap();
        assert_eq!(answers(&guarded, &[None, None], &[1, -2]).unwrap(), [Some(true), Some(false)]);
        assert!(guarded.to_string().len() < 1000, "{guarded}");
    }
}
