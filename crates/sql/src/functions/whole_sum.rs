//! `sum` of BIGINT. It uses DataFusion's sum of decimals, whose 128 bits hold all intermediate sums, and
//! fails if the result is out of the argument type's range.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{ScalarValue, exec_datafusion_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator};
use millstream_delta::sql_type;

use crate::error::Error;

/// The type in which values are summed.
const SUMMED: DataType = DataType::Decimal128(38, 0);

/// Returns true if values of a type are summed this way.
pub(super) fn takes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

fn of_decimals() -> Arc<dyn AggregateUDFImpl> {
    Arc::clone(sum_udaf().inner())
}

fn summed(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(SUMMED))
}

pub(super) fn accumulator(mut args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
    let output = args.return_field.data_type().clone();
    args.return_field = summed(&args.return_field);
    Ok(Box::new(One { inner: of_decimals().accumulator(args)?, output }))
}

pub(super) fn groups(mut args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
    let output = args.return_field.data_type().clone();
    args.return_field = summed(&args.return_field);
    Ok(Box::new(Groups { inner: of_decimals().create_groups_accumulator(args)?, output }))
}

pub(super) fn state_fields(mut args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
    args.return_field = summed(&args.return_field);
    of_decimals().state_fields(args)
}

fn decimals(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef) -> ArrayRef
    where
        T::Native: Into<i128>,
    {
        let wide: PrimitiveArray<Decimal128Type> = array.as_primitive::<T>().unary(Into::into);
        Arc::new(wide.with_data_type(SUMMED))
    }
    let wide = |array: &ArrayRef| match array.data_type() {
        DataType::Int64 => Ok(of::<Int64Type>(array)),
        DataType::UInt64 => Ok(of::<UInt64Type>(array)),
        other => Err(Error::bug(format!("a sum of integers over {}", sql_type(other))).into()),
    };
    values.iter().map(wide).collect()
}

/// Converts sums to a type.
fn narrowed(sums: &ArrayRef, output: &DataType) -> Result<ArrayRef> {
    fn of<T: ArrowPrimitiveType>(sums: &PrimitiveArray<Decimal128Type>) -> Result<ArrayRef>
    where
        T::Native: TryFrom<i128>,
    {
        let narrow: PrimitiveArray<T> = sums.try_unary(|sum| {
            let data_type = sql_type(&T::DATA_TYPE);
            T::Native::try_from(sum)
                .map_err(|_| exec_datafusion_err!("the sum {sum} is out of the range of {data_type}"))
        })?;
        Ok(Arc::new(narrow))
    }
    let sums = sums.as_primitive::<Decimal128Type>();
    match output {
        DataType::UInt64 => of::<UInt64Type>(sums),
        _ => of::<Int64Type>(sums),
    }
}

/// The sum of one group.
#[derive(Debug)]
struct One {
    inner: Box<dyn Accumulator>,
    output: DataType,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&decimals(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrowed(&sum, &self.output)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

/// The sums of all groups.
struct Groups {
    inner: Box<dyn GroupsAccumulator>,
    output: DataType,
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(&decimals(values)?, groups, filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrowed(&self.inner.evaluate(emit_to)?, &self.output)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, groups, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&decimals(values)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn sums_are_in_the_range_of_their_type_or_errors() {
        let most = i64::MAX;
        let rows = format!("VALUES (1, {most}), (1, {most}), (1, -{most}), (2, {most}), (2, 1), (3, NULL)");
        let tables = Tables::new().table("t", "(k INT, n BIGINT)", &rows);
        // In some orders, intermediate sums are out of range.
        tables.check("SELECT k, sum(n) FROM t WHERE k <> 2 GROUP BY k", &[&format!("1|{most}"), "3|NULL"]);
        tables.check(
            "SELECT sum(DISTINCT n), sum(n) FILTER (WHERE n < 2) FROM t",
            &[&format!("1|{}", 1 - most)],
        );
        let sliding = "SELECT max(s) FROM (SELECT sum(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s \
                       FROM t WHERE k = 1 AND n < 0)";
        tables.check(sliding, &[&format!("-{most}")]);
        for sql in [
            "SELECT k, sum(n) FROM t GROUP BY k",
            "SELECT sum(n) FROM t WHERE k = 2",
            "SELECT k, sum(n) OVER (PARTITION BY k ORDER BY n) FROM t",
            "SELECT sum(n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "SELECT count(*) FROM t GROUP BY ROLLUP (k) HAVING sum(n) > 0",
        ] {
            let query = tables.planner.query(sql, &tables).unwrap();
            let error = tables.execute(&query.plan, &|batch| vec![batch]).unwrap_err();
            let text = error.render(sql);
            assert!(text.contains("is out of the range of BIGINT"), "{sql}: {text}");
        }
    }
}
