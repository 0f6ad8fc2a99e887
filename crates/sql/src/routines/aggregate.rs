//! An aggregate that a user made of functions, as PostgreSQL's CREATE AGGREGATE does.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use millstream_delta::sql_type;

mod collected;
mod combined;
mod single;

use super::Routine;
use super::accepts::{accepted, list};
use super::body::{Body, Scope};
use super::fold::Fold;
use super::function::{Parameter, volatility};
use crate::error::{Error, Result};
use crate::planner::Planner;
use crate::relation::Relations;
use collected::Collected;
use combined::Combined;
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

impl Planner {
    /// Makes an aggregate of functions that are there.
    pub fn aggregate(
        &self,
        declaration: AggregateDeclaration,
        relations: &dyn Relations,
    ) -> Result<UserAggregate> {
        let AggregateDeclaration { name, parameters, parts } = declaration;
        self.check_routine_name(&name)?;
        if parameters.is_empty() {
            return Err(Error::unsupported("an aggregate without arguments"));
        }
        let maker = Maker { planner: self, name: &name, relations };
        let inputs: Vec<DataType> = parameters.iter().map(|parameter| parameter.data_type.clone()).collect();
        let initial = maker.initial(parts.initial.as_deref(), &parts.state)?;
        let mut taken = vec![parts.state.clone()];
        taken.extend(inputs.iter().cloned());
        let (step, strict) = maker.part("SFUNC", &parts.step, &taken, Some(&parts.state))?;
        let mut reads = step.reads.clone();
        let mut steadiness = vec![volatility(&step.expr)];
        if strict && initial.is_null() && inputs[0] != parts.state {
            let (input, state) = (sql_type(&inputs[0]), sql_type(&parts.state));
            return Err(Error::invalid(format!(
                "\"{}\" is strict and there is no INITCOND, so that the first argument would be the first state, but it \
                 is {input} and the state is {state}",
                parts.step
            ))
            .hint("Give an INITCOND, or let the function take NULL."));
        }
        let step = fold(&step, strict, strict && initial.is_null());
        let mut combine = None;
        if let Some(function) = &parts.combine {
            let both = [parts.state.clone(), parts.state.clone()];
            let (body, strict) = maker.part("COMBINEFUNC", function, &both, Some(&parts.state))?;
            reads.extend(body.reads.iter().cloned());
            steadiness.push(volatility(&body.expr));
            combine = Some(fold(&body, strict, true));
        }
        let mut finish = None;
        let mut returns = parts.state.clone();
        if let Some(function) = &parts.finish {
            let (body, _) = maker.part("FINALFUNC", function, std::slice::from_ref(&parts.state), None)?;
            reads.extend(body.reads.iter().cloned());
            steadiness.push(volatility(&body.expr));
            returns = body.physical.data_type(&body.schema)?;
            finish = Some(Finish { body });
        }
        if steadiness.iter().any(|part| *part != Volatility::Immutable) {
            return Err(Error::unsupported(format!(
                "an aggregate of functions that aren't immutable, \"{name}\""
            )));
        }
        reads.sort();
        reads.dedup();
        let written = format!("{parameters:?} {parts:?}");
        let machine = Machine { inputs, state: parts.state, initial, step, combine, finish };
        let signature = Signature::user_defined(Volatility::Immutable);
        Ok(UserAggregate { name, parameters, returns, reads, machine, signature, parts: written })
    }
}

fn fold(body: &Body, strict: bool, first_is_state: bool) -> Fold {
    Fold { physical: body.physical.clone(), schema: body.schema.clone(), strict, first_is_state }
}

/// Makes the parts of an aggregate.
struct Maker<'a> {
    planner: &'a Planner,
    name: &'a str,
    relations: &'a dyn Relations,
}

impl Maker<'_> {
    /// A call of a function with arguments of some types, and whether it is NULL where one of these is.
    fn part(
        &self,
        option: &str,
        function: &str,
        takes: &[DataType],
        returns: Option<&DataType>,
    ) -> Result<(Body, bool)> {
        let strict = match self.relations.routine(function) {
            Some(Routine::Function(function)) => function.strict,
            _ => false,
        };
        let parameters: Vec<Parameter> = takes.iter().map(|data_type| unnamed(data_type.clone())).collect();
        let marks: Vec<String> = (1..=takes.len()).map(|place| format!("${place}")).collect();
        let text = format!("SELECT \"{}\"({})", function.replace('"', "\"\""), marks.join(", "));
        let scope = Scope { routine: self.name, parameters: &parameters, relations: self.relations };
        let body = self.planner.body(&text, &scope, returns, false).map_err(|error| {
            let message = format!("{option} of \"{}\": {}", self.name, error.message);
            Error { message, span: None, ..error }
        })?;
        Ok((body, strict))
    }

    /// The state of no rows.
    fn initial(&self, text: Option<&str>, state: &DataType) -> Result<ScalarValue> {
        let Some(text) = text else { return Ok(ScalarValue::try_from(state)?) };
        let scope =
            Scope { routine: self.name, parameters: &[unnamed(DataType::Int64)], relations: self.relations };
        let literal = format!("SELECT '{}'", text.replace('\'', "''"));
        let wrong = |error: Error| {
            let message =
                format!("INITCOND of \"{}\" is no {}: {}", self.name, sql_type(state), error.message);
            Error { message, span: None, ..error }
        };
        let body = self.planner.body(&literal, &scope, Some(state), false).map_err(wrong)?;
        let row = RecordBatch::try_new(body.schema.clone(), vec![ScalarValue::Int64(None).to_array()?])
            .map_err(|error| Error::bug(error.to_string()))?;
        let value = body.physical.evaluate(&row).and_then(|value| value.into_array(1));
        Ok(ScalarValue::try_from_array(&value.map_err(|error| wrong(error.into()))?, 0)?)
    }
}

fn unnamed(data_type: DataType) -> Parameter {
    Parameter { name: None, data_type }
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
