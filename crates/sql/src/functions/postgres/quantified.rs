//! `x = ANY (array)`, `x < ALL (array)` and the like, and `a && b`, with NULLs as SQL has them.
//!
//! `x op ANY (array)` is the OR of `x op element` over all elements, `ALL` the AND. So an element that is NULL makes the
//! result NULL, unless another one decides it. The rewriting of syntax trees calls the functions, which statements can name
//! only in quotes.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, make_comparator};
use arrow::buffer::NullBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, in_list, lit,
};
use millstream_delta::{has_equal_forms, one_form, sql_type};

use crate::error::Error;
use crate::functions::Registry;

/// The function for `&&`.
static OVERLAP_FUNCTION: LazyLock<ScalarUDF> = LazyLock::new(|| {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(Comparison { name: "array &&", kind: Kind::Overlap, signature })
});

/// The names of the functions, with their operators and true for `ALL`.
const QUANTIFIED: [(&str, Compared, bool); 12] = [
    ("= any", Compared::Eq, false),
    ("<> any", Compared::NotEq, false),
    ("< any", Compared::Lt, false),
    ("<= any", Compared::LtEq, false),
    ("> any", Compared::Gt, false),
    (">= any", Compared::GtEq, false),
    ("= all", Compared::Eq, true),
    ("<> all", Compared::NotEq, true),
    ("< all", Compared::Lt, true),
    ("<= all", Compared::LtEq, true),
    ("> all", Compared::Gt, true),
    (">= all", Compared::GtEq, true),
];

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Compared {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

impl Compared {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Compared::Eq => order.is_eq(),
            Compared::NotEq => order.is_ne(),
            Compared::Lt => order.is_lt(),
            Compared::LtEq => order.is_le(),
            Compared::Gt => order.is_gt(),
            Compared::GtEq => order.is_ge(),
        }
    }
}

/// Plans `a && b`.
pub(super) fn overlaps(left: Expr, right: Expr) -> Expr {
    OVERLAP_FUNCTION.call(vec![left, right])
}

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    let signature = Signature::user_defined(Volatility::Immutable);
    for (name, compared, all) in QUANTIFIED {
        let kind = Kind::Quantified { compared, all };
        registry.add(ScalarUDF::from(Comparison { name, kind, signature: signature.clone() }));
    }
    registry.add(OVERLAP_FUNCTION.clone());
}

/// A comparison with elements of arrays.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Comparison {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A value and an array.
    Quantified { compared: Compared, all: bool },
    /// Two arrays.
    Overlap,
}

impl Comparison {
    /// Returns the operator as statements write it.
    fn written(&self) -> String {
        match self.kind {
            Kind::Quantified { .. } => self.name.to_uppercase(),
            Kind::Overlap => "&&".into(),
        }
    }
}

/// Returns the value and the array of a comparison with `ANY` or `ALL`, if a call is one.
pub(crate) fn operands(call: &ScalarFunction) -> Option<(&Expr, &Expr)> {
    let is_one = QUANTIFIED.iter().any(|(name, ..)| *name == call.name());
    match &call.args[..] {
        [value, array] if is_one => Some((value, array)),
        _ => None,
    }
}

/// Returns the type of an array's elements; of NULL, which is an array without a type, NULL.
pub(crate) fn element(array: &DataType) -> Option<&DataType> {
    match array {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => Some(field.data_type()),
        DataType::Null => Some(array),
        _ => None,
    }
}

impl ScalarUDFImpl for Comparison {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = arguments else {
            return Err(Error::bug(format!("{} compares two values", self.written())).into());
        };
        let (one, other) = match self.kind {
            Kind::Quantified { .. } => (Some(left), element(right)),
            Kind::Overlap => (element(left), element(right)),
        };
        if matches!(self.kind, Kind::Quantified { .. }) && other.is_none() {
            let error = format!("{} takes an array, not {}", self.written(), sql_type(right));
            return Err(Error::invalid(error).hint("Write it as ARRAY[…], or as '{…}'::TYPE[].").into());
        }
        let common = one.zip(other).and_then(|(one, other)| match (one, other) {
            (DataType::Null, DataType::Null) => Some(DataType::Boolean),
            _ => comparison_coercion(one, other),
        });
        let Some(common) = common else {
            let error =
                format!("{} can't compare {} with {}", self.written(), sql_type(left), sql_type(right));
            return Err(Error::invalid(error).hint("Cast one of them.").into());
        };
        let array = DataType::new_list(common.clone(), true);
        Ok(match self.kind {
            Kind::Quantified { .. } => vec![common, array],
            Kind::Overlap => vec![array.clone(), array],
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { arguments.number_rows };
        let sides = arguments.args.into_iter().map(Side::of).collect::<Result<Vec<_>>>()?;
        let [left, right] = &sides[..] else {
            return Err(Error::bug(format!("{} compares two values", self.written())).into());
        };
        let result: ArrayRef = Arc::new(match self.kind {
            Kind::Quantified { compared, all } => quantified(left, right, rows, compared, all)?,
            Kind::Overlap => overlap(left, right, rows)?,
        });
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }

    /// Writes `= ANY` and `<> ALL` of a constant array as IN, by which rows are found.
    fn simplify(&self, mut arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let all = match self.kind {
            Kind::Quantified { compared: Compared::Eq, all: false } => false,
            Kind::Quantified { compared: Compared::NotEq, all: true } => true,
            _ => return Ok(ExprSimplifyResult::Original(arguments)),
        };
        // IN compares values as they are.
        let list = match &arguments[..] {
            [_, Expr::Literal(ScalarValue::List(list), _)] if !has_equal_forms(&list.value_type()) => list,
            [value, Expr::ScalarFunction(call)] if call.name() == "make_array" && !call.args.is_empty() => {
                let of = context.get_data_type(value)?;
                let is_same = |element| context.get_data_type(element).is_ok_and(|found| found == of);
                if has_equal_forms(&of) || !call.args.iter().all(is_same) {
                    return Ok(ExprSimplifyResult::Original(arguments));
                }
                let elements = call.args.clone();
                return Ok(ExprSimplifyResult::Simplified(in_list(arguments.swap_remove(0), elements, all)));
            }
            _ => return Ok(ExprSimplifyResult::Original(arguments)),
        };
        if list.is_null(0) {
            return Ok(ExprSimplifyResult::Simplified(lit(ScalarValue::Boolean(None))));
        }
        let elements = list.value(0);
        if elements.is_empty() {
            return Ok(ExprSimplifyResult::Simplified(lit(all)));
        }
        let elements = (0..elements.len()).map(|at| Ok(lit(ScalarValue::try_from_array(&elements, at)?)));
        let elements = elements.collect::<Result<Vec<_>>>()?;
        Ok(ExprSimplifyResult::Simplified(in_list(arguments.swap_remove(0), elements, all)))
    }
}

/// One side of a comparison. A constant is there once, for all rows.
struct Side {
    values: ArrayRef,
    is_constant: bool,
}

impl Side {
    fn of(argument: ColumnarValue) -> Result<Side> {
        let is_constant = matches!(argument, ColumnarValue::Scalar(_));
        Ok(Side { values: argument.into_array(1)?, is_constant })
    }

    fn place(&self, row: usize) -> usize {
        if self.is_constant { 0 } else { row }
    }

    fn lists(&self) -> Result<&ListArray> {
        self.values.as_list_opt::<i32>().ok_or_else(|| Error::bug("an array was expected").into())
    }
}

/// Returns the places of a list's elements.
fn elements_of(lists: &ListArray, row: usize) -> Range<usize> {
    lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize
}

fn quantified(left: &Side, right: &Side, rows: usize, compared: Compared, all: bool) -> Result<BooleanArray> {
    let (values, lists) = (one_form(&left.values)?, right.lists()?);
    let elements = one_form(lists.values())?;
    let order = make_comparator(&values, &elements, SortOptions::default())?;
    let (no_value, no_element) = (values.logical_nulls(), elements.logical_nulls());
    let result = |row: usize| {
        let (value, list) = (left.place(row), right.place(row));
        if lists.is_null(list) {
            return None;
        }
        let range = elements_of(lists, list);
        if no_value.as_ref().is_some_and(|nulls| nulls.is_null(value)) {
            return range.is_empty().then_some(all);
        }
        let mut is_open = false;
        for at in range {
            match no_element.as_ref().is_some_and(|nulls| nulls.is_null(at)) {
                true => is_open = true,
                false if compared.holds(order(value, at)) != all => return Some(!all),
                false => {}
            }
        }
        (!is_open).then_some(all)
    };
    Ok((0..rows).map(result).collect())
}

/// Returns true where two arrays have an element in common. NULL equals nothing.
fn overlap(left: &Side, right: &Side, rows: usize) -> Result<BooleanArray> {
    let (left_lists, right_lists) = (left.lists()?, right.lists()?);
    let converter = RowConverter::new(vec![SortField::new(left_lists.value_type())])?;
    let left_rows = converter.convert_columns(&[one_form(left_lists.values())?])?;
    let right_rows = converter.convert_columns(&[one_form(right_lists.values())?])?;
    let (left_nulls, right_nulls) =
        (left_lists.values().logical_nulls(), right_lists.values().logical_nulls());
    let is_there =
        |nulls: &Option<NullBuffer>, at: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at));
    let result = |row: usize| {
        let (one, other) = (left.place(row), right.place(row));
        if left_lists.is_null(one) || right_lists.is_null(other) {
            return None;
        }
        let known = elements_of(left_lists, one).filter(|at| is_there(&left_nulls, *at));
        let known: HashSet<_> = known.map(|at| left_rows.row(at)).collect();
        let mut others = elements_of(right_lists, other).filter(|at| is_there(&right_nulls, *at));
        Some(others.any(|at| known.contains(&right_rows.row(at))))
    };
    Ok((0..rows).map(result).collect())
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn elements_that_are_null_leave_the_result_open() {
        let tables = Tables::new().table(
            "t",
            "(k INT, x INT, a INT[], b INT[])",
            "VALUES (1, 1, [1, NULL], [NULL, 2]), (2, 2, [1, NULL], [1]), (3, NULL, [1], [1]), (4, NULL, [], []), \
             (5, 1, NULL, [1]), (6, 3, [1, 2], [3, NULL, 2])",
        );
        let check = |condition: &str, expected: &str| {
            let sql = format!("SELECT k, {condition} FROM t ORDER BY k");
            let rows: Vec<String> = expected
                .split(' ')
                .enumerate()
                .map(|(at, value)| {
                    let value = match value {
                        "t" => "true",
                        "f" => "false",
                        _ => "NULL",
                    };
                    format!("{}|{value}", at + 1)
                })
                .collect();
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            tables.check(&sql, &rows);
        };
        check("x = ANY (a)", "t n n f n f");
        check("NOT x = ANY (a)", "f n n t n t");
        check("x <> ANY (a)", "n t n f n t");
        check("x <> ALL (a)", "f n n t n t");
        check("x = ALL (a)", "n f n t n f");
        check("x < ANY (a)", "n n n f n f");
        check("x >= SOME (a)", "t t n f n t");
        check("x > ALL (a)", "f n n t n t");
        check("a && b", "f t t f n t");
        check("x = ANY ('{1,NULL}'::INT[])", "t n n n t n");
        check("x <> ALL (ARRAY[1, 2])", "f f n n f t");
        check("x = ANY (ARRAY[]::INT[])", "f f f f f f");
        check("3 = ANY (a)", "n n f f n f");
        check("a && ARRAY[2, NULL]", "f f f f n t");
        check("x = ANY (ARRAY[k, 1])", "t t n n t f");
        tables.check(
            "SELECT 0.0 = ANY (ARRAY[-0.0]), INTERVAL '1 day' = ANY (ARRAY[INTERVAL '24 hours'])",
            &["true|true"],
        );
        tables.fails(
            "SELECT 1 FROM t WHERE k = ANY (x)",
            "= ANY takes an array, not INT\nHINT: Write it as ARRAY[…], or as '{…}'::TYPE[].",
        );
        tables.fails("SELECT a && x FROM t", "&& can't compare INT[] with INT\nHINT: Cast one of them.");
    }
}
