//! Tests keys and states with two operators, one of which is restarted now and then: their outputs must be
//! the same.

use std::sync::LazyLock;

use arrow::array::{Int64Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Fields, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, LogicalPlan, Signature,
    Volatility,
};
use millstream_delta::Epoch;
use millstream_seeds::first_seeds;

use super::*;
use crate::fixture::{Files, Fixture, Random, delta, go_on, rows, sorted, step_alike};

static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| ["millstream.update_state".to_string()]);

/// Sums values. It fails for a key with a value of 7, and drops a key whose sum is a multiple of five.
///
/// As `counted` it returns the number of values beside the sum, and nothing for three values. Then it is also called
/// at the time-out, and fails there for sums that are multiples of three.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fold {
    name: &'static str,
    signature: Signature,
}

impl Fold {
    fn is_mapped(&self) -> bool {
        self.name == "counted"
    }
}

fn mapped_fields() -> Fields {
    Fields::from(vec![Field::new("state", DataType::Int64, true), Field::new("n", DataType::Int64, true)])
}

/// Returns a context with the functions `fold` and `counted`.
fn with_functions() -> Fixture {
    let fixture = Fixture::new();
    for name in ["fold", "counted"] {
        let signature = Signature::any(3, Volatility::Immutable);
        fixture.context().register_udaf(AggregateUDF::from(Fold { name, signature }));
    }
    fixture
}

impl AggregateUDFImpl for Fold {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &*ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(if self.is_mapped() { DataType::Struct(mapped_fields()) } else { DataType::Int64 })
    }

    fn state_fields(&self, _arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let state = Field::new("state", DataType::Int64, true);
        let mut fields = vec![Arc::new(Field::new("values", values, true)), Arc::new(state)];
        if self.is_mapped() {
            fields.push(Arc::new(Field::new("timing_out", DataType::Boolean, true)));
        }
        Ok(fields)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        not_called()
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        _arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Call { is_mapped: self.is_mapped() }))
    }
}

fn not_called<T>() -> Result<T> {
    Err(DataFusionError::Internal("not called".into()))
}

struct Call {
    is_mapped: bool,
}

impl GroupsAccumulator for Call {
    fn convert_to_state(&self, values: &[ArrayRef], _filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let old = values[1].as_primitive::<Int64Type>();
        assert_eq!(values.len(), if self.is_mapped { 3 } else { 2 });
        let is_last = |row| values.get(2).is_some_and(|flags| flags.as_boolean().value(row));
        let (mut states, mut counts, mut there) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (values, old)) in values[0].as_list::<i32>().iter().zip(old).enumerate() {
            let values = values.unwrap();
            let values = values.as_primitive::<Int64Type>();
            if values.iter().any(|value| value == Some(7)) {
                return Err(DataFusionError::Execution(format!("7 after {old:?}")));
            }
            let sum = values.iter().flatten().sum::<i64>() + old.unwrap_or(0);
            if is_last(row) && sum % 3 == 0 {
                return Err(DataFusionError::Execution(format!("the last sum is {sum}")));
            }
            states.push(Some(sum).filter(|sum| sum % 5 != 0));
            counts.push(values.len() as i64);
            there.push(values.len() != 3);
        }
        let states: ArrayRef = Arc::new(Int64Array::from(states));
        if !self.is_mapped {
            return Ok(vec![states]);
        }
        let columns: Vec<ArrayRef> = vec![states, Arc::new(Int64Array::from(counts))];
        Ok(vec![Arc::new(StructArray::new(mapped_fields(), columns, Some(NullBuffer::from(there))))])
    }

    fn update_batch(
        &mut self,
        _values: &[ArrayRef],
        _groups: &[usize],
        _filter: Option<&BooleanArray>,
        _count: usize,
    ) -> Result<()> {
        not_called()
    }

    fn evaluate(&mut self, _emit_to: EmitTo) -> Result<ArrayRef> {
        not_called()
    }

    fn state(&mut self, _emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        not_called()
    }

    fn merge_batch(&mut self, _values: &[ArrayRef], _groups: &[usize], _count: usize) -> Result<()> {
        not_called()
    }

    fn size(&self) -> usize {
        0
    }
}

/// Steps an operator, and one that is restarted now and then; returns the numbers of their failures and
/// retracted failures.
fn run(function: &str, arguments: &str, of: Rows, seed: u64) -> [usize; 2] {
    let fixture = with_functions();
    let sql = format!("SELECT k, s, {function}({arguments}) AS state FROM t GROUP BY k, s");
    let made = || {
        let (plan, columns, driver) = fixture.aggregate(&sql);
        let LogicalPlan::Aggregate(node) = &plan else { panic!("{plan}") };
        (lower(&plan, node, of, &driver).unwrap(), columns)
    };
    let ((mut steady, columns), mut moving) = (made(), made().0);
    let (mut random, mut failures, mut files) = (Random(seed), [0, 0], Files::default());
    let mut now = 0;
    for epoch in 1..=60 {
        let mut new = made().0;
        match random.below(5) {
            0 => go_on(&moving, &mut new),
            1 | 2 => {
                files.take(&steady.save_changed().unwrap(), random.below(8) == 0);
                files.go_on(&mut new);
                assert_eq!(steady.state_rows(), new.state_rows(), "{arguments}, seed {seed}, epoch {epoch}");
            }
            _ => new = moving,
        }
        moving = new;
        // Some steps have the same time as the one before, and some a much later one.
        now += [0, 1, 1, 1, 1, 2, 4][random.below(7) as usize] * 1_000_000;
        let mut delta = Delta::default();
        if random.below(4) > 0 {
            let count = random.below(5) as usize;
            let mut chunk = Chunk::insert(rows(&mut random, count).project(&columns).unwrap());
            let weighted = random.below(3) == 0;
            chunk.weights = weighted.then(|| (0..count).map(|row| [1, 2, 0][row % 3]).collect());
            delta.push(chunk);
        }
        let closes = if random.below(3) == 0 { Closes::All } else { Closes::Filled };
        let cut = Cut { closes, ..Cut::new(Epoch(epoch), Timestamp(now)) };
        let output = step_alike([&mut steady, &mut moving], &cut, &delta);
        output.failures.iter().for_each(|failure| failures[usize::from(failure.weight < 0)] += 1);
    }
    let keeps_times = steady.timeouts.timeout().is_some() && steady.index.len() > steady.overdue.len();
    assert_eq!(steady.timeouts.wake_at().is_some(), keeps_times);
    failures
}

#[test]
fn another_one_goes_on_with_the_keys_and_their_states() {
    let timeout = "INTERVAL '3 seconds'";
    for all_keys in ["false", "true"] {
        for timeout in ["NULL", timeout] {
            for of in [Rows::Stay, Rows::OfBatch] {
                let arguments = format!("v, {all_keys}, {timeout}");
                for function in ["fold", "counted"] {
                    let counts: Vec<[usize; 2]> =
                        first_seeds(3, 0..6).map(|seed| run(function, &arguments, of, seed)).collect();
                    assert!(counts.iter().any(|[failed, mended]| *failed > 0 && *mended > 0), "{counts:?}");
                }
            }
        }
    }
}

/// Steps an operator at a second, with rows of columns `k` and `v`. Returns the rows and the failures of the output.
fn step_at(
    operator: &mut UpdateState,
    columns: &[usize],
    second: i64,
    given: &[(i64, i64)],
) -> (Vec<String>, Vec<String>) {
    let mut input = Delta::default();
    if !given.is_empty() {
        for chunk in delta(given, 1).chunks {
            input.push(Chunk { rows: chunk.rows.project(columns).unwrap(), ..chunk });
        }
    }
    let now = Timestamp(second * 1_000_000);
    let cut = Cut { closes: Closes::Filled, ..Cut::new(Epoch(second as u64), now) };
    let output = operator.step(&cut, &[&input]).unwrap();
    let failures = output.failures.iter().map(|of| format!("{:+} {} {}", of.weight, of.message, of.row));
    (sorted(&output.rows), failures.collect())
}

/// Two keys, of which one fails in its last call until it has another row.
fn last_calls(of: Rows, expected: &[(&[&str], &[&str])]) {
    let fixture = with_functions();
    let sql = "SELECT k, counted(v, false, INTERVAL '3 seconds') AS state FROM t GROUP BY k";
    let (plan, columns, driver) = fixture.aggregate(sql);
    let LogicalPlan::Aggregate(node) = &plan else { panic!("{plan}") };
    let mut operator = lower(&plan, node, of, &driver).unwrap();
    assert!(operator.describe().detail.contains(", also at the time-out, mapped values (n)"));
    let steps: [(i64, &[(i64, i64)]); 5] =
        [(1, &[(1, 4), (2, 6)]), (4, &[]), (5, &[]), (6, &[(2, 1)]), (9, &[])];
    let keys = [2, 1, 1, 1, 0];
    let wakes = [Some(4), None, None, Some(9), None];
    for (at, (second, given)) in steps.into_iter().enumerate() {
        let (rows, failures) = step_at(&mut operator, &columns, second, given);
        assert_eq!(rows, expected[at].0, "{of:?}, second {second}");
        assert_eq!(failures, expected[at].1, "{of:?}, second {second}");
        let wake = wakes[at].map(|second: i64| Timestamp(second * 1_000_000));
        assert_eq!((operator.state_rows(), operator.wake_at()), (keys[at], wake), "{of:?}, second {second}");
    }
}

#[test]
fn a_key_is_dropped_after_its_last_call_at_the_timeout() {
    let (fails, mended) = ("+1 the last sum is 6 (2)", "-1 the last sum is 6 (2)");
    last_calls(
        Rows::Stay,
        &[
            (&["+1 (1, {state: 4, n: 1})", "+1 (2, {state: 6, n: 1})"], &[]),
            (&["-1 (1, {state: 4, n: 1})"], &[fails]),
            (&[], &[mended, fails]),
            (&["+1 (2, {state: 7, n: 1})", "-1 (2, {state: 6, n: 1})"], &[mended]),
            (&["-1 (2, {state: 7, n: 1})"], &[]),
        ],
    );
}

#[test]
fn the_last_call_is_in_the_output_of_its_batch() {
    let (fails, mended) = ("+1 the last sum is 6 (2)", "-1 the last sum is 6 (2)");
    last_calls(
        Rows::OfBatch,
        &[
            (&["+1 (1, {state: 4, n: 1})", "+1 (2, {state: 6, n: 1})"], &[]),
            (&["+1 (1, {state: 4, n: 0})", "-1 (1, {state: 4, n: 1})", "-1 (2, {state: 6, n: 1})"], &[fails]),
            (&["-1 (1, {state: 4, n: 0})"], &[fails, mended]),
            (&["+1 (2, {state: 7, n: 1})"], &[mended]),
            (&["+1 (2, {state: 7, n: 0})", "-1 (2, {state: 7, n: 1})"], &[]),
        ],
    );
}
