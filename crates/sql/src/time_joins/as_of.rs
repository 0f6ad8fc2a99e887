//! Plans ASOF JOIN as a union and OVER.
//!
//! The rows of both sides are sorted by time within each key. The nearest row for a row of the left is the
//! last row of the right side up to it:
//!
//! ```sql
//! last_value(CASE WHEN side is right THEN (its columns) END) IGNORE NULLS
//!     OVER (PARTITION BY key ORDER BY time, side ROWS UNBOUNDED PRECEDING)
//! ```
//!
//! For `<=` and `<` the order is reversed. Rows at the same time are sorted by their side, so they match for
//! `>=` and `<=` but not for `>` and `<`. Rows of the right at the same time are sorted by all their columns:
//! the last one is taken. A NULL time sorts first, before any row that could match it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result as PlanResult;
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::functions_window::nth_value::last_value_udwf;
use datafusion::logical_expr::expr::{FieldMetadata, NullTreatment, WindowFunction};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast, lit, when,
};

use super::conditions::Conditions;
use crate::error::Error;
use crate::rules::{missing, orderable};

/// Names of columns that no query has.
const TIME: &str = "!time";
const SIDE: &str = "!side";
const NEAREST: &str = "!nearest";

/// The compared expressions of both sides, in one type.
struct Compared {
    keys: Vec<(Expr, Expr)>,
    time: (Expr, Expr),
    /// True if the nearest row is an earlier one.
    backward: bool,
    /// The number of each side. Among rows at the same time, the lower number comes first.
    sides: [Expr; 2],
}

/// Plans the join: the columns of the left side, then those of the right.
pub(super) fn plan(
    left: LogicalPlan,
    right: LogicalPlan,
    keeps_left: bool,
    conditions: Conditions,
) -> PlanResult<LogicalPlan> {
    let compared = Compared::new(conditions, &left, &right)?;
    let (left_schema, right_schema) = (Arc::clone(left.schema()), Arc::clone(right.schema()));
    let both = together(left, right, keeps_left, &compared)?;
    let nearest = nearest(&compared, &right_schema, &both)?.alias(NEAREST);
    let found = Expr::Column(Column::from_name(NEAREST));
    let of_left = Expr::Column(Column::from_name(SIDE)).eq(compared.sides[0].clone());
    let wanted = match keeps_left {
        true => of_left,
        false => of_left.and(found.clone().is_not_null()),
    };
    let mut items = Vec::with_capacity(left_schema.fields().len() + right_schema.fields().len());
    for at in 0..left_schema.fields().len() {
        items.push(named(internal(&left_schema, at), &left_schema, at));
    }
    for at in 0..right_schema.fields().len() {
        items.push(named(get_field(found.clone(), place(at)), &right_schema, at));
    }
    LogicalPlanBuilder::from(both).window([nearest])?.filter(wanted)?.project(items)?.build()
}

impl Compared {
    fn new(mut conditions: Conditions, left: &LogicalPlan, right: &LogicalPlan) -> PlanResult<Compared> {
        let (mine, op, theirs) = conditions.compared()?;
        let time = alike((mine, theirs), left, right)?;
        let keys = conditions.keys.into_iter().map(|pair| alike(pair, left, right));
        let keys = keys.collect::<PlanResult<Vec<_>>>()?;
        let meets = matches!(op, Operator::GtEq | Operator::LtEq);
        let sides = if meets { [lit(1_i8), lit(0_i8)] } else { [lit(0_i8), lit(1_i8)] };
        Ok(Compared { keys, time, backward: matches!(op, Operator::Gt | Operator::GtEq), sides })
    }
}

/// Casts two expressions to the type in which they are compared.
fn alike((mine, theirs): (Expr, Expr), left: &LogicalPlan, right: &LogicalPlan) -> PlanResult<(Expr, Expr)> {
    let (a, b) = (mine.get_type(left.schema())?, theirs.get_type(right.schema())?);
    let Some(compared) = comparison_coercion(&a, &b) else {
        return Err(incomparable(&mine, &a, &theirs, &b).into());
    };
    let of = |expr: Expr, data_type: DataType| match data_type == compared {
        true => expr,
        false => cast(expr, compared.clone()),
    };
    Ok((of(mine, a), of(theirs, b)))
}

fn incomparable(mine: &Expr, a: &DataType, theirs: &Expr, b: &DataType) -> Error {
    let (a, b) = (millstream_delta::sql_type(a), millstream_delta::sql_type(b));
    Error::invalid(format!("ASOF JOIN: {mine} is {a} and {theirs} is {b}, which can't be compared"))
        .hint("Cast one of them.")
}

/// Combines the rows of both sides: the compared values, the side, and the columns of both. Leaves out rows
/// that can't match, except for rows of the left that are kept without a match.
fn together(
    left: LogicalPlan,
    right: LogicalPlan,
    keeps_left: bool,
    compared: &Compared,
) -> PlanResult<LogicalPlan> {
    let (left_schema, right_schema) = (Arc::clone(left.schema()), Arc::clone(right.schema()));
    let key = |at: usize| format!("!key_{at}");
    let mut items = [Vec::new(), Vec::new()];
    for (at, (mine, theirs)) in compared.keys.iter().enumerate() {
        items[0].push(mine.clone().alias(key(at)));
        items[1].push(theirs.clone().alias(key(at)));
    }
    items[0].push(compared.time.0.clone().alias(TIME));
    items[1].push(compared.time.1.clone().alias(TIME));
    for (items, side) in items.iter_mut().zip(&compared.sides) {
        items.push(side.clone().alias(SIDE));
    }
    for (schema, own) in [(&left_schema, 0), (&right_schema, 1)] {
        for at in 0..schema.fields().len() {
            let name = flat_name(schema, at);
            items[own].push(column(schema, at).alias(&name));
            items[1 - own].push(lit(ScalarValue::try_from(schema.field(at).data_type())?).alias(&name));
        }
    }
    let [of_left, of_right] = items;
    let known = |time: &Expr, keys: Vec<&Expr>| {
        let is_known = |known: Expr, key: &Expr| known.and(key.clone().is_not_null());
        keys.into_iter().fold(time.clone().is_not_null(), is_known)
    };
    let mine = compared.keys.iter().map(|(mine, _)| mine).collect();
    let theirs = compared.keys.iter().map(|(_, theirs)| theirs).collect();
    let right = LogicalPlanBuilder::from(right).filter(known(&compared.time.1, theirs))?;
    let mut left = LogicalPlanBuilder::from(left);
    if !keeps_left {
        left = left.filter(known(&compared.time.0, mine))?;
    }
    left.project(of_left)?.union(right.project(of_right)?.build()?)?.build()
}

/// Builds the nearest row of the right side as a struct.
fn nearest(compared: &Compared, right: &DFSchema, both: &LogicalPlan) -> PlanResult<Expr> {
    let mut fields: Vec<Expr> =
        (0..right.fields().len()).flat_map(|at| [lit(place(at)), internal(right, at)]).collect();
    if fields.is_empty() {
        fields.extend([lit(TIME), Expr::Column(Column::from_name(TIME))]);
    }
    let of_right = Expr::Column(Column::from_name(SIDE)).eq(compared.sides[1].clone());
    let row = when(of_right, named_struct(fields)).end()?;
    let time = Expr::Column(Column::from_name(TIME)).sort(compared.backward, true);
    let mut order = vec![time, Expr::Column(Column::from_name(SIDE)).sort(true, true)];
    let own = (0..right.fields().len()).filter(|at| orderable(right.field(*at).data_type()));
    order.extend(own.map(|at| internal(right, at).sort(true, false)));
    // Completes the order here to keep the name: a rule that completes it would make a long one.
    let keys: Vec<Expr> =
        (0..compared.keys.len()).map(|at| Expr::Column(Column::from_name(format!("!key_{at}")))).collect();
    let known: Vec<Expr> = keys.iter().chain(order.iter().map(|sort| &sort.expr)).cloned().collect();
    order.extend(missing(both, &known.iter().collect::<Vec<_>>()));
    let frame = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    );
    Expr::from(WindowFunction::new(WindowFunctionDefinition::WindowUDF(last_value_udwf()), vec![row]))
        .partition_by(keys)
        .order_by(order)
        .window_frame(frame)
        .null_treatment(NullTreatment::IgnoreNulls)
        .build()
}

/// Returns the name of a right column in the struct.
fn place(at: usize) -> String {
    format!("c{at}")
}

fn column(schema: &DFSchema, at: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(at)))
}

/// Returns the column of a side among those of both.
fn internal(schema: &DFSchema, at: usize) -> Expr {
    Expr::Column(Column::from_name(flat_name(schema, at)))
}

fn flat_name(schema: &DFSchema, at: usize) -> String {
    Column::from(schema.qualified_field(at)).flat_name()
}

/// Gives an expression the name and metadata of a side's column.
fn named(expr: Expr, schema: &DFSchema, at: usize) -> Expr {
    let (qualifier, field) = schema.qualified_field(at);
    expr.alias_qualified_with_metadata(qualifier.cloned(), field.name(), metadata(field))
}

fn metadata(field: &Field) -> Option<FieldMetadata> {
    (!field.metadata().is_empty()).then(|| FieldMetadata::from(field))
}
