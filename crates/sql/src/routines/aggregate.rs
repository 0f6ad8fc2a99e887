//! User-defined aggregates built from functions, as in PostgreSQL's CREATE AGGREGATE.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature};
use datafusion::scalar::ScalarValue;

mod builder;
mod combinable_states;
pub(crate) mod frames;
mod ordered_rows;
mod single_group;
mod sliding_frame;

use super::argument_types::{accepted, list};
use super::body::Body;
use super::fold::Fold;
use super::function::Parameter;
use combinable_states::CombinableStates;
use ordered_rows::OrderedRows;
use single_group::SingleGroup;
use sliding_frame::SlidingFrame;

/// A parsed CREATE AGGREGATE.
#[derive(Clone, Debug)]
pub struct AggregateDeclaration {
    /// The name.
    pub name: String,
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The functions and the state.
    pub parts: AggregateParts,
}

/// The state of an aggregate, and its functions by name.
#[derive(Clone, Debug)]
pub struct AggregateParts {
    /// SFUNC: returns the next state from the state and a row.
    pub step: String,
    /// STYPE: the state's type.
    pub state: DataType,
    /// INITCOND as text; NULL without it.
    pub initial: Option<String>,
    /// FINALFUNC: returns the result from the state. Without it the state is the result.
    pub finish: Option<String>,
    /// COMBINEFUNC: returns one state from two. Declaring it promises that the order of rows doesn't matter.
    pub combine: Option<String>,
    /// The functions for moving frames and windows.
    pub moving: Option<MovingParts>,
}

/// The functions of an aggregate that retracts rows in the order in which they were added.
#[derive(Clone, Debug)]
pub struct MovingParts {
    /// MSFUNC: returns the next state from the state and a row.
    pub step: String,
    /// MINVFUNC: returns the state before a row from the state and the row; NULL if it can't.
    pub inverse: String,
    /// MSTYPE: the state's type.
    pub state: DataType,
    /// MINITCOND as text; NULL without it.
    pub initial: Option<String>,
    /// MFINALFUNC: returns the result from the state. Without it the state is the result.
    pub finish: Option<String>,
}

/// A user-defined aggregate.
#[derive(Debug)]
pub struct UserAggregate {
    /// The name.
    pub name: String,
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The type of the result.
    pub returns: DataType,
    reads: Vec<String>,
    machine: Machine,
    moving: Option<MovingMachine>,
    signature: Signature,
    /// A text that distinguishes it from other aggregates of its name.
    parts: String,
}

/// The compiled functions of an accumulator.
#[derive(Clone, Debug)]
struct Machine {
    inputs: Vec<DataType>,
    state: DataType,
    initial: ScalarValue,
    step: Fold,
    combine: Option<Fold>,
    finish: Option<Finish>,
}

/// The compiled functions of an accumulator with retraction.
#[derive(Clone, Debug)]
struct MovingMachine {
    machine: Machine,
    inverse: Fold,
}

/// The place of an aggregate's functions in errors.
const AGGREGATE: &str = "a function of an aggregate";

/// Computes the result from a state.
#[derive(Clone, Debug)]
struct Finish {
    body: Body,
}

impl Machine {
    /// Returns the results of states.
    fn results(&self, states: arrow::array::ArrayRef) -> PlanResult<arrow::array::ArrayRef> {
        let Some(finish) = &self.finish else { return Ok(states) };
        let count = states.len();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(finish.body.schema.clone(), vec![states], &options)?;
        finish.body.evaluable(AGGREGATE)?.evaluate(&rows)?.into_array(count)
    }
}

impl UserAggregate {
    /// Renders name and parameters: `a(BIGINT)`.
    pub fn heading(&self) -> String {
        format!("{}{}", self.name, list(&self.parameters))
    }

    /// Returns the functions that the aggregate calls.
    pub fn reads(&self) -> &[String] {
        &self.reads
    }

    /// Creates the accumulator for a call with its ORDER BY and DISTINCT.
    fn groups(&self, arguments: &AccumulatorArgs<'_>) -> PlanResult<Box<dyn GroupsAccumulator + Sync>> {
        let ordered = !arguments.order_bys.is_empty() || arguments.is_distinct;
        Ok(match &self.machine.combine {
            Some(_) if !ordered => Box::new(CombinableStates::new(self.machine.clone())?),
            _ => {
                let options = arguments.order_bys.iter().map(|order| order.options).collect();
                let types = arguments.order_bys.iter().map(|order| order.expr.data_type(arguments.schema));
                let types = types.collect::<PlanResult<Vec<_>>>()?;
                Box::new(OrderedRows::new(self.machine.clone(), types, options, arguments.is_distinct))
            }
        })
    }
}

impl PartialEq for UserAggregate {
    fn eq(&self, other: &UserAggregate) -> bool {
        self.name == other.name && self.parts == other.parts
    }
}

impl Eq for UserAggregate {}

impl Hash for UserAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for UserAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> PlanResult<DataType> {
        Ok(self.returns.clone())
    }

    fn coerce_types(&self, found: &[DataType]) -> PlanResult<Vec<DataType>> {
        Ok(accepted(&self.name, &self.parameters, found)?)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> PlanResult<Vec<FieldRef>> {
        let ordered = !arguments.ordering_fields.is_empty() || arguments.is_distinct;
        let name = |part: &str| format!("{}[{part}]", arguments.name);
        if self.machine.combine.is_some() && !ordered {
            return Ok(vec![
                Arc::new(Field::new(name("state"), self.machine.state.clone(), true)),
                Arc::new(Field::new(name("begun"), DataType::Boolean, true)),
            ]);
        }
        let keys = arguments.ordering_fields.iter().map(|field| field.data_type().clone());
        let fields = ordered_rows::fields(&self.machine.inputs, keys);
        Ok(vec![Arc::new(Field::new(name("rows"), ordered_rows::list_type(&fields), true))])
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> PlanResult<Box<dyn Accumulator>> {
        let mut types = self.machine.inputs.clone();
        for order in arguments.order_bys {
            types.push(order.expr.data_type(arguments.schema)?);
        }
        Ok(Box::new(SingleGroup::new(self.groups(&arguments)?, &types)?))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> PlanResult<Box<dyn Accumulator>> {
        match &self.moving {
            Some(moving) if arguments.order_bys.is_empty() && !arguments.is_distinct => {
                Ok(Box::new(SlidingFrame::taking_back(moving.clone())?))
            }
            _ => self.accumulator(arguments),
        }
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> PlanResult<Box<dyn GroupsAccumulator>> {
        Ok(self.groups(&arguments)?)
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        _beneficial: bool,
    ) -> PlanResult<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    // Rows are sorted here, by sort keys that are passed along.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::SoftRequirement
    }
}
