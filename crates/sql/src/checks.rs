//! CHECK constraints of tables: `CHECK (a > 0)`. A row for which the condition is false is refused, whoever writes it; one
//! for which it is NULL is not.
//!
//! The table's columns keep the conditions' texts ([`millstream_delta::checks_of`]). A statement's plan has a column that
//! passes through the function [`ENFORCE`]; rows that come without a statement pass through [`Checks::verify`].
//!
//! ```
//! use millstream_sql::{Checks, Planner, TokenReader};
//! let mut reader = TokenReader::new("(a INT CHECK (a > 0))").unwrap();
//! let columns = Planner::new().columns(&mut reader).unwrap();
//! assert!(Checks::of(&Planner::new(), &columns.schema, "t").unwrap().is_some());
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF, lit};
use datafusion::physical_expr::PhysicalExpr;
use millstream_delta::{checks_of, indexes_of, sql_type, with_check};

use crate::error::{Error, Result};
use crate::functions::scalar::Scalar;
use crate::generated_columns::{over_plan, row_expression};
use crate::planner::Planner;
use crate::reader::TokenReader;
use crate::relation::split_schema;
use crate::sqlstate;

/// The name of the function that fails for a row that violates a constraint.
const ENFORCE: &str = "enforce_check";

/// The separator of the names of constraints in an argument of the function.
const SEPARATOR: &str = "\u{1f}";

/// The most characters of a row that a message shows.
const SHOWN_MAX: usize = 200;

/// A constraint as it was written, before all columns are known.
pub(crate) struct WrittenCheck {
    /// Its name and the position of that, if it is written.
    pub(crate) name: Option<(String, Range<usize>)>,
    /// The number of the column at which it is written.
    pub(crate) place: Option<usize>,
    /// The condition's position in the statement.
    pub(crate) condition: Range<usize>,
}

/// Adds constraints to the columns that keep them.
pub(crate) fn add(
    planner: &Planner,
    statement: &str,
    written: &[WrittenCheck],
    fields: &mut [Field],
) -> Result<()> {
    let columns = Schema::new(fields.to_vec());
    let mut taken = constraint_names(fields);
    for check in written {
        let text = &statement[check.condition.clone()];
        let name = match &check.name {
            Some((name, at)) if taken.contains(name) => {
                return Err(
                    Error::invalid(format!("there is a constraint \"{name}\" already")).at(at.clone())
                );
            }
            Some((name, _)) => name.clone(),
            None => free_name(check.place, text, &columns, &taken)?,
        };
        computable(planner, &name, text, &columns).map_err(|error| match error.span {
            Some(_) => error.shift(check.condition.start),
            None => error.at(check.condition.clone()),
        })?;
        if let Some(field) = fields.get_mut(check.place.unwrap_or_default()) {
            *field = with_check(field.clone(), &name, text);
        }
        taken.push(name);
    }
    Ok(())
}

/// Returns the names of the constraints and indexes of some columns, as these keep them.
pub(crate) fn constraint_names(fields: &[Field]) -> Vec<String> {
    let names = |field: &Field| -> Vec<String> {
        let checks = checks_of(field).into_iter().chain(indexes_of(field));
        checks.map(|(name, _)| name.to_string()).collect()
    };
    fields.iter().flat_map(names).collect()
}

/// Fails if the condition of a constraint can't be computed for any row.
fn computable(planner: &Planner, name: &str, text: &str, columns: &Schema) -> Result<()> {
    let (expr, input) = condition(planner, name, text, columns)?;
    let nullable = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    let row = RecordBatch::try_new(schema, nulls).map_err(|error| Error::bug(error.to_string()))?;
    let computed = planner.physical_expression(&expr, &input).and_then(|check| Ok(check.evaluate(&row)?));
    computed.map(drop).map_err(|error| {
        let message = format!("constraint \"{}\": {}", name.trim_start_matches('.'), error.message);
        Error { message, span: None, ..error }
    })
}

/// Returns PostgreSQL's name for a constraint without one, after that of the table: `.a_check`, `.a_check1`. It has the
/// name of the column if the condition is over one.
fn free_name(place: Option<usize>, text: &str, columns: &Schema, taken: &[String]) -> Result<String> {
    let mut reader = TokenReader::new(text)?;
    let mut named: Vec<String> = place.map(|place| columns.field(place).name().clone()).into_iter().collect();
    while named.len() < 2 && place.is_none() && !reader.is_end() {
        match reader.identifier() {
            Ok(name) if columns.index_of(&name).is_ok() && !named.contains(&name) => named.push(name),
            Ok(_) => {}
            Err(_) => drop(reader.next()),
        }
    }
    let base = match named.as_slice() {
        [column] => format!(".{column}_check"),
        _ => ".check".to_string(),
    };
    let numbered = (1..).map(|number| format!("{base}{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).ok_or_else(|| Error::bug("names are never used up"))
}

/// Plans the condition of a constraint.
fn condition(planner: &Planner, name: &str, text: &str, columns: &Schema) -> Result<(Expr, LogicalPlan)> {
    let of = format!("constraint \"{}\"", name.trim_start_matches('.'));
    let (expr, input) = row_expression(planner, &of, text, columns)?;
    match expr.get_type(input.schema())? {
        DataType::Boolean | DataType::Null => Ok((expr, input)),
        other => Err(Error::invalid(format!(
            "{of} has a condition of type {}, but BOOLEAN was expected",
            sql_type(&other)
        ))),
    }
}

/// The constraints of a table, ready to be evaluated.
#[derive(Debug)]
pub struct Checks {
    table: String,
    columns: SchemaRef,
    checks: Vec<(String, Arc<dyn PhysicalExpr>)>,
}

impl Checks {
    /// Returns the constraints of a table; `None` if it has none.
    pub fn of(planner: &Planner, columns: &SchemaRef, table: &str) -> Result<Option<Checks>> {
        let fields = columns.fields().iter();
        let physical = |(name, text): (&str, &str)| {
            let (expr, input) = condition(planner, name, text, columns)?;
            Ok((constraint_name_in(table, name), planner.physical_expression(&expr, &input)?))
        };
        let checks = fields.flat_map(|field| checks_of(field)).map(physical).collect::<Result<Vec<_>>>()?;
        let checks = Checks { table: table.to_string(), columns: Arc::clone(columns), checks };
        Ok(Some(checks).filter(|checks| !checks.checks.is_empty()))
    }

    /// Fails if one of the new rows violates a constraint. Rows have the table's first columns, in order.
    pub fn verify(&self, rows: &RecordBatch) -> Result<()> {
        self.verify_rows(rows, "new row for")
    }

    /// The same for rows that the table has already.
    pub fn verify_existing(&self, rows: &RecordBatch) -> Result<()> {
        self.verify_rows(rows, "a row of")
    }

    fn verify_rows(&self, rows: &RecordBatch, which: &str) -> Result<()> {
        let fields = self.columns.fields().iter().enumerate();
        let column = |(place, field): (usize, &Arc<Field>)| match rows.columns().get(place) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        };
        let columns: Vec<ArrayRef> = fields.map(column).collect::<datafusion::error::Result<_>>()?;
        let nullable = self.columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let row = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::bug(error.to_string()))?;
        for (name, check) in &self.checks {
            let holds = check.evaluate(&row).and_then(|holds| holds.into_array(row.num_rows()))?;
            if let Some(place) = first_false(&holds) {
                return Err(violated(which, &self.table, name, row.columns(), place));
            }
        }
        Ok(())
    }
}

/// Makes a plan fail for rows that violate a constraint of the table. The plan has the table's visible columns from number
/// `first` on; `all` are the table's columns.
pub(crate) fn enforce(
    planner: &Planner,
    plan: LogicalPlan,
    first: usize,
    table: &str,
    visible: &Schema,
    all: &Schema,
) -> Result<LogicalPlan> {
    let found: Vec<(&str, &str)> = all.fields().iter().flat_map(|field| checks_of(field)).collect();
    if found.is_empty() {
        return Ok(plan);
    }
    let schema = Arc::clone(plan.schema());
    let column = |place: usize| Expr::Column(Column::from(schema.qualified_field(place)));
    let mut items: Vec<Expr> = (0..schema.fields().len()).map(column).collect();
    let (mut names, mut conditions) = (Vec::new(), Vec::new());
    for (name, text) in found {
        let (holds, _) = condition(planner, name, text, all)?;
        conditions.push(over_plan(holds, &schema, first, visible, all)?);
        names.push(constraint_name_in(table, name));
    }
    // The first column passes through the function.
    let name = schema.field(first).name().clone();
    let mut arguments = vec![items[first].clone(), lit(table), lit(names.join(SEPARATOR))];
    arguments.extend(conditions);
    arguments.extend((0..visible.fields().len()).map(|place| column(first + place)));
    items[first] = function().call(arguments).alias(name);
    Ok(LogicalPlanBuilder::from(plan).project(items)?.build()?)
}

/// Returns the name of a constraint or index of a table. A name that begins with a dot follows that of the table, without
/// its schema.
pub fn constraint_name_in(table: &str, name: &str) -> String {
    match name.strip_prefix('.') {
        Some(rest) => format!("{}_{rest}", split_schema(table).map_or(table, |(_, table)| table)),
        None => name.to_string(),
    }
}

/// Returns the function that passes its first argument on, and fails if a condition is false. The others are the table, the
/// names of the constraints, a condition for each of them, and the row, for the message.
pub(crate) fn function() -> ScalarUDF {
    let typed = |types: &[DataType]| match types.first() {
        Some(value) if types.len() >= 4 => Ok(value.clone()),
        _ => Err(Error::bug(format!("{ENFORCE} takes four arguments at least")).into()),
    };
    Scalar::any(ENFORCE, typed, |columns| {
        let [value, table, names, others @ ..] = columns else {
            return Err(Error::bug(format!("{ENFORCE} takes four arguments at least")).into());
        };
        if value.is_empty() {
            return Ok(Arc::clone(value));
        }
        let text = |column: &ArrayRef| -> datafusion::error::Result<String> {
            Ok(cast(column, &DataType::Utf8)?.as_string::<i32>().value(0).to_string())
        };
        let names = text(names)?;
        let names: Vec<&str> = names.split(SEPARATOR).collect();
        let row = others.get(names.len()..).unwrap_or_default();
        for (name, holds) in names.iter().zip(others) {
            if let Some(place) = first_false(holds) {
                return Err(violated("new row for", &text(table)?, name, row, place).into());
            }
        }
        Ok(Arc::clone(value))
    })
}

/// Returns the number of the first row for which a condition is false.
fn first_false(holds: &ArrayRef) -> Option<usize> {
    let holds = holds.as_boolean_opt()?;
    (0..holds.len()).find(|place| holds.is_valid(*place) && !holds.value(*place))
}

/// Returns the values of row number `place` as text, for messages: `1, NULL`.
pub fn row_text(columns: &[ArrayRef], place: usize) -> String {
    let options = FormatOptions::new().with_null("NULL");
    let value = |column: &ArrayRef| match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(place).to_string(),
        Err(_) => "…".to_string(),
    };
    columns.iter().map(value).collect::<Vec<_>>().join(", ")
}

fn violated(which: &str, table: &str, name: &str, row: &[ArrayRef], place: usize) -> Error {
    let mut shown = row_text(row, place);
    if let Some((end, _)) = shown.char_indices().nth(SHOWN_MAX) {
        shown.truncate(end);
        shown.push('…');
    }
    Error::invalid(format!("{which} table \"{table}\" violates check constraint \"{name}\": ({shown})"))
        .code(sqlstate::CHECK_VIOLATION)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;
    use crate::fixture::{Tables, lines};

    fn columns(sql: &str) -> Result<SchemaRef> {
        Planner::new().columns(&mut TokenReader::new(sql)?).map(|columns| columns.schema)
    }

    #[test]
    fn rows_without_a_statement_are_verified() {
        let schema = columns("(a INT CHECK (a > 0), b INT, CONSTRAINT less CHECK (a < b))").unwrap();
        let checks = Checks::of(&Planner::new(), &schema, "t").unwrap().unwrap();
        let verify = |a: [Option<i32>; 2], b: [Option<i32>; 2]| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(Int32Array::from_iter(a)), Arc::new(Int32Array::from_iter(b))];
            let rows = RecordBatch::try_new(schema.clone(), columns).unwrap();
            checks.verify(&rows).map_err(|error| error.message)
        };
        assert_eq!(verify([Some(1), None], [Some(2), Some(0)]), Ok(()));
        let message = |name: &str, row: &str| {
            Err(format!("new row for table \"t\" violates check constraint \"{name}\": ({row})"))
        };
        assert_eq!(verify([Some(1), Some(-1)], [None, None]), message("t_a_check", "-1, NULL"));
        assert_eq!(verify([Some(1), Some(3)], [None, Some(3)]), message("less", "3, 3"));
        // A writer that doesn't know the last column.
        let rows =
            RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![7])) as ArrayRef)]).unwrap();
        checks.verify(&rows).unwrap();
    }

    #[test]
    fn statements_fail_for_rows_that_violate_a_constraint() {
        let tables =
            Tables::new().table("t", "(id INT, n INT CHECK (n > 0 OR id = 9))", "VALUES (1, 1), (2, 2)");
        let run = |sql: &str| {
            let dml = tables.planner.dml(sql, &tables).unwrap();
            tables.execute(&dml.query.plan, &|batch| vec![batch]).map(|rows| lines(&rows))
        };
        assert_eq!(run("INSERT INTO t VALUES (3, NULL), (9, -9)").unwrap().len(), 2);
        for sql in [
            "INSERT INTO t VALUES (3, 1), (4, 0)",
            "UPDATE t SET n = 3 - 2 * id",
            "INSERT INTO t SELECT 1, -1",
        ] {
            let error = run(sql).unwrap_err().to_string();
            assert!(error.contains("violates check constraint \"t_n_check\""), "{sql}: {error}");
        }
        assert_eq!(run("INSERT INTO t SELECT 1, -1 WHERE false").unwrap().len(), 0);
    }

    #[test]
    fn wrong_conditions_are_refused() {
        let message = |sql: &str| columns(sql).unwrap_err().message;
        assert_eq!(message("(a INT CHECK (b > 0))"), "constraint \"a_check\": column \"b\" not found");
        assert_eq!(
            message("(a INT, CHECK (a + 1))"),
            "constraint \"a_check\" has a condition of type BIGINT, but BOOLEAN was expected"
        );
        assert!(message("(a INT CHECK (a > random()))").contains("another value each time"));
        assert!(message("(a INT, CONSTRAINT c CHECK (a > (SELECT 1)))").contains("not an expression over"));
        assert_eq!(
            message("(a INT, CONSTRAINT c CHECK (a > 1), CONSTRAINT c CHECK (a < 9))"),
            "there is a constraint \"c\" already"
        );
    }
}
