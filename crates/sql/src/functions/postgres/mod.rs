//! PostgreSQL's functions that DataFusion lacks.

pub(super) mod age;
pub(super) mod arrays;
pub(super) mod byte_forms;
pub(crate) mod byte_strings;
pub(super) mod bytes;
pub(super) mod calendar;
pub(super) mod degrees;
pub(crate) mod extract;
pub(crate) mod formatting;
pub(super) mod interval;
pub(super) mod normalization;
pub(super) mod numbers;
pub(super) mod ordered_sets;
pub(crate) mod patterns;
pub(super) mod periods;
pub(crate) mod quantified;
pub(crate) mod regexp;
pub(super) mod text;
pub(super) mod time;
mod time_parts;
pub(super) mod truncate;
pub(crate) mod varchar;
mod zone_offsets;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, StringViewArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, cast};
use datafusion::sql::sqlparser::ast::BinaryOperator;
pub(in crate::functions) use formatting::read_in_zone;
use millstream_delta::sql_type;
pub(crate) use text::like_pattern;
pub use text::{quote_ident, quoted_ident};
pub(crate) use time::timezone_function;
pub(crate) use time_parts::{SECOND, units_of_second};
pub(crate) use truncate::date_trunc_in_zone;
pub use zone_offsets::ZoneOffsets;
pub(crate) use zone_offsets::{Zones, local_offset, utc_offset};

use super::Registry;
use super::maps::element_at;
use super::scalar::Scalar;
use crate::error::Error;

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    let integer = |_: &[DataType]| Ok(DataType::Int32);
    registry.add(Scalar::any("num_nulls", integer, |columns| Ok(count(columns, true))));
    registry.add(Scalar::any("num_nonnulls", integer, |columns| Ok(count(columns, false))));
    registry.add(Scalar::any("sql_typeof", |_| Ok(DataType::Utf8View), type_of));
    let bucket = vec![DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int64];
    registry.add(Scalar::exact("width_bucket", bucket, integer, width_bucket));
}

/// Returns functions that replace other syntax in plans, and that statements can't name.
pub(crate) fn unnamed() -> [ScalarUDF; 3] {
    [bytes::length(), interval::multiply(), arrays::subscript()]
}

/// Plans `a && b`, true if two arrays share an element, and `a = '{1,2}'`, where the text is an array.
///
/// It comes before DataFusion's planners: these take each subscript.
#[derive(Debug)]
pub(crate) struct Arrays;

impl ExprPlanner for Arrays {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let list =
            |side: &Expr| side.get_type(schema).ok().filter(|found| matches!(found, DataType::List(_)));
        let is_text = |side: &Expr| {
            matches!(side, Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)), _))
        };
        match written.op {
            BinaryOperator::Eq | BinaryOperator::NotEq => {
                let RawBinaryExpr { op, left, right } = written;
                let (left, right) = match (is_text(&left), is_text(&right)) {
                    (true, false) => match list(&right) {
                        Some(array) => (cast(left, array), right),
                        None => (left, right),
                    },
                    (false, true) => match list(&left) {
                        Some(array) => (left, cast(right, array)),
                        None => (left, right),
                    },
                    _ => (left, right),
                };
                Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
            }
            BinaryOperator::PGOverlap => {
                Ok(PlannerResult::Planned(quantified::overlaps(written.left, written.right)))
            }
            _ => Ok(PlannerResult::Original(written)),
        }
    }

    /// Plans `a[i]` of an array, which has no element below 1, and `m[k]` of a map.
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { expr, field_access } = access;
        let found = expr.get_type(schema);
        if found.as_ref().is_ok_and(|found| matches!(found, DataType::Map(..))) {
            let key = match field_access {
                GetFieldAccess::NamedStructField { name } => Expr::Literal(name, None),
                GetFieldAccess::ListIndex { key } => *key,
                other => {
                    return Ok(PlannerResult::Original(RawFieldAccessExpr { expr, field_access: other }));
                }
            };
            return Ok(PlannerResult::Planned(element_at().call(vec![expr, key])));
        }
        let is_list = found.is_ok_and(|found| matches!(found, DataType::List(_)));
        let field_access = match field_access {
            GetFieldAccess::ListIndex { key } if is_list && !matches!(expr, Expr::AggregateFunction(_)) => {
                let key = match &*key {
                    Expr::Literal(ScalarValue::Int64(Some(1..)), _) => key,
                    _ => Box::new(arrays::subscript().call(vec![*key])),
                };
                GetFieldAccess::ListIndex { key }
            }
            other => other,
        };
        Ok(PlannerResult::Original(RawFieldAccessExpr { expr, field_access }))
    }
}

/// Counts the arguments that are NULL, or that aren't.
fn count(columns: &[ArrayRef], null: bool) -> ArrayRef {
    let rows = columns.first().map_or(1, |column| column.len());
    let mut counts = vec![0; rows];
    for column in columns {
        let nulls = column.logical_nulls();
        for (row, count) in counts.iter_mut().enumerate() {
            *count += i32::from(nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) == null);
        }
    }
    Arc::new(Int32Array::from(counts))
}

fn type_of(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [column] = columns else {
        return Err(Error::invalid("pg_typeof takes one argument").into());
    };
    let name = postgres_name(column.data_type());
    Ok(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(name, column.len()))))
}

/// Returns the name that PostgreSQL gives a type, without its precision: `timestamp with time zone`.
fn postgres_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int32 => "integer".into(),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "numeric".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".into(),
        DataType::Timestamp(_, None) => "timestamp without time zone".into(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".into(),
        DataType::Null => "unknown".into(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            // An array of PostgreSQL has one type, whatever the number of its dimensions.
            let item = postgres_name(item.data_type());
            if item.ends_with("[]") { item } else { format!("{item}[]") }
        }
        DataType::Dictionary(_, values) => postgres_name(values),
        DataType::RunEndEncoded(_, values) => postgres_name(values.data_type()),
        other => sql_type(other).to_lowercase(),
    }
}

/// Returns the bucket of a histogram: 0 below the first, the count plus one above the last.
fn width_bucket(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let floats = |at: usize| -> &Float64Array { columns[at].as_primitive::<Float64Type>() };
    let (value, low, high) = (floats(0), floats(1), floats(2));
    let counts = columns[3].as_primitive::<Int64Type>();
    let rows = (0..value.len()).map(|row| {
        if columns.iter().any(|column| column.is_null(row)) {
            return Ok(None);
        }
        let (value, low, high, count) = (value.value(row), low.value(row), high.value(row), counts.value(row));
        let count = i32::try_from(count).unwrap_or(0);
        if count <= 0 || low == high || !low.is_finite() || !high.is_finite() || value.is_nan() {
            return Err(Error::invalid(format!(
                "width_bucket({value}, {low}, {high}, {count}): expected a number, two different finite bounds and from \
                 1 to {} buckets",
                i32::MAX
            )));
        }
        let part = (value - low) / (high - low);
        Ok(Some(match part {
            part if part < 0.0 => 0,
            part if part >= 1.0 => count.saturating_add(1),
            part => (part * f64::from(count)) as i32 + 1,
        }))
    });
    Ok(Arc::new(rows.collect::<std::result::Result<Int32Array, Error>>()?))
}
