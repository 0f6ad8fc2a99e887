//! An aggregate that a user made of functions, as PostgreSQL's CREATE AGGREGATE does.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature};
use datafusion::scalar::ScalarValue;

mod collected;
mod combined;
pub(crate) mod framed;
mod make;
mod moving;
mod single;

use super::accepts::{accepted, list};
use super::body::Body;
use super::fold::Fold;
use super::function::Parameter;
use collected::Collected;
use combined::Combined;
use moving::Moving;
use single::Single;

/// CREATE AGGREGATE, as it was read.
#[derive(Clone, Debug)]
pub struct AggregateDeclaration {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// What it is made of.
    pub parts: AggregateParts,
}

/// The functions of an aggregate, by their names, and its state.
#[derive(Clone, Debug)]
pub struct AggregateParts {
    /// SFUNC: the next state from the state and a row.
    pub step: String,
    /// STYPE.
    pub state: DataType,
    /// INITCOND, as text; NULL without it.
    pub initial: Option<String>,
    /// FINALFUNC: the result from the state, which is the result itself without it.
    pub finish: Option<String>,
    /// COMBINEFUNC: one state from two. With it the order of rows doesn't matter, by the user's word.
    pub combine: Option<String>,
    /// What runs over frames and windows that move.
    pub moving: Option<MovingParts>,
}

/// The functions of an aggregate that takes rows back, in the order in which they came.
#[derive(Clone, Debug)]
pub struct MovingParts {
    /// MSFUNC: the next state from the state and a row.
    pub step: String,
    /// MINVFUNC: the state before a row from the state and the row; NULL where it can't tell.
    pub inverse: String,
    /// MSTYPE.
    pub state: DataType,
    /// MINITCOND, as text; NULL without it.
    pub initial: Option<String>,
    /// MFINALFUNC: the result from the state, which is the result itself without it.
    pub finish: Option<String>,
}

/// An aggregate of a user's own.
#[derive(Debug)]
pub struct UserAggregate {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// What it gives.
    pub returns: DataType,
    reads: Vec<String>,
    machine: Machine,
    moving: Option<MovingMachine>,
    signature: Signature,
    /// What tells it from another of its name.
    parts: String,
}

/// What accumulators run.
#[derive(Clone, Debug)]
struct Machine {
    inputs: Vec<DataType>,
    state: DataType,
    initial: ScalarValue,
    step: Fold,
    combine: Option<Fold>,
    finish: Option<Finish>,
}

/// What accumulators run that take rows back.
#[derive(Clone, Debug)]
struct MovingMachine {
    machine: Machine,
    inverse: Fold,
}

/// The result from a state.
#[derive(Clone, Debug)]
struct Finish {
    body: Body,
}

impl Machine {
    /// The results of some states.
    fn results(&self, states: arrow::array::ArrayRef) -> PlanResult<arrow::array::ArrayRef> {
        let Some(finish) = &self.finish else { return Ok(states) };
        let count = states.len();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(finish.body.schema.clone(), vec![states], &options)?;
        finish.body.physical.evaluate(&rows)?.into_array(count)
    }
}

impl UserAggregate {
    /// `a(BIGINT)`
    pub fn heading(&self) -> String {
        format!("{}{}", self.name, list(&self.parameters))
    }

    /// What it reads: functions.
    pub fn reads(&self) -> &[String] {
        &self.reads
    }

    /// The accumulator of a call that orders its rows so.
    fn groups(&self, arguments: &AccumulatorArgs<'_>) -> PlanResult<Box<dyn GroupsAccumulator + Sync>> {
        let ordered = !arguments.order_bys.is_empty() || arguments.is_distinct;
        Ok(match &self.machine.combine {
            Some(_) if !ordered => Box::new(Combined::new(self.machine.clone())?),
            _ => {
                let options = arguments.order_bys.iter().map(|order| order.options).collect();
                let types = arguments.order_bys.iter().map(|order| order.expr.data_type(arguments.schema));
                let types = types.collect::<PlanResult<Vec<_>>>()?;
                Box::new(Collected::new(self.machine.clone(), types, options, arguments.is_distinct))
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
        let fields = collected::fields(&self.machine.inputs, keys);
        Ok(vec![Arc::new(Field::new(name("rows"), collected::list_type(&fields), true))])
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> PlanResult<Box<dyn Accumulator>> {
        let mut types = self.machine.inputs.clone();
        for order in arguments.order_bys {
            types.push(order.expr.data_type(arguments.schema)?);
        }
        Ok(Box::new(Single::new(self.groups(&arguments)?, &types)?))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> PlanResult<Box<dyn Accumulator>> {
        match &self.moving {
            Some(moving) if arguments.order_bys.is_empty() && !arguments.is_distinct => {
                Ok(Box::new(Moving::taking_back(moving.clone())?))
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

    // Rows are sorted here; what to sort them by comes with them.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::SoftRequirement
    }
}
