//! Generated columns: `t TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp_millis(ms)) STORED`, or `t AS expression`.
//!
//! The column keeps the expression's text ([`millstream_delta::generated_of`]). Its value follows from the other
//! columns of the same row, whoever writes the row. The expression is deterministic, so a replay computes the same.
//!
//! ```
//! use millstream_sql::{GeneratedColumns, Planner, TokenReader};
//! let mut reader = TokenReader::new("(ms BIGINT, t AS to_timestamp_millis(ms), WATERMARK FOR t AS t)").unwrap();
//! let columns = Planner::new().columns(&mut reader).unwrap();
//! assert_eq!(columns.watermark.unwrap().column, 1);
//! assert!(GeneratedColumns::of(&Planner::new(), &columns.schema).unwrap().is_some());
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Volatility, cast};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::Statement;
use millstream_delta::{declared_type, exact_sql_type, generated_of, sql_type, sql_type_of, with_generated};

use crate::error::{Error, Result};
use crate::functions::read_text::ReadText;
use crate::planner::{Planner, Raw};
use crate::reader::{TokenReader, is_word};
use crate::relation::OneRelation;
use crate::routines::{has_queries, single_expression, volatility};
use crate::tree_rewrite::TreeRewrite;

/// The relation of the columns that an expression may name. Users can't write this name.
const ROW: &str = "columns of the row";

/// The generated columns of a table or source, ready to be computed.
#[derive(Debug)]
pub struct GeneratedColumns {
    exprs: GeneratedExprs,
    /// One for each of the expressions.
    physical: Vec<Arc<dyn PhysicalExpr>>,
}

/// The expressions of the generated columns of a table or source, to be planned as parts of statements.
#[derive(Debug)]
pub(crate) struct GeneratedExprs {
    columns: Vec<GeneratedColumn>,
    /// All columns.
    schema: SchemaRef,
    /// The other columns, from which the generated ones are computed.
    inputs: SchemaRef,
    /// The numbers of the other columns among all.
    places: Vec<usize>,
}

#[derive(Debug)]
struct GeneratedColumn {
    place: usize,
    planned: Planned,
}

/// The expression of a generated column over the other columns of the row.
#[derive(Debug)]
struct Planned {
    /// Not analysed.
    logical: Expr,
    /// The other columns.
    input: LogicalPlan,
    data_type: DataType,
}

impl Planned {
    fn physical(&self, planner: &Planner) -> Result<Arc<dyn PhysicalExpr>> {
        planner.physical_expression(&self.logical, &self.input)
    }
}

/// A generated column as it was written, before all columns are known.
pub(crate) struct WrittenColumn {
    /// Name, and type unless it is left to the expression.
    pub(crate) field: Field,
    pub(crate) has_type: bool,
    /// The expression's position in the statement.
    pub(crate) place: Range<usize>,
}

impl WrittenColumn {
    /// Returns the column's field, with its expression.
    /// `generated` are the names of all generated columns.
    pub(crate) fn field(
        &self,
        planner: &Planner,
        statement: &str,
        inputs: &Schema,
        generated: &[String],
    ) -> Result<Field> {
        let (name, text) = (self.field.name(), &statement[self.place.clone()]);
        let declared = self.has_type.then_some(&self.field);
        let planned = planned(planner, name, declared, text, inputs).and_then(|planned| {
            // An expression that can't be computed is refused here, not when rows are written.
            planned.physical(planner)?;
            Ok(planned)
        });
        let planned = planned.map_err(|error| {
            let missing = |other: &&String| error.message.ends_with(&format!("column \"{other}\" not found"));
            let error = match generated.iter().find(missing) {
                Some(other) => {
                    let message =
                        format!("generated column \"{name}\": column \"{other}\" is generated, too");
                    Error { message, ..error }
                        .hint(format!("Write the expression of \"{other}\" instead of its name."))
                }
                None => error,
            };
            match error.span {
                Some(_) => error.shift(self.place.start),
                None => error.at(self.place.clone()),
            }
        })?;
        let field = self.field.clone().with_data_type(planned.data_type);
        Ok(with_generated(field, text))
    }
}

/// Plans the expression of a column, cast to the column's type if that is declared.
fn planned(
    planner: &Planner,
    name: &str,
    declared: Option<&Field>,
    text: &str,
    inputs: &Schema,
) -> Result<Planned> {
    let (logical, input) = row_expression(planner, &format!("generated column \"{name}\""), text, inputs)?;
    let found = logical.get_type(input.schema())?;
    let (logical, data_type) = match declared {
        Some(field) => (typed(name, logical, &found, field)?, field.data_type().clone()),
        None => {
            // Analysis may find another type than the expression as it was written.
            let found = analysed_type(planner, &logical, &input).unwrap_or(found);
            let data_type = planner.data_type(&exact_sql_type(&found)).map(|field| field.data_type().clone());
            let data_type = data_type.unwrap_or_else(|_| found.clone());
            (cast(logical, data_type.clone()), data_type)
        }
    };
    if data_type.is_null() {
        return Err(Error::invalid(format!("generated column \"{name}\" has no type"))
            .hint("Declare it, as in: name BIGINT GENERATED ALWAYS AS (…)."));
    }
    Ok(Planned { logical, input, data_type })
}

fn analysed_type(planner: &Planner, logical: &Expr, input: &LogicalPlan) -> Option<DataType> {
    let plan = LogicalPlanBuilder::from(input.clone()).project([logical.clone()]).ok()?.build().ok()?;
    let plan = planner.analysed(plan).ok()?;
    Some(plan.schema().field(0).data_type().clone())
}

/// Plans an expression over the columns of a row, which may be NULL. `of` names the expression in messages.
pub(crate) fn row_expression(
    planner: &Planner,
    of: &str,
    text: &str,
    columns: &Schema,
) -> Result<(Expr, LogicalPlan)> {
    let nullable = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let row = OneRelation { name: ROW, schema };
    let not_of_the_row = || {
        Error::invalid(format!("{of} is not an expression over the columns of its row")).hint(
            "It can't contain a subquery, an aggregate, OVER, a function that returns rows, or a parameter.",
        )
    };
    if TokenReader::new(text)?.rest().iter().any(|lexeme| is_word(&lexeme.token.token, "SELECT")) {
        return Err(not_of_the_row());
    }
    let prefix = "SELECT (";
    let query = format!("{prefix}{text}) FROM \"{ROW}\" AS \"row\"");
    let planned = row_plan(planner, &query, &row).map_err(|error| {
        let span = error.span_behind(prefix.len(), text.len());
        Error { message: format!("{of}: {}", error.message), span, ..error }
    })?;
    let (logical, input) = single_expression(planned)
        .filter(|(expr, _)| !has_queries(expr) && !has_parameters(expr))
        .ok_or_else(not_of_the_row)?;
    if volatility(&logical) != Volatility::Immutable {
        return Err(Error::invalid(format!("{of} would have another value each time it is computed"))
            .hint("Use functions that depend on their arguments alone."));
    }
    Ok((logical, input))
}

/// Returns a plan of a row without columns that expressions use.
pub(crate) fn empty_row(planner: &Planner) -> Result<LogicalPlan> {
    let schema = Arc::new(Schema::new(vec![Field::new("none", DataType::Boolean, true)]));
    let query = format!("SELECT 1 FROM \"{ROW}\" AS \"row\"");
    let planned = single_expression(row_plan(planner, &query, &OneRelation { name: ROW, schema })?);
    planned.map(|(_, input)| input).ok_or_else(|| Error::bug("a query over one relation has another plan"))
}

fn row_plan(planner: &Planner, query: &str, row: &OneRelation) -> Result<LogicalPlan> {
    let reader = TokenReader::new(query)?;
    let tree = planner.parser.parse_query(&reader)?;
    let Raw { plan, .. } = planner.translate(Statement::Query(tree), &[], row, query)?;
    Ok(plan)
}

fn has_parameters(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).unwrap_or(true)
}

/// Casts an expression to its column's type.
fn typed(name: &str, expr: Expr, found: &DataType, field: &Field) -> Result<Expr> {
    let wanted = field.data_type();
    let is_text = |data_type: &DataType| data_type.is_string();
    let alike = is_text(found) == is_text(wanted) || matches!(expr, Expr::Literal(..)) || found.is_null();
    let is_plain = declared_type(field).is_none();
    if !arrow::compute::can_cast_types(found, wanted) || (!alike && is_plain) {
        let (wanted, found) = (sql_type_of(field), sql_type(found));
        return Err(Error::invalid(format!(
            "generated column \"{name}\" is of type {wanted}, but its expression of type {found}"
        ))
        .hint(format!("Cast it: (…)::{wanted}.")));
    }
    // The type of a CASE may be another one after analysis.
    let expr = cast(expr, wanted.clone());
    Ok(ReadText::checked(field, expr.clone()).unwrap_or(expr))
}

impl GeneratedColumns {
    /// Returns the generated columns of a schema; `None` if it has none.
    pub fn of(planner: &Planner, schema: &SchemaRef) -> Result<Option<GeneratedColumns>> {
        let Some(exprs) = GeneratedExprs::of(planner, schema)? else { return Ok(None) };
        let physical = exprs.columns.iter().map(|column| column.planned.physical(planner));
        let physical = physical.collect::<Result<_>>()?;
        Ok(Some(GeneratedColumns { exprs, physical }))
    }

    /// Returns the columns that the generated ones are computed from, and all others that aren't generated.
    pub fn inputs(&self) -> &SchemaRef {
        &self.exprs.inputs
    }

    /// Returns the numbers of [`GeneratedColumns::inputs`] among all columns.
    pub fn places(&self) -> &[usize] {
        &self.exprs.places
    }

    /// Returns for each input whether a generated column is computed from it.
    pub fn used(&self) -> Vec<bool> {
        let mut used = vec![false; self.exprs.inputs.fields().len()];
        for column in &self.exprs.columns {
            for part in column.planned.logical.column_refs() {
                if let Ok(place) = self.exprs.inputs.index_of(part.name()) {
                    used[place] = true;
                }
            }
        }
        used
    }

    /// Adds the generated columns to rows of the inputs.
    pub fn add(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.exprs.schema.fields().len()];
        for (column, place) in rows.columns().iter().zip(&self.exprs.places) {
            columns[*place] = Some(Arc::clone(column));
        }
        let inputs =
            rows.clone().with_schema(self.inputs_of(rows)).map_err(|error| Error::bug(error.to_string()))?;
        for (column, physical) in self.exprs.columns.iter().zip(&self.physical) {
            let field = self.exprs.schema.field(column.place);
            let computed = physical.evaluate(&inputs).and_then(|value| value.into_array(rows.num_rows()));
            let computed = computed.map_err(|error| {
                let error = Error::from(error);
                Error {
                    message: format!("column \"{}\": {}", field.name(), error.message),
                    span: None,
                    ..error
                }
            })?;
            columns[column.place] = Some(computed);
        }
        let columns = columns.into_iter().collect::<Option<Vec<_>>>();
        let columns = columns.ok_or_else(|| Error::bug("rows have too few columns for generated ones"))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let fields =
            self.exprs.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::bug(error.to_string()))
    }

    /// Computes the generated columns of rows that have all columns, whatever they hold.
    pub fn recompute(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        self.add(&rows.project(&self.exprs.places).map_err(|error| Error::bug(error.to_string()))?)
    }

    /// Returns the schema of rows under which expressions are evaluated.
    fn inputs_of(&self, rows: &RecordBatch) -> SchemaRef {
        let fields = self.exprs.inputs.fields().iter().zip(rows.columns());
        let field = |(field, column): (&FieldRef, &ArrayRef)| {
            Field::new(field.name(), column.data_type().clone(), true).with_metadata(field.metadata().clone())
        };
        Arc::new(Schema::new(fields.map(field).collect::<Vec<_>>()))
    }
}

impl GeneratedExprs {
    /// Returns the expressions of a schema's generated columns; `None` if it has none.
    pub(crate) fn of(planner: &Planner, schema: &SchemaRef) -> Result<Option<GeneratedExprs>> {
        let is_generated = |place: &usize| generated_of(schema.field(*place)).is_some();
        let (generated, places): (Vec<_>, Vec<_>) = (0..schema.fields().len()).partition(is_generated);
        if generated.is_empty() {
            return Ok(None);
        }
        let inputs: SchemaRef =
            Arc::new(schema.project(&places).map_err(|error| Error::bug(error.to_string()))?);
        let column = |place: usize| {
            let field = schema.field(place);
            let text = generated_of(field).unwrap_or_default();
            let planned = planned(planner, field.name(), Some(field), text, &inputs)?;
            Ok(GeneratedColumn { place, planned })
        };
        let columns = generated.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Some(GeneratedExprs { columns, schema: Arc::clone(schema), inputs, places }))
    }

    /// Computes the generated columns among `count` columns of a plan, from `first` on, whose names are those of the
    /// table. Columns of the table that the plan lacks, hidden ones, are NULL.
    pub(crate) fn compute(
        &self,
        plan: LogicalPlan,
        first: usize,
        columns: &Schema,
    ) -> datafusion::error::Result<LogicalPlan> {
        let schema = Arc::clone(plan.schema());
        let mut items: Vec<Expr> = (0..schema.fields().len())
            .map(|at| Expr::Column(Column::from(schema.qualified_field(at))))
            .collect();
        for column in &self.columns {
            let Ok(place) = columns.index_of(self.schema.field(column.place).name()) else { continue };
            let logical = column.planned.logical.clone();
            let expr = over_plan(logical, &schema, first, columns, &self.inputs)?;
            let name = schema.field(first + place).name().clone();
            items[first + place] = expr.alias(name);
        }
        LogicalPlanBuilder::from(plan).project(items)?.build()
    }
}

/// Returns an expression over the columns of a row as one over a plan, which has the visible columns from number `first`
/// on. Columns that the plan lacks, hidden ones, are NULL.
pub(crate) fn over_plan(
    expr: Expr,
    plan: &DFSchema,
    first: usize,
    visible: &Schema,
    all: &Schema,
) -> datafusion::error::Result<Expr> {
    let over = expr.rewrite_up(|part| match &part {
        Expr::Column(Column { name, .. }) => Ok(Transformed::yes(match visible.index_of(name) {
            Ok(place) => Expr::Column(Column::from(plan.qualified_field(first + place))),
            Err(_) => {
                let missing = all.field_with_name(name)?;
                Expr::Literal(ScalarValue::try_from(missing.data_type())?, None)
            }
        })),
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(over.data)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn schema(sql: &str) -> Result<SchemaRef> {
        Planner::new().columns(&mut TokenReader::new(sql).unwrap()).map(|columns| columns.schema)
    }

    #[test]
    fn values_follow_from_the_other_columns() {
        let schema =
            schema("(s BIGINT AS a + b, a BIGINT, p BIGINT GENERATED ALWAYS AS (a * b) STORED, b BIGINT)")
                .unwrap();
        let generated = GeneratedColumns::of(&Planner::new(), &schema).unwrap().unwrap();
        assert_eq!((generated.places(), generated.used()), (&[1, 3][..], vec![true, true]));
        let column = |values: [Option<i64>; 2]| -> ArrayRef { Arc::new(Int64Array::from_iter(values)) };
        let rows = vec![column([Some(2), Some(3)]), column([Some(5), None])];
        let rows = generated.add(&RecordBatch::try_new(generated.inputs().clone(), rows).unwrap()).unwrap();
        let values = |place: usize| rows.column(place).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        assert_eq!(values(0), [Some(7), None]);
        assert_eq!(values(2), [Some(10), None]);
        assert_eq!(values(1), [Some(2), Some(3)]);
    }

    #[test]
    fn types_are_declared_or_found() {
        let of = |sql: &str| schema(sql).unwrap().field(1).clone();
        let millis = of("(ms BIGINT, t AS to_timestamp_millis(ms))");
        assert_eq!(sql_type_of(&millis), "TIMESTAMPTZ(3)");
        assert_eq!(generated_of(&millis), Some("to_timestamp_millis(ms)"));
        assert_eq!(sql_type_of(&of("(a INT, b SMALLINT AS (a))")), "SMALLINT");
        assert_eq!(*of("(a TEXT, b AS a || 'x')").data_type(), DataType::Utf8View);
        assert!(!of("(a INT, b INT GENERATED ALWAYS AS (a + 1) STORED NOT NULL)").is_nullable());
    }

    #[test]
    fn wrong_expressions_are_refused() {
        let fails = |sql: &str, expected: &str| {
            let error = schema(sql).unwrap_err();
            assert_eq!(error.render(sql).lines().take(3).collect::<Vec<_>>().join("\n"), expected, "{sql}");
        };
        fails(
            "(a INT, b INT AS c + 1)",
            "generated column \"b\": column \"c\" not found\nLINE 1: (a INT, b INT AS c + 1)\n                         ^",
        );
        fails(
            "(a INT, b INT AS a, c INT AS b)",
            "generated column \"c\": column \"b\" is generated, too\nLINE 1: (a INT, b INT AS a, c INT AS b)\n                                     ^",
        );
        let of_the_row = |expr: &str| {
            let sql = format!("(a INT, b AS {expr})");
            let message = schema(&sql).unwrap_err().message;
            assert_eq!(
                message, "generated column \"b\" is not an expression over the columns of its row",
                "{expr}"
            );
        };
        for expression in ["(SELECT 1)", "sum(a)", "rank() OVER (ORDER BY a)", "$1 + a", "unnest([a])"] {
            of_the_row(expression);
        }
        for volatile in ["now()", "random()"] {
            let message = schema(&format!("(a INT, b AS {volatile})")).unwrap_err().message;
            assert_eq!(message, "generated column \"b\" would have another value each time it is computed");
        }
        fails(
            "(a DATE, b BOOLEAN AS a)",
            "generated column \"b\" is of type BOOLEAN, but its expression of type DATE\nLINE 1: (a DATE, b BOOLEAN AS a)\n                              ^",
        );
    }
}
