//! Finds the rows for which expressions fail, over all rows at once.
//!
//! DataFusion stops at the first row for which an expression fails. This module evaluates an expression node
//! by node. A node that fails returns NULL for the failing rows, and each such row is noted with the message
//! that it has alone. Only nodes that are evaluated for every row count, and the branches of CASE, AND and OR
//! for the rows that reach them. So a noted row fails no matter which other rows are beside it.
//!
//! A function that fails doesn't say for which rows. The rows noted before that are certain all the same, and
//! the caller searches the others by halving.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{CastOptions, and, cast, interleave, is_not_null, nullif, take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
    NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::failure::reason;
use crate::guard::DisplayAsWritten;
use crate::{Error, guard};

type Expr = Arc<dyn PhysicalExpr>;

/// The rows for which expressions fail, as far as they are found without halving.
pub(crate) struct Failing {
    /// For each row, true if it fails.
    failed: Vec<bool>,
    /// The reason for each failing row, if reasons are requested.
    messages: Option<Vec<Option<String>>>,
}

impl Failing {
    /// Evaluates expressions over rows, one after the other, up to the first one whose failing rows can't be
    /// identified. Returns the values as well, arbitrary for rows that fail, if there is no such expression.
    pub(crate) fn of(
        exprs: &[Expr],
        rows: &RecordBatch,
        with_messages: bool,
    ) -> (Failing, Option<Vec<ArrayRef>>) {
        let mut failing = Failing::none(rows.num_rows(), with_messages);
        let values = exprs.iter().map(|expr| failing.values(expr, rows)).collect();
        (failing, values)
    }

    fn none(count: usize, with_messages: bool) -> Failing {
        Failing { failed: vec![false; count], messages: with_messages.then(|| vec![None; count]) }
    }

    /// Returns the failing rows.
    pub(crate) fn failed(&self) -> BooleanArray {
        BooleanArray::from(self.failed.clone())
    }

    /// Returns the reason for each failing row, if reasons were requested.
    pub(crate) fn messages(self) -> Vec<Option<String>> {
        self.messages.unwrap_or_default()
    }

    /// Returns the values of an expression, arbitrary for rows that fail; `None` if the failing rows can't be
    /// identified.
    pub(crate) fn values(&mut self, expr: &Expr, rows: &RecordBatch) -> Option<ArrayRef> {
        let count = rows.num_rows();
        if let Ok(values) = expr.evaluate(rows) {
            return values.into_array(count).ok();
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            let values = self.values(cast.expr(), rows)?;
            return self.cast(expr, cast, &values);
        }
        if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            return self.case(case, rows);
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>()
            && matches!(binary.op(), Operator::And | Operator::Or)
        {
            // The engine evaluates the right side for a row depending on other rows, so failures of the right
            // side are not noted.
            self.values(binary.left(), rows)?;
            return self.values_of_rest(expr, rows);
        }
        if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
            if let Some(terms) = guard::terms(function, rows) {
                return self.terms(&terms?);
            }
            if function.fun().short_circuits() {
                return None;
            }
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            // The list is evaluated only for rows that no earlier item matched.
            self.values(list.expr(), rows)?;
            return self.values_of_rest(expr, rows);
        }
        let written = expr.downcast_ref::<DisplayAsWritten>();
        if written.is_none() && !looks_at_all(expr) {
            return None;
        }
        let mut children = Vec::new();
        for child in expr.children() {
            children.push(self.values(child, rows)?);
        }
        if let Some(written) = written {
            return written.in_range(&children, &mut |row, message| self.fail(row, message));
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            self.divide(binary, &mut children)?;
        }
        over(expr, &children, count)
    }

    fn fail(&mut self, row: usize, message: impl FnOnce() -> String) {
        self.failed[row] = true;
        if let Some(messages) = &mut self.messages {
            messages[row].get_or_insert_with(message);
        }
    }

    /// Evaluates a cast, which returns NULL for values that its type can't represent.
    fn cast(&mut self, expr: &Expr, cast: &CastExpr, values: &ArrayRef) -> Option<ArrayRef> {
        if values.data_type().is_nested() || cast.cast_type().is_nested() {
            // A failing part would become a NULL inside of a value.
            return None;
        }
        let options = CastOptions { safe: true, ..cast.cast_options().clone() };
        let count = values.len();
        let given = ColumnarValue::Array(values.clone()).cast_to(cast.cast_type(), Some(&options));
        let given = given.ok()?.into_array(count).ok()?;
        let fails = |row: &usize| given.is_null(*row) && values.is_valid(*row);
        let null_means_failure = is_strict(values.data_type()) && is_strict(cast.cast_type());
        if self.messages.is_none() && null_means_failure {
            (0..count).filter(fails).for_each(|row| self.failed[row] = true);
            return Some(given);
        }
        // Equal texts have equal messages, so each text's message is computed once.
        let texts = values.data_type().is_string().then(|| arrow::compute::cast(values, &DataType::Utf8View));
        let texts = texts.transpose().ok()?;
        let mut known: HashMap<&str, String> = HashMap::new();
        for row in (0..count).filter(fails).filter(|row| !self.failed[*row]).collect::<Vec<_>>() {
            let text = texts.as_ref().map(|texts| texts.as_string_view().value(row));
            let message = match text.and_then(|text| known.get(text)) {
                Some(message) => message.clone(),
                None => {
                    let Err(error) = alone(expr, &[values.slice(row, 1)], 1) else { return None };
                    reason(&error)?
                }
            };
            self.fail(row, || message.clone());
            known.extend(text.map(|text| (text, message)));
        }
        Some(given)
    }

    /// Replaces integer divisors of zero by NULL.
    fn divide(&mut self, binary: &BinaryExpr, children: &mut [ArrayRef]) -> Option<()> {
        let [left, right] = children else { return Some(()) };
        let data_type = right.data_type().clone();
        if !matches!(binary.op(), Operator::Divide | Operator::Modulo) {
            return Some(());
        }
        if data_type.is_decimal() {
            // The dividend may have too many digits, too.
            return None;
        }
        if !data_type.is_integer() {
            return Some(());
        }
        let zero = ScalarValue::new_zero(&data_type).ok()?.to_scalar().ok()?;
        let is_zero = eq(right, &zero).and_then(|zero| and(&zero, &is_not_null(left)?)).ok()?;
        for row in (0..is_zero.len()).filter(|row| is_zero.is_valid(*row) && is_zero.value(*row)) {
            self.fail(row, || "division by zero".into());
        }
        *right = nullif(right, &is_zero).ok()?;
        Some(())
    }

    /// Evaluates the branches of a CASE: each condition for the rows that no earlier condition chose.
    fn case(&mut self, case: &CaseExpr, rows: &RecordBatch) -> Option<ArrayRef> {
        if case.expr().is_some() {
            return None;
        }
        let mut open: Vec<u32> = (0..rows.num_rows() as u32).collect();
        let (mut branches, mut chosen_by) = (Vec::new(), Vec::new());
        for (when, then) in case.when_then_expr() {
            let (values, failed) = self.part(when, rows, &open)?;
            let values = cast(&values, &DataType::Boolean).ok()?;
            let values = values.as_boolean();
            let chooses = |at: usize| values.is_valid(at) && values.value(at);
            let (mut chosen, mut left) = (Vec::new(), Vec::new());
            for (at, row) in open.into_iter().enumerate().filter(|(at, _)| !failed[*at]) {
                if chooses(at) { chosen.push(row) } else { left.push(row) }
            }
            branches.push(self.part(then, rows, &chosen)?.0);
            chosen_by.push(chosen);
            open = left;
        }
        if let Some(other) = case.else_expr() {
            branches.push(self.part(other, rows, &open)?.0);
            chosen_by.push(open);
        }
        merged(&branches, &chosen_by, rows.num_rows())
    }

    /// Evaluates the terms of a condition, each for the rows that the terms before it leave open.
    fn terms(&mut self, condition: &Terms) -> Option<ArrayRef> {
        let mut answers = vec![Some(!condition.decides); condition.rows.num_rows()];
        let mut open: Vec<u32> = (0..answers.len() as u32).collect();
        for term in &condition.terms {
            let (values, failed) = self.part(term, &condition.rows, &open)?;
            let values = cast(&values, &DataType::Boolean).ok()?;
            let mut left = Vec::with_capacity(open.len());
            for ((row, value), failed) in open.into_iter().zip(values.as_boolean()).zip(failed) {
                if value != Some(!condition.decides) {
                    answers[row as usize] = value;
                }
                if !failed && value != Some(condition.decides) {
                    left.push(row);
                }
            }
            open = left;
        }
        Some(Arc::new(BooleanArray::from(answers)))
    }

    /// Evaluates an expression for some of the rows. Returns the values, and for each row true if it fails.
    fn part(&mut self, expr: &Expr, rows: &RecordBatch, places: &[u32]) -> Option<(ArrayRef, Vec<bool>)> {
        let some = match places.len() == rows.num_rows() {
            true => rows.clone(),
            false => take_record_batch(rows, &UInt32Array::from_iter_values(places.iter().copied())).ok()?,
        };
        let mut inner = Failing::none(places.len(), self.messages.is_some());
        let values = inner.values(expr, &some);
        let mut messages = inner.messages.into_iter().flatten();
        for (place, failed) in places.iter().zip(&inner.failed) {
            let message = messages.next().flatten();
            if *failed {
                self.fail(*place as usize, || message.unwrap_or_default());
            }
        }
        Some((values?, inner.failed))
    }

    /// Returns the values of an expression for the rows that aren't noted, and NULL for the noted rows.
    fn values_of_rest(&self, expr: &Expr, rows: &RecordBatch) -> Option<ArrayRef> {
        let rest = (0..rows.num_rows() as u32).filter(|row| !self.failed[*row as usize]);
        let rest = UInt32Array::from_iter_values(rest);
        let some = take_record_batch(rows, &rest).ok()?;
        let values = expr.evaluate(&some).ok()?.into_array(some.num_rows()).ok()?;
        let mut next = 0..;
        let place = |failed: &bool| if *failed { None } else { next.next() };
        let places: UInt32Array = self.failed.iter().map(place).collect();
        take(&values, &places, None).ok()
    }
}

/// A condition whose terms are evaluated one after the other.
pub(crate) struct Terms {
    /// The columns that the terms read.
    pub(crate) rows: RecordBatch,
    pub(crate) terms: Vec<Expr>,
    /// The value of a term that decides the condition.
    pub(crate) decides: bool,
}

/// Returns the values of the branches of a CASE in the order of the rows; NULL for the rows that no branch has.
/// `chosen_by` has the rows of each branch, in the order of its values.
fn merged(branches: &[ArrayRef], chosen_by: &[Vec<u32>], count: usize) -> Option<ArrayRef> {
    let null = new_null_array(branches.first()?.data_type(), 1);
    let mut places = vec![(branches.len(), 0); count];
    for (branch, rows) in chosen_by.iter().enumerate() {
        for (at, row) in rows.iter().enumerate() {
            places[*row as usize] = (branch, at);
        }
    }
    let arrays: Vec<&dyn Array> = branches.iter().chain([&null]).map(AsRef::as_ref).collect();
    interleave(&arrays, &places).ok()
}

/// Returns true for types between which a cast returns NULL exactly for the values that it otherwise refuses.
fn is_strict(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_string()
        || matches!(data_type, DataType::Boolean | DataType::Date32)
}

/// Returns true if a node evaluates all nodes below it for every row.
fn looks_at_all(expr: &Expr) -> bool {
    expr.downcast_ref::<BinaryExpr>().is_some()
        || expr.downcast_ref::<ScalarFunctionExpr>().is_some()
        || expr.downcast_ref::<TryCastExpr>().is_some()
        || expr.downcast_ref::<IsNullExpr>().is_some()
        || expr.downcast_ref::<IsNotNullExpr>().is_some()
        || expr.downcast_ref::<NotExpr>().is_some()
        || expr.downcast_ref::<NegativeExpr>().is_some()
        || expr.downcast_ref::<LikeExpr>().is_some()
}

/// Returns the values of a node over the values of its children; `None` if the node fails.
fn over(expr: &Expr, children: &[ArrayRef], count: usize) -> Option<ArrayRef> {
    alone(expr, children, count).ok()
}

fn alone(expr: &Expr, children: &[ArrayRef], count: usize) -> Result<ArrayRef, Error> {
    let field =
        |(at, values): (usize, &ArrayRef)| Field::new(at.to_string(), values.data_type().clone(), true);
    let schema = Schema::new(children.iter().enumerate().map(field).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let rows = RecordBatch::try_new_with_options(Arc::new(schema), children.to_vec(), &options)?;
    let below = expr.children().into_iter().enumerate();
    // Some functions accept only literals for some arguments.
    let below = below.map(|(at, child)| match child.downcast_ref::<Literal>() {
        Some(_) => child.clone(),
        None => Arc::new(Column::new(&at.to_string(), at)) as Expr,
    });
    let expr = expr.clone().with_new_children(below.collect())?;
    Ok(expr.evaluate(&rows)?.into_array(count)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use arrow::array::{Int64Array, StringViewArray};
    use millstream_delta::{Chunk, Delta};
    use millstream_seeds::first_seeds;

    use super::*;
    use crate::fixture::{Fixture, Random, rows, schema, step};

    /// The total weight of each error or row.
    type Sum = BTreeMap<String, i64>;

    fn add(sum: &mut Sum, delta: &Delta) {
        for chunk in &delta.chunks {
            for row in 0..chunk.rows.num_rows() {
                *sum.entry(crate::failure::row_text(&chunk.rows, row).unwrap()).or_default() +=
                    chunk.weight(row);
            }
        }
    }

    /// Returns rows some of whose texts are numbers.
    fn mixed(random: &mut Random, count: usize) -> RecordBatch {
        let rows = rows(random, count);
        let text = |_| match random.below(5) {
            0 => None,
            1 => Some("no number".to_string()),
            2 => Some(String::new()),
            _ => Some(random.below(400).to_string()),
        };
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter((0..count).map(text)));
        let place = schema().index_of("s").unwrap();
        let mut columns = rows.columns().to_vec();
        columns[place] = arrow::compute::cast(&texts, rows.column(place).data_type()).unwrap();
        RecordBatch::try_new(rows.schema(), columns).unwrap()
    }

    #[test]
    fn rows_fail_together_as_each_does_alone() {
        let queries = [
            "SELECT id, 100 / v AS d FROM t",
            "SELECT id, 100 % (v - 2) AS d, CAST(s AS INT) AS n, 7 / k AS e FROM t",
            "SELECT id, CAST(s AS SMALLINT) + 1 / (v - k) AS d FROM t",
            "SELECT id FROM t WHERE CAST(s AS TINYINT) > 3",
            "SELECT id FROM t WHERE v <> 2 AND 10 / v > 2 AND CAST(s AS INT) > 5",
            "SELECT id FROM t WHERE v = 2 OR 10 / v > 2 OR CAST(s AS INT) > 5",
            "SELECT id, CASE WHEN v > 2 THEN 10 / k WHEN CAST(s AS INT) > 9 THEN 3 ELSE 8 / v END AS c FROM t",
            "SELECT id, CASE v WHEN 2 THEN 10 / k WHEN 1 / v THEN 3 END AS c FROM t",
            "SELECT id, coalesce(10 / v, k, CAST(s AS INT)) AS c FROM t",
            "SELECT id, abs(10 / v) AS a, substr(s, 1 / k) AS b, upper(s) || CAST(CAST(s AS INT) AS TEXT) AS c FROM t",
            "SELECT id, CAST(v AS DECIMAL(10, 2)) / CAST(k AS DECIMAL(10, 2)) AS d, CAST(f AS INT) AS i FROM t",
            "SELECT id, date_trunc('day', to_timestamp(1000 / v)) AS d, 10 / v IS NULL AS n, NOT 1 / k = 1 AS m FROM t",
            "SELECT id FROM t WHERE 10 / v IN (1, k, 2 / k)",
            "SELECT id, v + 9223372036854775804 AS n, -(v - 9223372036854775806) * 2 AS m FROM t",
            "SELECT id FROM t WHERE k IS NULL OR v * 4611686018427387904 > 5",
            "SELECT id, CASE WHEN CAST(make_array(s) AS BIGINT[])[1] IS NULL THEN 1 / v ELSE 2 END AS a FROM t",
            "SELECT id, substr(s, 1, v - 2) AS a, \
             CAST(99999999999999999999999999999999999999 AS DECIMAL(38, 0)) / CAST(k AS DECIMAL(38, 0)) AS d FROM t",
        ];
        for seed in first_seeds(2, 0..6) {
            for sql in queries {
                let (mut random, fixture) = (Random(seed), Fixture::new());
                let (mut together, mut alone) = (fixture.compile(sql), fixture.compile(sql));
                let all = mixed(&mut random, 70);
                let weights =
                    Int64Array::from_iter_values((0..70).map(|row| if row % 7 == 3 { 2 } else { 1 }));
                let chunk = Chunk { rows: all, weights: Some(weights) };
                let (mut found, mut expected) = ([Sum::new(), Sum::new()], [Sum::new(), Sum::new()]);
                let change = step(&mut together, 1, &[Delta::of(chunk.clone()), Delta::default()]);
                add(&mut found[0], &change.rows);
                add(&mut found[1], &change.errors);
                for row in 0..70 {
                    let one = Delta::of(chunk.slice(row, 1));
                    let change = step(&mut alone, row as u64 + 1, &[one, Delta::default()]);
                    add(&mut expected[0], &change.rows);
                    add(&mut expected[1], &change.errors);
                }
                assert_eq!(found, expected, "{sql}");
                assert!(!found[1].is_empty(), "{sql}");
            }
        }
    }

    #[test]
    fn strict_casts_refuse_exactly_what_others_make_null() {
        let texts = [
            "1",
            " 1",
            "1 ",
            "+1",
            "-1",
            "",
            " ",
            "x",
            "1.5",
            "1e3",
            "128",
            "-129",
            "32768",
            "2147483648",
            "0x1f",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "18446744073709551615",
            "true",
            "T",
            "yes",
            "off",
            "0",
            "null",
            "NaN",
            "inf",
            "2026-11-24",
            "2026-02-30",
            "2026-11-24T10:00:00",
            "20261124",
            "1_000",
        ];
        let types = [
            DataType::Boolean,
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Date32,
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
        ];
        let given: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let safe = CastOptions { safe: true, ..CastOptions::default() };
        let mut refused = 0;
        for from in &types {
            assert!(is_strict(from));
            // The values of a type are those of the texts that it can represent.
            let Ok(values) = arrow::compute::cast_with_options(&given, from, &safe) else { continue };
            for to in &types {
                let schema = Schema::new(vec![Field::new("v", from.clone(), true)]);
                let column = Arc::new(Column::new("v", 0)) as Expr;
                let Ok(cast) = datafusion::physical_expr::expressions::cast(column, &schema, to.clone())
                else {
                    continue;
                };
                let Some(cast) = cast.downcast_ref::<CastExpr>() else { continue };
                let options = CastOptions { safe: true, ..cast.cast_options().clone() };
                let lenient = ColumnarValue::Array(values.clone()).cast_to(to, Some(&options));
                let Ok(lenient) = lenient.and_then(|found| found.into_array(values.len())) else { continue };
                for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
                    let one = RecordBatch::try_from_iter([("v", values.slice(row, 1))]).unwrap();
                    let strict = cast.evaluate(&one);
                    assert_eq!(strict.is_err(), lenient.is_null(row), "{} from {from} to {to}", texts[row]);
                    refused += usize::from(strict.is_err());
                }
            }
        }
        assert!(refused > 300, "{refused}");
    }

    /// Failing rows that are kept as rows cancel out, however they arrive and leave.
    #[test]
    fn failing_rows_leave_as_they_came() {
        let sql = "SELECT id, substr(s, 1, v - 2) AS a, 100 / k AS d, CAST(s AS SMALLINT) AS n FROM t WHERE 10 / v >= 0";
        for seed in first_seeds(3, 0..8) {
            let (mut random, fixture) = (Random(seed), Fixture::new());
            let mut flow = fixture.compile(sql);
            let all = mixed(&mut random, 60);
            let mut kept: BTreeMap<(usize, usize), millstream_state::Rows> = BTreeMap::new();
            let mut apply = |chunk: Chunk, epoch: u64| {
                let inputs = [&Delta::of(chunk)];
                let change = flow.step(&crate::fixture::cut(epoch), &inputs).unwrap();
                assert!(change.errors.is_empty());
                for failing in change.failing {
                    let rows = kept.entry(failing.stage.place());
                    let rows =
                        rows.or_insert_with(|| millstream_state::Rows::new(failing.stage.schema().clone()));
                    rows.apply(&failing.rows).unwrap();
                }
                kept.values().map(millstream_state::Rows::num_rows).sum::<usize>()
            };
            let failing = apply(Chunk::insert(all.clone()), 1);
            assert!(failing > 10, "{failing}");
            let (mut row, mut epoch, mut left) = (0, 1, failing);
            while row < 60 {
                let count = (1 + random.below(7) as usize).min(60 - row);
                epoch += 1;
                left = apply(Chunk::delete(all.slice(row, count)), epoch);
                row += count;
            }
            assert_eq!(left, 0);
        }
    }

    /// Measures a step over rows of which `percent` in a hundred fail.
    fn time(sql: &str, percent: i64) -> Duration {
        let count = 32_768;
        let fails = |row: i64| row % 100 < percent;
        let mut columns = rows(&mut Random(1), count).columns().to_vec();
        let place = |name: &str| schema().index_of(name).unwrap();
        let numbers = (0..count as i64).map(|row| if fails(row) { 0 } else { 1 + row % 9 });
        let texts = (0..count as i64).map(|row| if fails(row) { "x".to_string() } else { row.to_string() });
        columns[place("v")] = Arc::new(Int64Array::from_iter_values(numbers));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let text = columns[place("s")].data_type().clone();
        columns[place("s")] = arrow::compute::cast(&texts, &text).unwrap();
        let rows = RecordBatch::try_new(schema(), columns).unwrap();
        let once = || {
            let mut flow = Fixture::new().compile(sql);
            let changes = [Delta::insert(rows.clone()), Delta::default()];
            let begun = Instant::now();
            let change = step(&mut flow, 1, &changes);
            assert_eq!(change.errors.is_empty(), percent == 0);
            begun.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap_or_default()
    }

    /// Halving made rows that all fail far slower than rows that pass.
    #[test]
    fn rows_that_fail_cost_little_more_than_rows_that_pass() {
        let queries = [
            "SELECT id, 100 / v AS d FROM t",
            "SELECT id, CAST(s AS INT) AS d FROM t",
            "SELECT k, sum(100 / v) AS d FROM t GROUP BY k",
            "SELECT id FROM t WHERE id >= 0 AND CAST(s AS INT) >= 0",
        ];
        for sql in queries {
            let times = [0, 1, 50, 100].map(|percent| time(sql, percent));
            println!("{sql}: 0, 1, 50, 100 % fail: {times:?}");
            assert!(times[3] < times[0] * 40 + Duration::from_millis(40), "{sql}: {times:?}");
        }
    }
}
