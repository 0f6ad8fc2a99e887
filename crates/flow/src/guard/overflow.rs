//! Integer arithmetic that fails if its result is out of the range of its type.
//!
//! DataFusion wraps around. Here `+`, `-`, `*` and the sign of integers become [`Checked`], unless the types
//! and literals of their operands exclude a result out of range.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum, PrimitiveArray, Scalar, downcast_integer,
};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric::{add, mul, neg, sub};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRewriter};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary_expr,
};
use millstream_delta::sql_type;

use super::display::Fail;

/// Returns the columns that the expressions of a node read.
pub(super) fn schema_of(node: &LogicalPlan) -> Result<DFSchema> {
    match node {
        LogicalPlan::TableScan(scan) => {
            DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())
        }
        node => Ok(merge_schema(&node.inputs())),
    }
}

/// Returns true if an expression contains arithmetic whose result may be out of range.
pub(super) fn computes(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(binary) => Step::of(binary.op).is_some(),
            Expr::Negative(_) => true,
            _ => false,
        })
    })
}

/// Returns the expression with checked arithmetic.
pub(super) fn checked(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.rewrite(&mut Checker { schema, operands: Vec::new() })?.data)
}

/// The range of an expression's values: its type, the least and the greatest possible value.
#[derive(Clone, Debug, PartialEq)]
struct Bounds {
    data_type: DataType,
    least: i128,
    most: i128,
}

impl Bounds {
    /// Returns the range of an integer type; `None` for other types.
    fn of_type(data_type: &DataType) -> Option<Bounds> {
        let (least, most) = match data_type {
            DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => (0, u8::MAX.into()),
            DataType::UInt16 => (0, u16::MAX.into()),
            DataType::UInt32 => (0, u32::MAX.into()),
            DataType::UInt64 => (0, u64::MAX.into()),
            _ => return None,
        };
        Some(Bounds { data_type: data_type.clone(), least, most })
    }

    /// Returns the bounds of an expression that isn't arithmetic itself.
    fn of(expr: &Expr, schema: &DFSchema) -> Option<Bounds> {
        let of_type = |expr: &Expr| Bounds::of_type(&expr.get_type(schema).ok()?);
        match expr {
            Expr::Literal(value, _) => {
                let range = Bounds::of_type(&value.data_type())?;
                match value.cast_to(&DataType::Decimal128(38, 0)) {
                    Ok(ScalarValue::Decimal128(Some(value), ..)) => {
                        Some(Bounds { least: value, most: value, ..range })
                    }
                    _ => Some(range),
                }
            }
            Expr::Cast(Cast { expr, field }) => {
                let range = Bounds::of_type(field.data_type())?;
                match of_type(expr) {
                    Some(inner) if range.holds(&inner) => {
                        Some(Bounds { data_type: range.data_type, ..inner })
                    }
                    _ => Some(range),
                }
            }
            expr => of_type(expr),
        }
    }

    fn holds(&self, other: &Bounds) -> bool {
        self.least <= other.least && other.most <= self.most
    }

    /// Returns the bounds of the result of a step, regardless of the type's range.
    fn after(&self, step: Step, other: &Bounds) -> Bounds {
        let ends = |of: &dyn Fn(i128, i128) -> i128| {
            let from = [self.least, self.most];
            let all = from.into_iter().flat_map(|a| [other.least, other.most].map(|b| of(a, b)));
            all.fold((i128::MAX, i128::MIN), |(least, most), end| (least.min(end), most.max(end)))
        };
        let (least, most) = ends(&|a, b| step.exactly(a, b));
        Bounds { data_type: self.data_type.clone(), least, most }
    }
}

/// Visits an expression from its leaves and tracks the bounds of its arithmetic.
struct Checker<'a> {
    schema: &'a DFSchema,
    /// For each open node, the bounds of its children so far.
    operands: Vec<Vec<Option<Bounds>>>,
}

impl TreeNodeRewriter for Checker<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        self.operands.push(Vec::new());
        Ok(Transformed::no(expr))
    }

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let mut known = self.operands.pop().unwrap_or_default().into_iter();
        let mut bounds = |expr: &Expr| known.next().flatten().or_else(|| Bounds::of(expr, self.schema));
        let (expr, found) = match expr {
            Expr::BinaryExpr(binary) => {
                match (Step::of(binary.op), bounds(&binary.left), bounds(&binary.right)) {
                    (Some(step), Some(left), Some(right)) if left.data_type == right.data_type => {
                        let found = left.after(step, &right);
                        outcome(Expr::BinaryExpr(binary), found, step)
                    }
                    _ => (Transformed::no(Expr::BinaryExpr(binary)), None),
                }
            }
            Expr::Negative(inner) => match bounds(&inner) {
                Some(of) => outcome(Expr::Negative(inner), of.after(Step::Negate, &of), Step::Negate),
                None => (Transformed::no(Expr::Negative(inner)), None),
            },
            expr => (Transformed::no(expr), None),
        };
        if let Some(parent) = self.operands.last_mut() {
            parent.push(found);
        }
        Ok(expr)
    }
}

/// Returns the expression unchanged if its values are within the range of their type, else checked.
fn outcome(expr: Expr, found: Bounds, step: Step) -> (Transformed<Expr>, Option<Bounds>) {
    let Some(range) = Bounds::of_type(&found.data_type) else { return (Transformed::no(expr), None) };
    if range.holds(&found) {
        return (Transformed::no(expr), Some(found));
    }
    let expr = match expr {
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
            let (mut steps, mut operands) = chain(*left, step, &range.data_type);
            steps.push(step);
            operands.push(*right);
            Checked::call(steps, operands, range.data_type.clone())
        }
        Expr::Negative(inner) => Checked::call(vec![step], vec![*inner], range.data_type.clone()),
        expr => return (Transformed::no(expr), None),
    };
    (Transformed::yes(expr), Some(range))
}

/// Returns the steps and operands of an expression that is itself checked arithmetic of the same precedence
/// as `next`. So `a + b + … + z` is one call.
fn chain(left: Expr, next: Step, data_type: &DataType) -> (Vec<Step>, Vec<Expr>) {
    if let Expr::ScalarFunction(ScalarFunction { func, args }) = left {
        return match func.inner().downcast_ref::<Checked>() {
            Some(checked) if checked.data_type == *data_type && checked.precedence() == next.precedence() => {
                (checked.steps.clone(), args)
            }
            _ => (Vec::new(), vec![Expr::ScalarFunction(ScalarFunction { func, args })]),
        };
    }
    (Vec::new(), vec![left])
}

/// Returns the expression as it was written, for display.
pub(super) fn unchecked(expr: Expr) -> Result<Expr> {
    let written = expr.transform_up(|part| match part {
        Expr::ScalarFunction(ScalarFunction { func, args }) => match func.inner().downcast_ref::<Checked>() {
            Some(checked) => Ok(Transformed::yes(checked.written(args))),
            None => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
        },
        part => Ok(Transformed::no(part)),
    })?;
    Ok(written.data)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Plus,
    Minus,
    Times,
    Negate,
}

impl Step {
    fn of(operator: Operator) -> Option<Step> {
        match operator {
            Operator::Plus => Some(Step::Plus),
            Operator::Minus => Some(Step::Minus),
            Operator::Multiply => Some(Step::Times),
            _ => None,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Step::Plus => "+",
            Step::Minus | Step::Negate => "-",
            Step::Times => "*",
        }
    }

    /// Returns the operator's precedence.
    fn precedence(self) -> u8 {
        match self {
            Step::Plus | Step::Minus => Operator::Plus.precedence(),
            Step::Times => Operator::Multiply.precedence(),
            Step::Negate => u8::MAX,
        }
    }

    /// Computes the result, regardless of the type's range.
    fn exactly(self, left: i128, right: i128) -> i128 {
        match self {
            Step::Plus => left.saturating_add(right),
            Step::Minus => left.saturating_sub(right),
            Step::Times => left.saturating_mul(right),
            Step::Negate => -left,
        }
    }

    fn apply(self, left: &dyn Datum, right: Option<&dyn Datum>) -> Result<ArrayRef, ArrowError> {
        match (self, right) {
            (Step::Plus, Some(right)) => add(left, right),
            (Step::Minus, Some(right)) => sub(left, right),
            (Step::Times, Some(right)) => mul(left, right),
            _ => neg(left.get().0),
        }
    }
}

/// Steps over integers of one type, from left to right: each takes the result so far and its operand. A
/// result out of the type's range is an error.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Checked {
    steps: Vec<Step>,
    data_type: DataType,
    signature: Signature,
}

/// Calls [`Checked::step_in_range`] for integers of a type.
macro_rules! step_over {
    ($type:ty, $checked:expr, $($argument:expr),+) => { $checked.step_in_range::<$type>($($argument),+) };
}

impl Checked {
    fn call(steps: Vec<Step>, operands: Vec<Expr>, data_type: DataType) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Checked { steps, data_type, signature }).call(operands)
    }

    fn written(&self, operands: Vec<Expr>) -> Expr {
        let mut operands = operands.into_iter();
        let first = operands.next().unwrap_or_default();
        self.steps.iter().fold(first, |left, step| {
            let operator = match step {
                Step::Plus => Operator::Plus,
                Step::Minus => Operator::Minus,
                Step::Times => Operator::Multiply,
                Step::Negate => return Expr::Negative(Box::new(left)),
            };
            binary_expr(left, operator, operands.next().unwrap_or_default())
        })
    }

    pub(super) fn precedence(&self) -> u8 {
        self.steps.first().map_or(u8::MAX, |step| step.precedence())
    }

    /// Returns the arithmetic as it was written, given the texts of its operands.
    pub(super) fn text(&self, mut operands: impl Iterator<Item = String>) -> String {
        let mut text = operands.next().unwrap_or_default();
        for step in &self.steps {
            match step {
                Step::Negate => text = format!("(- {text})"),
                step => text.push_str(&format!(" {} {}", step.sign(), operands.next().unwrap_or_default())),
            }
        }
        text
    }

    /// Implements [`super::DisplayAsWritten::in_range`].
    pub(super) fn in_range(&self, operands: &[ArrayRef], fail: &mut Fail<'_>) -> Option<ArrayRef> {
        let mut operands = operands.iter();
        let mut values = operands.next()?.clone();
        for step in &self.steps {
            let (step, left) = (*step, &values);
            let right = if step == Step::Negate { None } else { Some(operands.next()?) };
            values = downcast_integer! {
                self.data_type => (step_over, self, step, left, right, fail),
                _ => None
            }?;
        }
        Some(values)
    }

    /// Computes a step; NULL for rows that are out of range.
    fn step_in_range<T>(
        &self,
        step: Step,
        left: &ArrayRef,
        right: Option<&ArrayRef>,
        fail: &mut Fail<'_>,
    ) -> Option<ArrayRef>
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i128> + TryFrom<i128>,
    {
        let left = left.as_primitive_opt::<T>()?;
        let right = match right {
            Some(right) => Some(right.as_primitive_opt::<T>()?),
            None => None,
        };
        let mut nulls = NullBuffer::union(left.nulls(), right.and_then(|right| right.nulls()));
        let mut is_valid = None;
        let mut values = Vec::with_capacity(left.len());
        for (row, a) in left.values().iter().enumerate() {
            let (a, b): (i128, i128) = ((*a).into(), right.map_or(0, |right| right.value(row).into()));
            if let Ok(value) = T::Native::try_from(step.exactly(a, b)) {
                values.push(value);
                continue;
            }
            values.push(T::Native::default());
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            is_valid.get_or_insert_with(|| vec![true; left.len()])[row] = false;
            fail(row, &|| match step {
                Step::Negate => self.out_of_range(&format!("- {a}")),
                step => self.out_of_range(&format!("{a} {} {b}", step.sign())),
            });
        }
        if let Some(is_valid) = is_valid {
            nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::from(is_valid)));
        }
        Some(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
    }

    fn out_of_range(&self, text: &str) -> String {
        format!("{text} is out of the range of {}", sql_type(&self.data_type))
    }

    fn failed(&self, error: &ArrowError) -> datafusion::error::DataFusionError {
        let text = match error {
            ArrowError::ArithmeticOverflow(text) => text.strip_prefix("Overflow happened on: "),
            _ => None,
        };
        match text {
            Some(text) => exec_datafusion_err!("{}", self.out_of_range(text)),
            None => exec_datafusion_err!("{error}"),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        "checked"
    }

    fn schema_name(&self, operands: &[Expr]) -> Result<String> {
        Ok(self.text(operands.iter().map(|operand| operand.schema_name().to_string())))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.data_type.clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.data_type.clone(), nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut operands = arguments.args.into_iter();
        let mut value = operands.next().ok_or_else(|| exec_datafusion_err!("arithmetic over nothing"))?;
        for step in &self.steps {
            let right = if *step == Step::Negate { None } else { operands.next() };
            value = self.step(*step, value, right)?;
        }
        Ok(value)
    }
}

impl Checked {
    fn step(&self, step: Step, left: ColumnarValue, right: Option<ColumnarValue>) -> Result<ColumnarValue> {
        let is_array = |value: &ColumnarValue| matches!(value, ColumnarValue::Array(_));
        let one = !is_array(&left) && !right.as_ref().is_some_and(is_array);
        let (left, right) = (Operand::of(left)?, right.map(Operand::of).transpose()?);
        let found = step.apply(left.datum(), right.as_ref().map(Operand::datum));
        let found = found.map_err(|error| self.failed(&error))?;
        Ok(match one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?),
            false => ColumnarValue::Array(found),
        })
    }
}

/// An operand in the form that Arrow's kernels take.
enum Operand {
    Array(ArrayRef),
    One(Scalar<ArrayRef>),
}

impl Operand {
    fn of(value: ColumnarValue) -> Result<Operand> {
        Ok(match value {
            ColumnarValue::Array(array) => Operand::Array(array),
            ColumnarValue::Scalar(value) => Operand::One(value.to_scalar()?),
        })
    }

    fn datum(&self) -> &dyn Datum {
        match self {
            Operand::Array(array) => array,
            Operand::One(scalar) => scalar,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, RecordBatch};
    use arrow::datatypes::{Int64Type, Schema};
    use datafusion::logical_expr::execution_props::ExecutionProps;
    use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
    use datafusion::logical_expr::{cast, col, lit};
    use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

    use super::super::display::as_written;
    use super::*;

    fn schema() -> DFSchema {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let fields =
            vec![field("i", DataType::Int32), field("n", DataType::Int64), field("x", DataType::Float64)];
        DFSchema::try_from(Schema::new(fields)).unwrap()
    }

    fn physical(expr: Expr) -> Arc<dyn PhysicalExpr> {
        let (schema, context) = (schema(), PhysicalPlanningContext::default());
        let expr = checked(expr, &schema).unwrap();
        as_written(create_physical_expr(&expr, &schema, &ExecutionProps::new(), &context).unwrap()).unwrap()
    }

    fn value(expr: Expr, n: i64) -> Result<Option<i64>> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![7])),
            Arc::new(Int64Array::from(vec![n])),
            Arc::new(arrow::array::Float64Array::from(vec![0.5])),
        ];
        let rows = RecordBatch::try_new(Arc::clone(schema().inner()), columns).unwrap();
        let found = physical(expr).evaluate(&rows)?.into_array(1)?;
        Ok(found.as_primitive::<Int64Type>().iter().next().flatten())
    }

    #[test]
    fn arithmetic_is_checked_unless_its_operands_leave_room() {
        let is_checked = |expr: Expr| checked(expr.clone(), &schema()).unwrap() != expr;
        let i = || cast(col("i"), DataType::Int64);
        assert!(!is_checked(i() + lit(1_i64)));
        assert!(!is_checked(i() * i() - lit(5_i64)));
        assert!(!is_checked(-i()));
        assert!(is_checked(i() * i() * i()));
        assert!(is_checked(i() + lit(i64::MAX)));
        assert!(is_checked(col("i") + lit(1_i32)));
        assert!(is_checked(col("n") + lit(1_i64)));
        assert!(is_checked(-col("n")));
        assert!(!is_checked(col("x") * lit(2.0)));
    }

    #[test]
    fn results_out_of_range_are_errors() {
        let n = || col("n");
        assert_eq!(value(n() + lit(1_i64) - lit(2_i64), 5).unwrap(), Some(4));
        assert_eq!(value((n() - lit(1_i64)) * (n() + lit(1_i64)), 5).unwrap(), Some(24));
        assert_eq!(value(-(n() + lit(1_i64)), 5).unwrap(), Some(-6));
        for (expr, n, message) in [
            (
                n() + lit(1_i64) - lit(2_i64),
                i64::MAX,
                "9223372036854775807 + 1 is out of the range of BIGINT",
            ),
            (n() - lit(1_i64), i64::MIN, "-9223372036854775808 - 1 is out of the range of BIGINT"),
            (lit(3_i64) * n(), i64::MAX, "3 * 9223372036854775807 is out of the range of BIGINT"),
            (-n(), i64::MIN, "-9223372036854775808 is out of the range of BIGINT"),
        ] {
            let error = value(expr, n).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn arithmetic_is_shown_as_it_was_written() {
        let n = || col("n");
        let written = (n() - lit(1_i64)) * (n() + lit(1_i64)) - n() * lit(2_i64);
        assert_eq!(physical(written.clone()).to_string(), "(n@1 - 1) * (n@1 + 1) - n@1 * 2");
        let right = n() - (n() + lit(2_i64));
        assert_eq!(physical(right).to_string(), "n@1 - (n@1 + 2)");
        let checked = checked(written.clone(), &schema()).unwrap();
        assert_eq!(checked.schema_name().to_string(), written.schema_name().to_string());
        assert_eq!(unchecked(checked).unwrap(), written);
    }

    #[test]
    fn a_long_sum_is_one_call() {
        let long = (0..1_000).fold(col("n"), |sum, _| sum + lit(1_i64));
        let Expr::ScalarFunction(call) = checked(long.clone(), &schema()).unwrap() else { panic!("no call") };
        assert_eq!(call.args.len(), 1_001);
        assert_eq!(value(long, 1).unwrap(), Some(1_001));
    }
}
