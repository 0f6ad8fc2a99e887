//! User-defined functions written in SQL.

use std::hash::{Hash, Hasher};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::argument_types::{accepted, list};
use super::body::{Body, Scope, column_name};
use super::defaults::Defaults;
use super::statements::BodyPlanner;
use super::table_function::Returns;
use crate::complexity::subquery_of;
use crate::error::{Error, Result};
use crate::planner::{Planner, is_function};
use crate::relation::Relations;

/// A parameter of a routine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name; a parameter without one is `$1` and so on.
    pub name: Option<String>,
    /// The type.
    pub data_type: DataType,
    /// The default, as SQL; a parameter without one needs an argument.
    pub default: Option<String>,
}

/// A parsed CREATE FUNCTION.
#[derive(Clone, Debug)]
pub struct FunctionDeclaration {
    /// The function's name.
    pub name: String,
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The result.
    pub returns: Returns,
    /// True if the result is NULL, or has no rows, whenever an argument is NULL.
    pub strict: bool,
    /// The statements, separated by `;`. The last one gives the value.
    pub body: String,
}

/// A user-defined function. If that changes nothing, its body replaces a call. Other calls compute the same.
#[derive(Clone, Debug)]
pub struct UserFunction {
    /// The name.
    pub name: String,
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The type of the result; of a function that returns a table, that of its rows.
    pub returns: DataType,
    /// True if the result is NULL, or has no rows, whenever an argument is NULL.
    pub strict: bool,
    pub(super) body: Body,
    pub(super) defaults: Defaults,
    /// The rows over the parameters, if the function returns a table.
    pub(super) rows: Option<LogicalPlan>,
    signature: Signature,
}

impl Planner {
    /// Creates a function. Positions in errors refer to the body's text.
    pub fn function(
        &self,
        declaration: FunctionDeclaration,
        relations: &dyn Relations,
    ) -> Result<UserFunction> {
        let FunctionDeclaration { name, parameters, returns, strict, body } = declaration;
        self.check_routine_name(&name)?;
        let mut names: Vec<String> = parameters.iter().enumerate().map(column_name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!("parameter \"{}\" is declared twice", twice[0])));
        }
        let scope = Scope { routine: &name, parameters: &parameters, relations };
        let bodies = BodyPlanner { planner: self, scope: &scope };
        let defaults = bodies.defaults()?;
        let data_type = returns.data_type();
        let (mut body, rows) = match &returns {
            Returns::Value(_) => (bodies.last_statement(&body, &data_type, strict)?, None),
            Returns::Rows(columns) => {
                let (rows, reads) = bodies.last_rows(&body, columns)?;
                (Body::of_rows(&scope, &data_type, reads)?, Some(rows))
            }
        };
        body.reads.extend(defaults.reads.iter().cloned());
        body.reads.sort();
        body.reads.dedup();
        let mut signature = Signature::user_defined(volatility(&body.expr));
        if let Some(names) = parameters.iter().map(|parameter| parameter.name.clone()).collect() {
            signature.parameter_names = Some(names);
        }
        let function = UserFunction {
            name: name.clone(),
            parameters: parameters.clone(),
            returns: data_type,
            strict,
            body,
            defaults,
            rows,
            signature,
        };
        if function.returns_rows() {
            bodies.check_rows(&function)?;
        }
        Ok(function)
    }

    /// Refuses names of built-in functions: these come first, so the routine would never be called.
    pub(super) fn check_routine_name(&self, name: &str) -> Result<()> {
        if !is_function(self.state(), name) {
            return Ok(());
        }
        Err(Error::invalid(format!("\"{name}\" is a function that is built in"))
            .hint("Choose another name: it would never be called."))
    }
}

/// Returns the highest volatility of the functions that an expression calls, also in its subqueries.
pub(crate) fn volatility(expr: &Expr) -> Volatility {
    let mut found = Volatility::Immutable;
    let walked = expr.apply(|part| {
        if let Expr::ScalarFunction(call) = part {
            found = higher(found, call.func.signature().volatility);
        }
        if let Some(plan) = subquery_of(part) {
            plan.as_ref().apply(|node| {
                node.apply_expressions(|inner| {
                    found = higher(found, volatility(inner));
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.expect("looking doesn't fail");
    found
}

fn higher(one: Volatility, other: Volatility) -> Volatility {
    match (one, other) {
        (Volatility::Volatile, _) | (_, Volatility::Volatile) => Volatility::Volatile,
        (Volatility::Stable, _) | (_, Volatility::Stable) => Volatility::Stable,
        _ => Volatility::Immutable,
    }
}

impl UserFunction {
    /// Renders name and parameters: `f(v BIGINT[], s BIGINT)`.
    pub fn heading(&self) -> String {
        format!("{}{}", self.name, list(&self.parameters))
    }

    /// Returns the other routines that the function calls.
    pub fn reads(&self) -> &[String] {
        &self.body.reads
    }
}

impl PartialEq for UserFunction {
    fn eq(&self, other: &UserFunction) -> bool {
        self.name == other.name && self.parameters == other.parameters && self.body.expr == other.body.expr
    }
}

impl Eq for UserFunction {}

impl Hash for UserFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for UserFunction {
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

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let volatile = self.signature.volatility == Volatility::Volatile;
        let scalar = scalar && !volatile;
        let count = if scalar { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|argument| argument.into_array(count));
        let columns = columns.collect::<PlanResult<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.body.schema.clone(), columns, &options)?;
        let result = self.body.evaluable("a call outside a query")?.evaluate(&rows)?.into_array(count)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}
