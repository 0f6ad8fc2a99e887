//! The plan of `UPDATE_STATE(…)`: an aggregate that only a continuous query can compute.
//!
//! `UPDATE_STATE(TABLE s PARTITION BY k, value => v, fn => 'f')` is planned as `SELECT k,
//! "update_state(f)"(v, all_keys, timeout) AS state FROM s GROUP BY k`. The operator in `flow` recognizes the
//! aggregate by the alias [`UPDATE_STATE`], and takes the types of the array and of the state from its
//! state's fields. It calls f through `convert_to_state`, which maps the columns of arrays and old states to
//! the column of new states. Any other evaluation as an aggregate fails: the result depends on the batches in
//! which the rows arrived.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use millstream_delta::sql_type;

use super::UserFunction;
use crate::error::Error;

/// The alias by which the operator recognizes the aggregate.
pub const UPDATE_STATE: &str = "millstream.update_state";

static ALIASES: LazyLock<[String; 1]> = LazyLock::new(|| [UPDATE_STATE.to_string()]);

/// Returns the name of the aggregate that folds with the function `f`: `update_state(f)`.
pub(crate) fn aggregate_name(function: &str) -> String {
    format!("update_state({function})")
}

/// Returns the function in such a name.
pub(crate) fn folding_function(name: &str) -> Option<&str> {
    name.strip_prefix("update_state(")?.strip_suffix(')')
}

/// The aggregate.
#[derive(Debug)]
pub(crate) struct UpdateState {
    name: String,
    function: Arc<UserFunction>,
    item: FieldRef,
    signature: Signature,
}

impl UpdateState {
    /// Creates a fold with a function from arrays and states to states.
    pub(crate) fn new(function: Arc<UserFunction>) -> crate::Result<UpdateState> {
        let wrong = || {
            let returns = sql_type(&function.returns);
            Error::invalid(format!("\"{}\" can't be the fn of UPDATE_STATE", function.heading()))
                .hint(format!("It takes the array of a key's values and its state, and returns the state: f(T[], {returns}) RETURNS {returns}."))
        };
        let [values, state] = function.parameters.as_slice() else { return Err(wrong()) };
        let DataType::List(item) = &values.data_type else { return Err(wrong()) };
        if state.data_type != function.returns {
            return Err(wrong());
        }
        function.body.evaluable(&place(&function))?;
        Ok(UpdateState {
            name: aggregate_name(&function.name),
            item: item.clone(),
            signature: Signature::user_defined(Volatility::Immutable),
            function,
        })
    }
}

impl UpdateState {
    /// Returns the name of the folding function.
    pub(crate) fn function_name(&self) -> &str {
        &self.function.name
    }
}

impl PartialEq for UpdateState {
    fn eq(&self, other: &UpdateState) -> bool {
        self.function == other.function
    }
}

impl Eq for UpdateState {}

impl Hash for UpdateState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for UpdateState {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &*ALIASES
    }

    fn schema_name(&self, _params: &AggregateFunctionParams) -> Result<String> {
        Ok(self.name.clone())
    }

    fn display_name(&self, _params: &AggregateFunctionParams) -> Result<String> {
        Ok(self.name.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.function.returns.clone())
    }

    /// The arguments are the value, a flag to call all keys, and the timeout after which a key is dropped.
    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let value = super::argument_types::one(&self.function, self.item.data_type(), found)?;
        Ok(vec![value, DataType::Boolean, DataType::Interval(IntervalUnit::MonthDayNano)])
    }

    fn state_fields(&self, _arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = Field::new("values", DataType::List(self.item.clone()), true);
        Ok(vec![Arc::new(values), Arc::new(Field::new("state", self.function.returns.clone(), true))])
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Err(not_at_once())
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        _arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Call { function: self.function.clone() }))
    }
}

/// Names the function in errors.
fn place(function: &UserFunction) -> String {
    format!("the function \"{}\" of UPDATE_STATE", function.name)
}

fn not_at_once() -> datafusion::error::DataFusionError {
    Error::invalid(
        "UPDATE_STATE depends on the batches in which rows arrive, so a one-time query can't compute it",
    )
    .hint("CREATE MATERIALIZED VIEW v AS SELECT … FROM UPDATE_STATE(…), and SELECT from that.")
    .into()
}

/// Evaluates the function.
struct Call {
    function: Arc<UserFunction>,
}

impl GroupsAccumulator for Call {
    fn convert_to_state(&self, values: &[ArrayRef], _filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let body = &self.function.body;
        let rows = RecordBatch::try_new(body.schema.clone(), values.to_vec())?;
        let result = body.evaluable(&place(&self.function))?.evaluate(&rows)?;
        Ok(vec![result.into_array(rows.num_rows())?])
    }

    fn update_batch(
        &mut self,
        _values: &[ArrayRef],
        _groups: &[usize],
        _filter: Option<&BooleanArray>,
        _count: usize,
    ) -> Result<()> {
        Err(not_at_once())
    }

    fn evaluate(&mut self, _emit_to: EmitTo) -> Result<ArrayRef> {
        Err(not_at_once())
    }

    fn state(&mut self, _emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Err(not_at_once())
    }

    fn merge_batch(&mut self, _values: &[ArrayRef], _groups: &[usize], _count: usize) -> Result<()> {
        Err(not_at_once())
    }

    fn size(&self) -> usize {
        size_of::<Call>()
    }
}
