//! The plan of `UPDATE_STATE(…)`: an aggregate that only a continuous query can compute.
//!
//! `UPDATE_STATE(TABLE s PARTITION BY k, value => v, fn => 'f')` is planned as `SELECT k,
//! "update_state(f)"(v, all_keys, timeout) AS state FROM s GROUP BY k`. The operator in `flow` recognizes the
//! aggregate by the alias [`UPDATE_STATE`], and takes the types of the array and of the state from its
//! state's fields. It calls f through `convert_to_state`, which maps the columns of arrays and old states to
//! the column of new states. Any other evaluation as an aggregate fails: the result depends on the batches in
//! which the rows arrived.
//!
//! If f returns mapped values beside the state, the aggregate returns both in one struct, and the query above
//! it has a column for each of its fields.

use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, Statement, TableFactor, TableWithJoins, Value,
    VisitorMut,
};
use millstream_delta::sql_type;

use super::{Routine, UserFunction};
use crate::ast_walk::walk_mut;
use crate::dialect::calls::call;
use crate::error::Error;
use crate::hidden_columns::{exclude, fold};
use crate::relation::Relations;

/// The alias by which the operator recognizes the aggregate.
pub const UPDATE_STATE: &str = "millstream.update_state";

/// The column of the state, and the field of the state beside mapped values.
const STATE: &str = "state";

/// The name of the table function.
const TABLE_FUNCTION: &[u8] = b"update_state";

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
    /// Creates a fold with a function from arrays and states to states, alone or with mapped values.
    pub(crate) fn new(function: Arc<UserFunction>) -> crate::Result<UpdateState> {
        let item = checked_item(&function)?;
        function.body.evaluable(&place(&function))?;
        Ok(UpdateState {
            name: aggregate_name(&function.name),
            item,
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
        let names = ["values", STATE, "timing_out"];
        let parameters = names.into_iter().zip(&self.function.parameters);
        Ok(parameters.map(|(name, of)| Arc::new(Field::new(name, of.data_type.clone(), true))).collect())
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

/// Checks that a function can be the fn of UPDATE_STATE. Returns the element of the arrays that it takes.
fn checked_item(function: &UserFunction) -> crate::Result<FieldRef> {
    let wrong = |found: String| {
        Error::invalid(format!("\"{}\" can't be the fn of UPDATE_STATE: {found}", function.heading())).hint(
            "Write f(values T[], state S) RETURNS S, or RETURNS STRUCT<state S, …> for mapped values. A third \
             parameter, timing_out BOOLEAN, asks for a call at the time-out.",
        )
    };
    let (values, state) = match function.parameters.as_slice() {
        [values, state] => (values, state),
        [values, state, last] if last.data_type == DataType::Boolean => (values, state),
        [_, _, last] => {
            let found = sql_type(&last.data_type);
            return Err(wrong(format!("its third parameter is {found}, BOOLEAN was expected")));
        }
        others => {
            let (count, plural) = (others.len(), if others.len() == 1 { "" } else { "s" });
            return Err(wrong(format!("it has {count} parameter{plural}, 2 or 3 were expected")));
        }
    };
    let DataType::List(item) = &values.data_type else {
        let found = sql_type(&values.data_type);
        return Err(wrong(format!("its first parameter is {found}, an array was expected")));
    };
    match mapped_fields(function) {
        Some(fields) => {
            let mut others = fields.iter().enumerate();
            let twice = others.find(|(at, field)| fields[..*at].iter().any(|f| f.name() == field.name()));
            if let Some((_, field)) = twice {
                return Err(wrong(format!("it returns two fields named \"{}\"", field.name())));
            }
        }
        None if state.data_type == function.returns => {}
        None => {
            let (found, state) = (sql_type(&function.returns), sql_type(&state.data_type));
            let expected = format!("{state} or STRUCT<state {state}, …>");
            return Err(wrong(format!("it returns {found}, {expected} was expected")));
        }
    }
    Ok(item.clone())
}

/// Returns the fields of a function's result if that consists of the state, the first field, and mapped values.
fn mapped_fields(function: &UserFunction) -> Option<&Fields> {
    let state = &function.parameters.get(1)?.data_type;
    let DataType::Struct(fields) = &function.returns else { return None };
    let is_first = fields.first().is_some_and(|first| first.name() == STATE && first.data_type() == state);
    (is_first && function.returns != *state).then_some(fields)
}

/// Returns the items and the function's name of a query that is the fold of UPDATE_STATE.
pub(crate) fn folding_query(query: &Query) -> Option<(&[SelectItem], &str)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let SelectItem::ExprWithAlias { expr: Expr::Function(function), .. } = select.projection.last()? else {
        return None;
    };
    let [part] = function.name.0.as_slice() else { return None };
    Some((select.projection.as_slice(), folding_function(&part.as_ident()?.value)?))
}

/// Names the mapped values of each UPDATE_STATE in a statement.
///
/// | written | planned as |
/// | --- | --- |
/// | `SELECT * FROM (SELECT k, "update_state(f)"(…) AS state …)` | `SELECT * EXCLUDE (state), get_field(state, 'state') AS state, get_field(state, 'n') AS n FROM (…)` |
pub(crate) fn name_mapped_values(
    statement: &mut Statement,
    text: &str,
    relations: &dyn Relations,
) -> crate::Result<()> {
    let mut words = text.as_bytes().windows(TABLE_FUNCTION.len());
    if !words.any(|word| word.eq_ignore_ascii_case(TABLE_FUNCTION)) {
        return Ok(());
    }
    match walk_mut(statement, &mut NameMappedValues { relations }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor.
struct NameMappedValues<'a> {
    relations: &'a dyn Relations,
}

impl VisitorMut for NameMappedValues<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match self.name_columns(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl NameMappedValues<'_> {
    fn name_columns(&self, select: &mut Select) -> crate::Result<()> {
        let [TableWithJoins { relation: TableFactor::Derived { subquery, .. }, joins }] =
            select.from.as_slice()
        else {
            return Ok(());
        };
        let ([SelectItem::Wildcard(options)], Some((items, name)), []) =
            (select.projection.as_slice(), folding_query(subquery), joins.as_slice())
        else {
            return Ok(());
        };
        let Some(Routine::Function(function)) = self.relations.routine_catalog().routine(name) else {
            return Ok(());
        };
        let Some(fields) = mapped_fields(&function) else { return Ok(()) };
        let keys: Vec<String> = items.iter().filter_map(column_name).collect();
        if let Some(field) = fields.iter().find(|field| keys.contains(field.name())) {
            return Err(Error::invalid(format!(
                "UPDATE_STATE: \"{}\" is both a column of PARTITION BY and a field that {name} returns",
                field.name()
            ))
            .hint("Give the field another name."));
        }
        let value = |field: &FieldRef| SelectItem::ExprWithAlias {
            expr: call(
                "get_field",
                vec![
                    Expr::Identifier(Ident::with_quote('"', STATE)),
                    Expr::value(Value::SingleQuotedString(field.name().clone())),
                ],
            ),
            alias: Ident::with_quote('"', field.name().clone()),
        };
        let keys = SelectItem::Wildcard(exclude(options.clone(), &[STATE.to_string()]));
        select.projection = std::iter::once(keys).chain(fields.iter().map(value)).collect();
        Ok(())
    }
}

/// Returns the name of the column that an item of a SELECT is.
fn column_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(fold(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(fold),
        _ => None,
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
