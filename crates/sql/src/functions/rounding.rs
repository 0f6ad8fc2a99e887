//! Rounds numbers to whole ones, and the elements of arrays: `round_half_even(x)`, `round_half_up(x)` and `round_down(x)`.
//!
//! The rule `postgres_casts` and rewrites of other systems' casts call them. They keep the type of their argument.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayData, ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray, make_array};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
    Float32Type, Float64Type,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use millstream_delta::sql_type;

use super::Registry;
use crate::error::Error;
use crate::sqlstate;

/// How a number between two whole ones is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// To the nearest one, in the middle to the even one.
    HalfEven,
    /// To the nearest one, in the middle away from zero.
    HalfUp,
    /// Towards zero. Values that aren't numbers stay.
    Down,
}

static HALF_EVEN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Rounding::function(Mode::HalfEven));
static HALF_UP: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Rounding::function(Mode::HalfUp));
static DOWN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Rounding::function(Mode::Down));

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    [&HALF_EVEN, &HALF_UP, &DOWN].into_iter().for_each(|function| registry.add(function.as_ref().clone()));
}

/// Builds a call.
pub(crate) fn call(mode: Mode, argument: Expr) -> Expr {
    let function = match mode {
        Mode::HalfEven => &HALF_EVEN,
        Mode::HalfUp => &HALF_UP,
        Mode::Down => &DOWN,
    };
    function.call(vec![argument])
}

/// True if an expression is a call of one of the functions.
pub(crate) fn is_call(expression: &Expr) -> bool {
    matches!(expression, Expr::ScalarFunction(call) if call.func.inner().is::<Rounding>())
}

/// True if the functions round values of this type: numbers with digits behind the point, and arrays of them.
pub(crate) fn rounds(data_type: &DataType) -> bool {
    match leaf_type(data_type) {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale > 0,
        other => other.is_floating(),
    }
}

/// Returns the type of an array's elements, at any depth. Other types are their own.
pub(crate) fn leaf_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            leaf_type(item.data_type())
        }
        other => other,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Rounding {
    mode: Mode,
    signature: Signature,
}

impl Rounding {
    fn function(mode: Mode) -> Arc<ScalarUDF> {
        let signature = Signature::any(1, Volatility::Immutable);
        Arc::new(ScalarUDF::from(Rounding { mode, signature }))
    }
}

impl ScalarUDFImpl for Rounding {
    fn name(&self) -> &str {
        match self.mode {
            Mode::HalfEven => "round_half_even",
            Mode::HalfUp => "round_half_up",
            Mode::Down => "round_down",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        match found {
            [of] if rounds(of) || of.is_numeric() || of.is_null() || self.mode == Mode::Down => {
                Ok(of.clone())
            }
            _ => {
                let found: Vec<String> = found.iter().map(sql_type).collect();
                let (name, found) = (self.name(), found.join(", "));
                Err(Error::invalid(format!("function \"{name}\" doesn't take {found}"))
                    .hint("It takes a number, or an array of numbers.")
                    .code(sqlstate::UNDEFINED_FUNCTION)
                    .into())
            }
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &arguments.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(rounded(array, self.mode)?)),
            ColumnarValue::Scalar(value) => Ok(ColumnarValue::Scalar(rounded_value(value, self.mode)?)),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // Rounded elements of arrays can be equal.
        let is_number = inputs[0].range.data_type().is_numeric();
        Ok(if is_number { inputs[0].sort_properties } else { SortProperties::Unordered })
    }
}

/// Rounds a value.
pub(crate) fn rounded_value(value: &ScalarValue, mode: Mode) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&rounded(&value.to_array()?, mode)?, 0)
}

fn rounded(array: &ArrayRef, mode: Mode) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        found if !rounds(found) => Arc::clone(array),
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            let whole: PrimitiveArray<Float64Type> = match mode {
                Mode::HalfEven => values.unary(half_even),
                Mode::HalfUp => values.unary(f64::round),
                Mode::Down => values.unary(f64::trunc),
            };
            Arc::new(whole) as ArrayRef
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            let whole: PrimitiveArray<Float32Type> = match mode {
                Mode::HalfEven => values.unary(f32::round_ties_even),
                Mode::HalfUp => values.unary(f32::round),
                Mode::Down => values.unary(f32::trunc),
            };
            Arc::new(whole)
        }
        DataType::Float16 => {
            let exact = cast(array, &DataType::Float32)?;
            cast(&rounded(&exact, mode)?, &DataType::Float16)?
        }
        DataType::Decimal32(_, scale) => whole_decimals::<Decimal32Type>(array, *scale, mode),
        DataType::Decimal64(_, scale) => whole_decimals::<Decimal64Type>(array, *scale, mode),
        DataType::Decimal128(_, scale) => whole_decimals::<Decimal128Type>(array, *scale, mode),
        DataType::Decimal256(_, scale) => whole_decimals::<Decimal256Type>(array, *scale, mode),
        _ => {
            let list = array.to_data();
            let items: Result<Vec<ArrayData>> = list
                .child_data()
                .iter()
                .map(|items| Ok(rounded(&make_array(items.clone()), mode)?.to_data()))
                .collect();
            make_array(list.into_builder().child_data(items?).build()?)
        }
    })
}

/// Rounds a number like [`f64::round_ties_even`], which is a call for each value where the processor's oldest instructions are used.
fn half_even(value: f64) -> f64 {
    // Numbers from here on are whole. Below, the sum has no room for a fraction, and its rounding is that of the result.
    const WHOLE: f64 = 4_503_599_627_370_496.0;
    let size = value.abs();
    let rounded = if size < WHOLE { size + WHOLE - WHOLE } else { size };
    rounded.copysign(value)
}

/// Rounds decimals. PostgreSQL rounds their halves in one way only, away from zero. The results have the scale of the values, and
/// may have one digit more than their type.
fn whole_decimals<T: DecimalType>(array: &ArrayRef, scale: i8, mode: Mode) -> ArrayRef {
    let (ten, two) = (T::Native::usize_as(10), T::Native::usize_as(2));
    let unit = ten.pow_wrapping(u32::from(scale.unsigned_abs()));
    let half = unit.div_wrapping(two);
    let whole: PrimitiveArray<T> = array.as_primitive::<T>().unary(|value: T::Native| {
        let rest = value.mod_wrapping(unit);
        let down = value.sub_wrapping(rest);
        match rest {
            _ if mode == Mode::Down => down,
            above if above.is_ge(half) => down.add_wrapping(unit),
            below if below.is_le(half.neg_wrapping()) => down.sub_wrapping(unit),
            _ => down,
        }
    });
    Arc::new(whole.with_data_type(array.data_type().clone()))
}

#[cfg(test)]
mod tests {
    use millstream_seeds::Random;

    use crate::fixture::Tables;

    #[test]
    fn halves_are_rounded_as_the_standard_library_does() {
        let mut random = Random(7);
        let special = [
            0.0,
            -0.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            0.499_999_999_999_999_94,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
        ];
        let near = [2f64.powi(51), 2f64.powi(52), 2f64.powi(53)];
        let near = near.iter().flat_map(|at| [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0].map(|by| at + by));
        let any = (0..100_000).map(|_| f64::from_bits(random.bits()));
        for value in special.into_iter().chain(near).chain(any).flat_map(|value| [value, -value]) {
            let (found, expected) = (super::half_even(value), value.round_ties_even());
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{value}: {found}"
            );
        }
    }

    #[test]
    fn halves_are_rounded_to_even_or_away_from_zero() {
        let tables = Tables::new().table(
            "t",
            "(d DOUBLE, r REAL, n NUMERIC(3, 2), w NUMERIC(50, 1), i INT)",
            "VALUES (0.5, 1.5, 9.99, -2.5, 1), (-2.5, 2.5, -0.5, 2.4, 2), (NULL, NULL, NULL, NULL, NULL)",
        );
        tables.check(
            "SELECT round_half_even(d), round_half_up(d), round_half_even(r), round_half_up(r) FROM t",
            &["-2.0|-3.0|2.0|3.0", "0.0|1.0|2.0|2.0", "NULL|NULL|NULL|NULL"],
        );
        tables.check(
            "SELECT round_half_up(n)::INT, round_half_up(w)::INT, round_half_up(i) FROM t",
            &["-1|2|2", "10|-3|1", "NULL|NULL|NULL"],
        );
        tables.check(
            "SELECT round_half_even([0.5, NULL, d]), round_half_up([[1.5], NULL, [d, 2.5]]) FROM t WHERE i = 1",
            &["[0.0, NULL, 0.0]|[[2.0], NULL, [1.0, 3.0]]"],
        );
        tables.check(
            "SELECT round_down(d), round_down(n), round_down(w), round_down('x') FROM t WHERE i < 3",
            &["-2.0|0.00|2.0|x", "0.0|9.00|-2.0|x"],
        );
        tables.fails("SELECT round_half_even('x'::TEXT)", "function \"round_half_even\" doesn't take TEXT\nHINT: It takes a number, or an array of numbers.");
    }
}
