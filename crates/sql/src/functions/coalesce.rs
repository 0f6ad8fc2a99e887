//! `coalesce` of times and literals: as in PostgreSQL, a literal has the type of the times beside it.
//!
//! DataFusion's function takes a text beside a number, but not beside a time, as CASE, `greatest` and `nullif` do.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::functions::core::coalesce::CoalesceFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use super::Registry;

/// Replaces DataFusion's function.
pub(super) fn register(registry: &mut Registry<'_>) {
    let around = |inner| ScalarUDF::from(Coalesce { inner });
    registry.replace("coalesce", |function| function.inner().is::<CoalesceFunc>(), around);
}

/// DataFusion's function, except for the types of its arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let is_untyped = |found: &DataType| found.is_null() || found.is_string();
        let times: Vec<DataType> = found.iter().filter(|found| !is_untyped(found)).cloned().collect();
        let target = match times.iter().all(DataType::is_temporal) {
            true if times.len() < found.len() && !times.is_empty() => self.inner.coerce_types(&times)?,
            _ => return self.inner.coerce_types(found),
        };
        Ok(target.into_iter().cycle().take(found.len()).collect())
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.inner.return_type(found)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(arguments, context)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
