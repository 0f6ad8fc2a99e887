//! Builds an aggregate from the functions that its declaration names.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::logical_expr::{Signature, Volatility};
use datafusion::scalar::ScalarValue;
use millstream_delta::sql_type;

use super::super::Routine;
use super::super::body::{Body, Scope};
use super::super::fold::Fold;
use super::super::function::{Parameter, volatility};
use super::{AGGREGATE, AggregateDeclaration, Finish, Machine, MovingMachine, MovingParts, UserAggregate};
use crate::error::{Error, Result};
use crate::planner::Planner;
use crate::relation::Relations;

impl Planner {
    /// Builds an aggregate from existing functions.
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
        let inputs = parameters.iter().map(|parameter| parameter.data_type.clone()).collect();
        let mut maker = AggregateBuilder { planner: self, name: &name, relations, inputs, reads: Vec::new() };
        let plain = MachineParts {
            options: ["SFUNC", "INITCOND", "FINALFUNC"],
            step: &parts.step,
            state: &parts.state,
            initial: parts.initial.as_deref(),
            finish: parts.finish.as_deref(),
        };
        let (mut machine, returns) = maker.machine(&plain)?;
        if let Some(function) = &parts.combine {
            let both = [parts.state.clone(), parts.state.clone()];
            let (body, strict) = maker.part("COMBINEFUNC", function, &both, Some(&parts.state))?;
            machine.combine = Some(fold(&body, strict, true)?);
        }
        let moving = parts.moving.as_ref().map(|parts| maker.moving(parts, &returns)).transpose()?;
        let mut reads = maker.reads;
        reads.sort();
        reads.dedup();
        let written = format!("{parameters:?} {parts:?}");
        let signature = Signature::user_defined(Volatility::Immutable);
        Ok(UserAggregate { name, parameters, returns, reads, machine, moving, signature, parts: written })
    }
}

/// The declaration of a machine, and its option names for errors.
struct MachineParts<'a> {
    options: [&'static str; 3],
    step: &'a str,
    state: &'a DataType,
    initial: Option<&'a str>,
    finish: Option<&'a str>,
}

fn fold(body: &Body, strict: bool, first_is_state: bool) -> Result<Fold> {
    let physical = Arc::clone(body.evaluable(AGGREGATE)?);
    Ok(Fold { physical, schema: body.schema.clone(), strict, first_is_state })
}

/// Builds the parts of an aggregate.
struct AggregateBuilder<'a> {
    planner: &'a Planner,
    name: &'a str,
    relations: &'a dyn Relations,
    inputs: Vec<DataType>,
    /// The routines that the functions call.
    reads: Vec<String>,
}

impl AggregateBuilder<'_> {
    /// Compiles a machine, and returns the type of its results.
    fn machine(&mut self, parts: &MachineParts<'_>) -> Result<(Machine, DataType)> {
        let [step_option, initial_option, finish_option] = parts.options;
        let initial = self.initial(initial_option, parts.initial, parts.state)?;
        let mut taken = vec![parts.state.clone()];
        taken.extend(self.inputs.iter().cloned());
        let (step, strict) = self.part(step_option, parts.step, &taken, Some(parts.state))?;
        if strict && initial.is_null() && self.inputs[0] != *parts.state {
            let (input, state) = (sql_type(&self.inputs[0]), sql_type(parts.state));
            return Err(Error::invalid(format!(
                "\"{}\" is strict and there is no {initial_option}, so that the first argument would be the first state, \
                 but it is {input} and the state is {state}",
                parts.step
            ))
            .hint(format!("Give an {initial_option}, or let the function take NULL.")));
        }
        let step = fold(&step, strict, strict && initial.is_null())?;
        let mut finish = None;
        let mut returns = parts.state.clone();
        if let Some(function) = parts.finish {
            let (body, _) = self.part(finish_option, function, std::slice::from_ref(parts.state), None)?;
            returns = body.evaluable(AGGREGATE)?.data_type(&body.schema)?;
            finish = Some(Finish { body });
        }
        let (inputs, state) = (self.inputs.clone(), parts.state.clone());
        Ok((Machine { inputs, state, initial, step, combine: None, finish }, returns))
    }

    /// Compiles the functions with retraction. Their result type must be that of the aggregate.
    fn moving(&mut self, parts: &MovingParts, returns: &DataType) -> Result<MovingMachine> {
        let plain = MachineParts {
            options: ["MSFUNC", "MINITCOND", "MFINALFUNC"],
            step: &parts.step,
            state: &parts.state,
            initial: parts.initial.as_deref(),
            finish: parts.finish.as_deref(),
        };
        let (machine, found) = self.machine(&plain)?;
        if found != *returns {
            let (found, wanted) = (sql_type(&found), sql_type(returns));
            return Err(Error::invalid(format!(
                "\"{}\" returns {wanted}, but {found} when rows are retracted",
                self.name
            ))
            .hint("Without an MFINALFUNC the result is the state, of MSTYPE."));
        }
        let mut taken = vec![parts.state.clone()];
        taken.extend(self.inputs.iter().cloned());
        let (inverse, strict) = self.part("MINVFUNC", &parts.inverse, &taken, Some(&parts.state))?;
        if strict != machine.step.strict {
            let (one, other) = match strict {
                true => (&parts.inverse, &parts.step),
                false => (&parts.step, &parts.inverse),
            };
            return Err(Error::invalid(format!(
                "MSFUNC and MINVFUNC of \"{}\" must both be STRICT or neither: \"{one}\" is, \"{other}\" isn't",
                self.name
            )));
        }
        Ok(MovingMachine { machine, inverse: fold(&inverse, strict, false)? })
    }

    /// Plans a call of a function with arguments of these types. Also returns true if the function is strict.
    fn part(
        &mut self,
        option: &str,
        function: &str,
        takes: &[DataType],
        returns: Option<&DataType>,
    ) -> Result<(Body, bool)> {
        let strict = match self.relations.routine_catalog().routine(function) {
            Some(Routine::Function(function)) => function.strict,
            _ => false,
        };
        let parameters: Vec<Parameter> = takes.iter().map(|data_type| unnamed(data_type.clone())).collect();
        let marks: Vec<String> = (1..=takes.len()).map(|place| format!("${place}")).collect();
        let text = format!("SELECT \"{}\"({})", function.replace('"', "\"\""), marks.join(", "));
        let scope = Scope { routine: self.name, parameters: &parameters, relations: self.relations };
        let planned = self.planner.body(&text, &scope, returns, false).and_then(|body| {
            body.evaluable(AGGREGATE)?;
            Ok(body)
        });
        let body = planned.map_err(|error| {
            let message = format!("{option} of \"{}\": {}", self.name, error.message);
            Error { message, span: None, ..error }
        })?;
        if volatility(&body.expr) != Volatility::Immutable {
            let functions = format!("an aggregate of functions that aren't immutable, \"{}\"", self.name);
            return Err(Error::unsupported(functions));
        }
        self.reads.extend(body.reads.iter().cloned());
        Ok((body, strict))
    }

    /// Returns the initial state.
    fn initial(&self, option: &str, text: Option<&str>, state: &DataType) -> Result<ScalarValue> {
        let Some(text) = text else { return Ok(ScalarValue::try_from(state)?) };
        let scope =
            Scope { routine: self.name, parameters: &[unnamed(DataType::Int64)], relations: self.relations };
        let literal = format!("SELECT '{}'", text.replace('\'', "''"));
        let wrong = |error: Error| {
            let message =
                format!("{option} of \"{}\" is no {}: {}", self.name, sql_type(state), error.message);
            Error { message, span: None, ..error }
        };
        let body = self.planner.body(&literal, &scope, Some(state), false).map_err(wrong)?;
        let row = RecordBatch::try_new(body.schema.clone(), vec![ScalarValue::Int64(None).to_array()?])
            .map_err(|error| Error::bug(error.to_string()))?;
        let value = body.evaluable(AGGREGATE)?.evaluate(&row).and_then(|value| value.into_array(1));
        Ok(ScalarValue::try_from_array(&value.map_err(|error| wrong(error.into()))?, 0)?)
    }
}

fn unnamed(data_type: DataType) -> Parameter {
    Parameter { name: None, data_type, default: None }
}
