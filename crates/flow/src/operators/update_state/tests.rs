//! Tests keys and states with two operators, one of which is restarted now and then: their outputs must be
//! the same.

use std::sync::LazyLock;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, LogicalPlan, Signature,
    Volatility,
};
use millstream_delta::Epoch;

use super::*;
use crate::fixture::{Files, Fixture, Random, go_on, rows, step_alike};

static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| ["millstream.update_state".to_string()]);

/// Sums values. It fails for a key with a value of 7, and drops a key whose sum is a multiple of five.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fold {
    signature: Signature,
}

impl AggregateUDFImpl for Fold {
    fn name(&self) -> &str {
        "fold"
    }

    fn aliases(&self) -> &[String] {
        &*ALIASES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state_fields(&self, _arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let state = Field::new("state", DataType::Int64, true);
        Ok(vec![Arc::new(Field::new("values", values, true)), Arc::new(state)])
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
        Ok(Box::new(Call))
    }
}

fn not_called<T>() -> Result<T> {
    Err(DataFusionError::Internal("not called".into()))
}

struct Call;

impl GroupsAccumulator for Call {
    fn convert_to_state(&self, values: &[ArrayRef], _filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let old = values[1].as_primitive::<Int64Type>();
        let states = values[0].as_list::<i32>().iter().zip(old).map(|(values, old)| {
            let values = values.unwrap();
            let values = values.as_primitive::<Int64Type>();
            if values.iter().any(|value| value == Some(7)) {
                return Err(DataFusionError::Execution(format!("7 after {old:?}")));
            }
            let sum = values.iter().flatten().sum::<i64>() + old.unwrap_or(0);
            Ok(Some(sum).filter(|sum| sum % 5 != 0))
        });
        Ok(vec![Arc::new(states.collect::<Result<Int64Array>>()?)])
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
fn run(arguments: &str, of: Rows, seed: u64) -> [usize; 2] {
    let fixture = Fixture::new();
    let signature = Signature::any(3, Volatility::Immutable);
    fixture.context().register_udaf(AggregateUDF::from(Fold { signature }));
    let sql = format!("SELECT k, s, fold({arguments}) AS state FROM t GROUP BY k, s");
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
    let keeps_times = steady.timeouts.timeout().is_some() && !steady.index.is_empty();
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
                let counts: Vec<[usize; 2]> = (0..6).map(|seed| run(&arguments, of, seed)).collect();
                assert!(counts.iter().any(|[failed, mended]| *failed > 0 && *mended > 0), "{counts:?}");
            }
        }
    }
}
