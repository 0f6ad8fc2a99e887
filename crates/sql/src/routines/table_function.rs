//! Functions that return tables: `SELECT * FROM f(3)`.
//!
//! The body is planned as a relation of LATERAL beside that of the parameters, so it refers to them as to columns of an
//! outer row. A call in FROM replaces these references by its arguments.
//!
//! Deliberately absent: arguments that depend on rows, as in `FROM t, f(t.x)`, and calls outside of FROM.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Volatility, cast,
};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr as ExprTree, TableAlias, TableFactor, Value};
use millstream_delta::sql_type;

use super::argument_types::{accepted, is_text};
use super::body::{column_name, has_queries};
use super::function::{Parameter, UserFunction, volatility};
use super::query_body;
use super::statements::BodyPlanner;
use crate::dml::tree::{plain_from, quoted};
use crate::error::{Error, Result};
use crate::planner::Raw;

/// The alias of a body beside its parameters. Users can't write this name.
const ROWS: &str = "rows of a routine";

/// The result of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returns {
    /// One value of this type.
    Value(DataType),
    /// Rows, with columns of these names and types.
    Rows(Vec<(String, DataType)>),
}

impl Returns {
    /// Returns the type of the value, or that of a row.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Returns::Value(data_type) => data_type.clone(),
            Returns::Rows(columns) => {
                let field = |(name, of): &(String, DataType)| Field::new(name, of.clone(), true);
                DataType::Struct(columns.iter().map(field).collect())
            }
        }
    }
}

impl BodyPlanner<'_> {
    /// Plans a query over the parameters, whose result has these columns. Returns the plan, which refers to the parameters
    /// as to columns of an outer row, and the routines that it calls.
    pub(super) fn rows(
        &self,
        text: &str,
        columns: &[(String, DataType)],
    ) -> Result<(LogicalPlan, Vec<String>)> {
        let alias = TableAlias { explicit: true, name: quoted(ROWS), columns: Vec::new(), at: None };
        let subquery = self.query_of(text)?;
        let body = TableFactor::Derived { lateral: true, subquery, alias: Some(alias), sample: None };
        let select = self.select_of_expression(ExprTree::value(Value::Null))?;
        let Raw { plan, reads } = self.beside_parameters(select, vec![plain_from(body)], text)?;
        let rows = joined(plan).ok_or_else(|| Error::bug("a body beside its parameters is no join"))?;
        self.refuse_captures(&rows)?;
        let (name, count) = (self.scope.routine, rows.schema().fields().len());
        if count != columns.len() {
            let (wanted, plural) = (columns.len(), if count == 1 { "" } else { "s" });
            let message = format!("the body of \"{name}\" has {count} column{plural}, expected {wanted}");
            return Err(Error::invalid(message).hint("Select the columns that RETURNS declares."));
        }
        let mut items = Vec::with_capacity(count);
        for ((qualifier, field), (column, wanted)) in rows.schema().iter().zip(columns) {
            let (value, found) = (Expr::Column(Column::from((qualifier, field))), field.data_type());
            let is_castable = found.is_null()
                || arrow::compute::can_cast_types(found, wanted) && is_text(found) == is_text(wanted);
            if found != wanted && !is_castable {
                let (found, wanted) = (sql_type(found), sql_type(wanted));
                let message =
                    format!("column \"{column}\" of \"{name}\" is {wanted}, its body gives {found}");
                return Err(Error::invalid(message).hint(format!("Cast it: (…)::{wanted}.")));
            }
            // The types of a UNION are not yet known.
            let is_plain = found == wanted && is_text(wanted);
            let value = if is_plain { value } else { cast(value, wanted.clone()) };
            items.push(value.alias(column));
        }
        Ok((LogicalPlanBuilder::from(rows).project(items)?.build()?, reads))
    }

    /// Fails if a relation of the body could be taken for the parameters.
    fn refuse_captures(&self, rows: &LogicalPlan) -> Result<()> {
        let name = self.scope.routine;
        let names = self.scope.parameters.iter().enumerate().map(column_name);
        let qualifier = TableReference::bare(name);
        let columns: Vec<Column> = names.map(|column| Column::new(Some(qualifier.clone()), column)).collect();
        let mut captures = false;
        rows.apply_with_subqueries(|node| {
            captures |= columns.iter().any(|column| node.schema().has_column(column));
            Ok(if captures { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if !captures {
            return Ok(());
        }
        let message = format!("a relation in the body of \"{name}\" is called \"{name}\", too");
        let message = format!("{message}, and has a column with the name of a parameter");
        Err(Error::invalid(message).hint("Give the relation another alias."))
    }

    /// Fails if a call of the function couldn't be planned.
    pub(super) fn check_rows(&self, function: &UserFunction) -> Result<()> {
        let null = |parameter: &Parameter| -> Result<Expr> {
            Ok(Expr::Literal(ScalarValue::try_from(&parameter.data_type)?, None))
        };
        let arguments = function.parameters.iter().map(null).collect::<Result<Vec<Expr>>>()?;
        self.planner.analysed(function.rows_of(arguments)?)?;
        Ok(())
    }
}

/// Returns the right side of a cross join below a projection.
fn joined(plan: LogicalPlan) -> Option<LogicalPlan> {
    let LogicalPlan::Projection(Projection { input, .. }) = plan else { return None };
    match Arc::unwrap_or_clone(input) {
        LogicalPlan::Join(join) => Some(Arc::unwrap_or_clone(join.right)),
        _ => None,
    }
}

impl UserFunction {
    /// True if the function returns a table, so that it can be called in FROM alone.
    pub fn returns_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// Renders the result: `BIGINT`, `TABLE (a BIGINT, b TEXT)`.
    pub fn result(&self) -> String {
        match &self.returns {
            DataType::Struct(fields) if self.returns_rows() => {
                let column = |field: &FieldRef| format!("{} {}", field.name(), sql_type(field.data_type()));
                format!("TABLE ({})", fields.iter().map(column).collect::<Vec<String>>().join(", "))
            }
            returns => sql_type(returns),
        }
    }

    /// Returns the rows of a call in FROM, whose arguments refer to no row.
    pub(crate) fn rows_of(&self, arguments: Vec<Expr>) -> Result<LogicalPlan> {
        let name = &self.name;
        let plan = self.rows.as_ref().ok_or_else(|| Error::bug(format!("{name} returns no table")))?;
        let none = DFSchema::empty();
        let found = arguments.iter().map(|argument| argument.get_type(&none));
        let found = found.collect::<datafusion::error::Result<Vec<DataType>>>()?;
        let wanted = accepted(name, &self.parameters, &found)?;
        let mut values = Vec::with_capacity(arguments.len());
        for ((argument, found), wanted) in arguments.into_iter().zip(found).zip(wanted) {
            if has_queries(&argument) || volatility(&argument) == Volatility::Volatile {
                let what = format!("a subquery or a volatile function as an argument of \"{name}\" in FROM");
                return Err(Error::unsupported(what).hint("Pass a constant, such as 3, 'text' or now()."));
            }
            let is_written = matches!(argument, Expr::Literal(..) | Expr::Placeholder(_));
            if is_text(&found) && !is_text(&wanted) && !is_written {
                let message = format!("an argument of {name} is TEXT, {} was declared", sql_type(&wanted));
                return Err(Error::invalid(message).hint(format!("Cast it: (…)::{}.", sql_type(&wanted))));
            }
            values.push(if found == wanted { argument } else { cast(argument, wanted) });
        }
        let given = values.iter().map(|value| value.clone().is_not_null()).reduce(Expr::and);
        let rows = query_body::rows_with(self, values, plan.clone())?;
        match given.filter(|_| self.strict) {
            Some(given) => Ok(LogicalPlanBuilder::from(rows).filter(given)?.build()?),
            None => Ok(rows),
        }
    }
}
