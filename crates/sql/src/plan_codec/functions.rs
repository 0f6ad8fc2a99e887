//! Stores functions by name. Functions that replace others are stored with their parts.

use std::fmt::Display;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::TimeUnit;
use datafusion::execution::{SessionState, SessionStateDefaults};
use datafusion::logical_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, WindowFunctionDefinition, WindowUDF,
};
use serde_json::{Value, json};

use super::CodecResult;
use super::reader::{PlanDecoder, flag, list, member, number, text};
use super::writer::PlanEncoder;
use crate::checks;
use crate::event_time;
use crate::functions::bits::aggregates;
use crate::functions::date_part::{date_part, date_part_of};
use crate::functions::either;
use crate::functions::frame_values::{self, FrameValue};
use crate::functions::interval_average;
use crate::functions::marks::enums::EnumFunction;
use crate::functions::read_text::ReadText;
use crate::functions::sliding::{sliding, sliding_of};
use crate::functions::{
    exact_moments, exact_sum, extreme, one_form, postgres, row_key, single_row, time_text,
};
use crate::routines::{Routine, UpdateState, UserAggregate, UserFunction, frames};
use crate::row_pattern::{self, Planned};
use crate::temporal_filter;
use crate::time_joins;

/// The average of intervals in stored plans: our average of floats has the name `avg`, too.
const INTERVAL_AVERAGE: &str = "avg(interval)";

/// Returns our functions that statements can't name.
fn own_scalars() -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![
        one_form::function(),
        single_row::function(),
        row_key::function(),
        Arc::new(time_text::function()),
        time_joins::looked_up(),
    ];
    all.extend(postgres::unnamed().map(Arc::new));
    all.push(Arc::new(checks::function()));
    all.extend(event_time::scalars());
    all
}

fn own_aggregates() -> Vec<Arc<AggregateUDF>> {
    let mut all = vec![exact_sum::sum(), exact_sum::average(), extreme::least(), extreme::greatest()];
    all.extend(exact_moments::all().iter().cloned());
    all.extend(aggregates::all().iter().cloned());
    all
}

/// Identifies a function among those of its name: the session's, ours, or DataFusion's that ours replaces.
fn source_of<F: PartialEq>(
    function: &Arc<F>,
    name: &str,
    registered: Option<&Arc<F>>,
    own: &[Arc<F>],
    default: &[Arc<F>],
) -> Option<Value> {
    let is_in = |all: &[Arc<F>]| all.iter().any(|other| other == function);
    match () {
        () if registered == Some(function) => Some(json!({"name": name})),
        () if is_in(own) => Some(json!({"own": name})),
        () if is_in(default) => Some(json!({"default": name})),
        () => None,
    }
}

fn named<F>(all: Vec<Arc<F>>, name: &str, name_of: impl Fn(&F) -> &str) -> CodecResult<Arc<F>> {
    let found = all.into_iter().find(|function| name_of(function) == name);
    found.ok_or_else(|| unknown(name))
}

fn unknown(name: impl Display) -> String {
    format!("the function {name} isn't there")
}

fn name_of<'v>(written: &'v Value, kind: &str) -> Option<&'v str> {
    written.get(kind).and_then(Value::as_str)
}

/// Adds the digits of the time that a function returns. Earlier versions had nanoseconds, and wrote no digits.
fn with_digits(mut function: Value, unit: TimeUnit) -> Value {
    let digits = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => return function,
    };
    function["digits"] = json!(digits);
    function
}

fn unit_of(function: &Value) -> TimeUnit {
    match function.get("digits").and_then(Value::as_u64) {
        Some(0) => TimeUnit::Second,
        Some(3) => TimeUnit::Millisecond,
        Some(6) => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

fn options(order: &[SortOptions]) -> Value {
    order.iter().map(|key| json!([key.descending, key.nulls_first])).collect()
}

fn read_options(of: Option<&Value>) -> CodecResult<Vec<SortOptions>> {
    list(of, |key| Ok(SortOptions { descending: flag(key.get(0))?, nulls_first: flag(key.get(1))? }))
}

impl PlanEncoder<'_> {
    pub(super) fn scalar_function(&mut self, function: &Arc<ScalarUDF>) -> CodecResult<Value> {
        let name = function.name();
        let inner = function.inner();
        if let Some(function) = inner.downcast_ref::<UserFunction>() {
            return Ok(json!({"routine": function.name}));
        }
        if let Some((written, zone, unit)) = temporal_filter::clock_parts(function) {
            return Ok(with_digits(json!({"epoch_time": written, "zone": zone}), unit));
        }
        if let Some((clock, unit)) = crate::batches::clock_in(function) {
            let place = self.clock(clock).ok_or_else(|| format!("the function {name}"))?;
            return Ok(with_digits(json!({"batch_time": place}), unit));
        }
        if let Some(read) = inner.downcast_ref::<ReadText>() {
            return Ok(read.to_json());
        }
        if let Some(function) = inner.downcast_ref::<EnumFunction>() {
            return Ok(function.to_json());
        }
        if let Some(inner) = date_part_of(function) {
            return Ok(json!({"date_part": self.scalar_function(inner)?}));
        }
        if postgres::formatting::is_formatting(function) {
            return Ok(json!({"formatting": name}));
        }
        if postgres::patterns::is_patterned(function) {
            return Ok(json!({"name": name}));
        }
        let registered = self.state.scalar_functions().get(name);
        let default = SessionStateDefaults::default_scalar_functions();
        source_of(function, name, registered, &own_scalars(), &default)
            .ok_or_else(|| format!("the function {name}"))
    }

    pub(super) fn aggregate_function(&mut self, function: &Arc<AggregateUDF>) -> CodecResult<Value> {
        let name = function.name();
        let inner = function.inner();
        if let Some(aggregate) = inner.downcast_ref::<UserAggregate>() {
            return Ok(json!({"routine": aggregate.name}));
        }
        if let Some(fold) = inner.downcast_ref::<UpdateState>() {
            return Ok(json!({"update_state": fold.function_name()}));
        }
        if let Some((inner, order)) = frames::parts(function) {
            return Ok(json!({"framed": self.aggregate_function(inner)?, "order": options(order)}));
        }
        if let Some((name, taken, order)) = frame_values::parts(function) {
            let taken = match taken {
                FrameValue::Nth(n) => json!(["nth", n]),
                FrameValue::Array => json!(["array"]),
                FrameValue::Text(between) => json!(["text", between]),
            };
            return Ok(json!({"in_frame": name, "taken": taken, "order": options(order)}));
        }
        if let Some(planned) = row_pattern::planned_in(function) {
            return Ok(json!({"match_rows": planned.to_json(self)?}));
        }
        if let Some(inner) = sliding_of(function) {
            return Ok(json!({"sliding": self.aggregate_function(inner)?}));
        }
        // MATCH_RECOGNIZE stores calls as they were before the rules, which run again when they are loaded.
        if either::of(function).is_some() {
            return Ok(json!({"written": name}));
        }
        let registered = self.state.aggregate_functions().get(name);
        if *function == interval_average::average() {
            return Ok(json!({"own": INTERVAL_AVERAGE}));
        }
        let default = SessionStateDefaults::default_aggregate_functions();
        source_of(function, name, registered, &own_aggregates(), &default)
            .ok_or_else(|| format!("the aggregate {name}"))
    }

    pub(super) fn window_definition(&mut self, function: &WindowFunctionDefinition) -> CodecResult<Value> {
        match function {
            WindowFunctionDefinition::AggregateUDF(function) => {
                Ok(json!({"aggregate": self.aggregate_function(function)?}))
            }
            WindowFunctionDefinition::WindowUDF(function) => {
                let name = function.name();
                let registered = self.state.window_functions().get(name);
                let default = SessionStateDefaults::default_window_functions();
                source_of(function, name, registered, &event_time::sessions(), &default)
                    .ok_or_else(|| format!("the window function {name}"))
            }
        }
    }

    pub(super) fn higher_order_function(&mut self, function: &Arc<HigherOrderUDF>) -> CodecResult<Value> {
        let name = function.name();
        match self.state.higher_order_functions().get(name) == Some(function) {
            true => Ok(json!(name)),
            false => Err(format!("the function {name}")),
        }
    }
}

impl PlanDecoder<'_> {
    pub(super) fn scalar_function(&mut self, written: &Value) -> CodecResult<Arc<ScalarUDF>> {
        if let Some(name) = name_of(written, "name") {
            let found = postgres::formatting::earlier(name);
            return found
                .or_else(|| self.state.scalar_functions().get(name).cloned())
                .ok_or_else(|| unknown(name));
        }
        if let Some(name) = name_of(written, "formatting") {
            return self.state.scalar_functions().get(name).cloned().ok_or_else(|| unknown(name));
        }
        if let Some(name) = name_of(written, "own") {
            return named(own_scalars(), name, ScalarUDF::name);
        }
        if let Some(name) = name_of(written, "default") {
            return named(SessionStateDefaults::default_scalar_functions(), name, ScalarUDF::name);
        }
        if let Some(name) = name_of(written, "routine") {
            return match self.relations.routine_catalog().routine(name) {
                Some(Routine::Function(function)) => Ok(Arc::new(ScalarUDF::new_from_shared_impl(function))),
                _ => Err(unknown(name)),
            };
        }
        if let Some(name) = name_of(written, "epoch_time") {
            return temporal_filter::clock_of_parts(name, text(written, "zone")?, unit_of(written))
                .ok_or_else(|| unknown(name));
        }
        if let Some(place) = written.get("batch_time") {
            return Ok(self.clock(number(Some(place))?)?.function(unit_of(written)));
        }
        if let Some(inner) = written.get("date_part") {
            return Ok(date_part(self.scalar_function(inner)?));
        }
        if let Some(function) = EnumFunction::from_json(written) {
            return Ok(Arc::new(function.into()));
        }
        let read = ReadText::from_json(written).ok_or_else(|| unknown(written))?;
        Ok(Arc::new(ScalarUDF::from(read)))
    }

    pub(super) fn aggregate_function(&mut self, written: &Value) -> CodecResult<Arc<AggregateUDF>> {
        if let Some(name) = name_of(written, "name") {
            return self.state.aggregate_functions().get(name).cloned().ok_or_else(|| unknown(name));
        }
        if let Some(name) = name_of(written, "written") {
            let registered = self.state.aggregate_functions().get(name);
            return registered.map(either::written_instead).ok_or_else(|| unknown(name));
        }
        if let Some(name) = name_of(written, "own") {
            return match name {
                INTERVAL_AVERAGE => Ok(interval_average::average()),
                name => named(own_aggregates(), name, AggregateUDF::name),
            };
        }
        if let Some(name) = name_of(written, "default") {
            return named(SessionStateDefaults::default_aggregate_functions(), name, AggregateUDF::name);
        }
        if let Some(name) = name_of(written, "routine") {
            return match self.relations.routine_catalog().routine(name) {
                Some(Routine::Aggregate(aggregate)) => {
                    Ok(Arc::new(AggregateUDF::new_from_shared_impl(aggregate)))
                }
                _ => Err(unknown(name)),
            };
        }
        if let Some(name) = name_of(written, "update_state") {
            let Some(Routine::Function(function)) = self.relations.routine_catalog().routine(name) else {
                return Err(unknown(name));
            };
            let fold = UpdateState::new(function).map_err(|error| error.message)?;
            return Ok(Arc::new(AggregateUDF::new_from_impl(fold)));
        }
        if let Some(inner) = written.get("framed") {
            let order = read_options(written.get("order"))?;
            return Ok(frames::framed(self.aggregate_function(inner)?, order));
        }
        if let Some(inner) = written.get("sliding") {
            return Ok(sliding(self.aggregate_function(inner)?));
        }
        if let Some(planned) = written.get("match_rows") {
            return Planned::read(planned, self).map(Arc::new);
        }
        let name = name_of(written, "in_frame").ok_or_else(|| unknown(written))?;
        let taken = read_taken(member(written, "taken")?).ok_or_else(|| unknown(written))?;
        Ok(frame_values::function(name, taken, read_options(written.get("order"))?))
    }

    pub(super) fn window_definition(&mut self, written: &Value) -> CodecResult<WindowFunctionDefinition> {
        if let Some(aggregate) = written.get("aggregate") {
            return self.aggregate_function(aggregate).map(WindowFunctionDefinition::AggregateUDF);
        }
        window(self.state, written).map(WindowFunctionDefinition::WindowUDF)
    }

    pub(super) fn higher_order_function(&mut self, name: &str) -> CodecResult<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned().ok_or_else(|| unknown(name))
    }
}

fn window(state: &SessionState, written: &Value) -> CodecResult<Arc<WindowUDF>> {
    if let Some(name) = name_of(written, "name") {
        return state.window_functions().get(name).cloned().ok_or_else(|| unknown(name));
    }
    if let Some(name) = name_of(written, "own") {
        return named(event_time::sessions().to_vec(), name, WindowUDF::name);
    }
    let name = name_of(written, "default").ok_or_else(|| unknown(written))?;
    named(SessionStateDefaults::default_window_functions(), name, WindowUDF::name)
}

fn read_taken(of: &Value) -> Option<FrameValue> {
    Some(match of.get(0)?.as_str()? {
        "nth" => FrameValue::Nth(of.get(1)?.as_i64()?),
        "array" => FrameValue::Array,
        "text" => FrameValue::Text(of.get(1)?.as_str()?.into()),
        _ => return None,
    })
}
