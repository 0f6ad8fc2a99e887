//! Functions whose result can be much longer than their arguments. Their results are limited to
//! [`VALUE_BYTES_MAX`].
//!
//! `repeat('x', 2000000000)` is a few bytes of a statement, but gigabytes once folded, in each pass of the
//! optimizer. PostgreSQL likewise refuses values beyond a gigabyte.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::kernels::length::length;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::error::Result;
use datafusion::functions::string::repeat::RepeatFunc;
use datafusion::functions::unicode::lpad::LPadFunc;
use datafusion::functions::unicode::rpad::RPadFunc;
use datafusion::functions_nested::range::Range;
use datafusion::functions_nested::repeat::ArrayRepeat;
use datafusion::functions_nested::resize::ArrayResize;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use super::{Registry, decimal_series, time_series};
use crate::error::Error;
use crate::sqlstate;

/// The most bytes of one value that such a function returns.
pub(crate) const VALUE_BYTES_MAX: u64 = 256 << 20;

/// The fewest bytes that an array element takes.
pub(super) const ELEMENT_BYTES: u64 = 8;

/// Fails if a value is too long.
pub(super) fn check_value(name: &str, bytes: usize) -> Result<(), Error> {
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= VALUE_BYTES_MAX) {
        return Ok(());
    }
    let message = format!("{name} would make a value of {bytes} bytes, and {VALUE_BYTES_MAX} is the maximum");
    Err(Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED))
}

/// Fails if another value is too long, or too long for its column, whose offsets have 32 bits.
pub(crate) fn check_column(name: &str, bytes: usize, more: usize) -> Result<(), Error> {
    check_value(name, more)?;
    if i32::try_from(bytes.saturating_add(more)).is_ok() {
        return Ok(());
    }
    let message = format!("{name} would make more than {} bytes of values in one batch", i32::MAX);
    Err(Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED))
}

/// Replaces DataFusion's functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.replace("repeat", |function| function.inner().is::<RepeatFunc>(), |f| put(f, Bytes::Copies));
    registry.replace("lpad", |function| function.inner().is::<LPadFunc>(), |f| put(f, Bytes::Characters));
    registry.replace("rpad", |function| function.inner().is::<RPadFunc>(), |f| put(f, Bytes::Characters));
    let elements: fn(Arc<ScalarUDF>) -> ScalarUDF = |f| put(f, Bytes::Elements);
    registry.replace("array_repeat", |function| function.inner().is::<ArrayRepeat>(), elements);
    registry.replace("array_resize", |function| function.inner().is::<ArrayResize>(), elements);
    let has_micros = registry.unit == TimeUnit::Microsecond;
    let of_times = |f| if has_micros { time_series::around(Arc::new(f)) } else { f };
    registry.replace("range", |function| function.inner().is::<Range>(), |f| of_times(put(f, Bytes::Steps)));
    registry.replace(
        "generate_series",
        |function| function.inner().is::<Range>(),
        |f| of_times(decimal_series::around(Arc::new(put(f, Bytes::Steps)))),
    );
}

fn put(inner: Arc<ScalarUDF>, bytes: Bytes) -> ScalarUDF {
    ScalarUDF::from(Bounded { inner, bytes })
}

/// The way to compute the number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bytes {
    /// The second argument is the number of copies of the first.
    Copies,
    /// The second argument is the number of characters.
    Characters,
    /// The second argument is the number of elements.
    Elements,
    /// The elements run from one number to another, by a third or by one. Ranges of times aren't checked.
    Steps,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    bytes: Bytes,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.bytes.most(&arguments.args)?;
        if bytes > VALUE_BYTES_MAX {
            let name = self.name();
            let message =
                format!("{name} would make a value of {bytes} bytes, and {VALUE_BYTES_MAX} is the maximum");
            return Err(Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED).into());
        }
        self.inner.inner().invoke_with_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

impl Bytes {
    /// Returns about how many bytes the largest value has.
    fn most(self, arguments: &[ColumnarValue]) -> Result<u64> {
        let number = |place: usize| arguments.get(place).map(Numbers::of).transpose();
        let most = |all: Option<Numbers>| all.map_or(0, |all| all.most());
        Ok(match self {
            Bytes::Copies => {
                let (Some(text), Some(copies)) = (arguments.first(), number(1)?) else { return Ok(0) };
                let lengths = Numbers::of_array(length(&array_of(text)?)?, text)?;
                match lengths.most().saturating_mul(copies.most()) {
                    // The longest text need not have the most copies.
                    bytes if bytes > VALUE_BYTES_MAX => lengths.with(&copies, u64::saturating_mul),
                    bytes => bytes,
                }
            }
            Bytes::Characters => most(number(1)?),
            Bytes::Elements => most(number(1)?).saturating_mul(ELEMENT_BYTES),
            Bytes::Steps => {
                let is_whole = |value: &ColumnarValue| value.data_type().is_integer();
                if !arguments.iter().all(is_whole) {
                    return Ok(0);
                }
                let [first, second, step] = [number(0)?, number(1)?, number(2)?];
                let steps = Numbers::steps(first, second, step);
                steps.saturating_mul(ELEMENT_BYTES)
            }
        })
    }
}

/// The integers of an argument: one per row, or one for all rows.
struct Numbers {
    all: Int64Array,
    is_one: bool,
}

fn array_of(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(array.clone()),
        ColumnarValue::Scalar(one) => one.to_array(),
    }
}

impl Numbers {
    fn of(value: &ColumnarValue) -> Result<Numbers> {
        Numbers::of_array(array_of(value)?, value)
    }

    fn of_array(array: ArrayRef, value: &ColumnarValue) -> Result<Numbers> {
        let all = arrow::compute::cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        Ok(Numbers { all, is_one: matches!(value, ColumnarValue::Scalar(_)) })
    }

    fn at(&self, row: usize) -> Option<i64> {
        let row = if self.is_one { 0 } else { row };
        (row < self.all.len() && self.all.is_valid(row)).then(|| self.all.value(row))
    }

    fn rows(&self) -> usize {
        if self.is_one { 1 } else { self.all.len() }
    }

    /// Returns the largest number, at least 0.
    fn most(&self) -> u64 {
        arrow::compute::max(&self.all).map_or(0, |most| u64::try_from(most).unwrap_or(0))
    }

    /// Returns the largest combination of two numbers of one row.
    fn with(&self, other: &Numbers, put: fn(u64, u64) -> u64) -> u64 {
        let rows = self.rows().max(other.rows());
        let of = |row| {
            let (one, other) = (self.at(row)?, other.at(row)?);
            Some(put(u64::try_from(one).unwrap_or(0), u64::try_from(other).unwrap_or(0)))
        };
        (0..rows).filter_map(of).max().unwrap_or(0)
    }

    /// Returns the largest number of steps from one number to another. With one number, steps start at 0.
    fn steps(first: Option<Numbers>, second: Option<Numbers>, step: Option<Numbers>) -> u64 {
        let Some(first) = first else { return 0 };
        let rows = [Some(&first), second.as_ref(), step.as_ref()].into_iter().flatten().map(Numbers::rows);
        let of = |row| {
            let (from, to) = match &second {
                Some(second) => (first.at(row)?, second.at(row)?),
                None => (0, first.at(row)?),
            };
            let by = step.as_ref().map_or(Some(1), |step| step.at(row))?;
            let goes_there = (to >= from) == (by > 0);
            let far = goes_there.then(|| from.abs_diff(to) / by.unsigned_abs().max(1));
            Some(far.unwrap_or(0))
        };
        (0..rows.max().unwrap_or(0)).filter_map(of).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn values_have_a_largest_size() {
        let tables =
            Tables::new().table("t", "(s TEXT, n BIGINT)", "VALUES ('ab', 3), ('', 5000000000), (NULL, 1)");
        tables.check(
            "SELECT repeat(s, n), lpad(s, 4, 'x') FROM t WHERE n < 5 ORDER BY n",
            &["NULL|NULL", "ababab|xxab"],
        );
        tables.check("SELECT repeat(s, n) FROM t WHERE s = ''", &[""]);
        tables.check(
            "SELECT repeat('ab', -1), repeat('ab', NULL), length(repeat('x', 1000000))",
            &["|NULL|1000000"],
        );
        tables.check(
            "SELECT range(3), range(5, 1), range(1, 4), range(9, 3, -3)",
            &["[0, 1, 2]|[]|[1, 2, 3]|[9, 6]"],
        );
        tables.check("SELECT array_repeat('a', 2), array_resize([1], 2, 7)", &["[a, a]|[1, 7]"]);
        for sql in [
            "SELECT length(repeat('x', 2000000000))",
            "SELECT repeat(s, n * 1000000000) FROM t WHERE n = 3",
            "SELECT lpad('x', 2000000000)",
            "SELECT rpad(s, 2000000000, 'yz') FROM t",
            "SELECT array_repeat(1, 2000000000)",
            "SELECT array_resize([1], 2000000000, 2)",
            "SELECT range(3000000000)",
            "SELECT range(1, 3000000000)",
            "SELECT generate_series(3000000000, 1, -1)",
        ] {
            let error = match tables.planner.query(sql, &tables) {
                Err(error) => error,
                Ok(query) => tables.execute(&query.plan, &|batch| vec![batch]).unwrap_err(),
            };
            assert!(error.message.contains("is the maximum"), "{sql}: {}", error.message);
            assert_eq!(error.sqlstate(), "54000", "{sql}");
        }
    }
}
