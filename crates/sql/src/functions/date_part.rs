//! `date_part` and EXTRACT whose comparisons stay right at the ends of a timestamp's range.
//!
//! DataFusion rewrites `extract(year FROM t) > 3` to `t >= timestamp '0004-01-01'`. If the timestamp's type
//! can't hold such a bound, or the zone skips it, DataFusion compares with NULL and no row passes. The
//! function here leaves such a comparison as it was written.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::functions::datetime::date_part::DatePartFunc;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use super::Registry;

/// Replaces DataFusion's function.
pub(super) fn register(registry: &mut Registry<'_>) {
    registry.add_rewrite(Arc::new(Bounded));
}

/// Wraps DataFusion's function.
pub(crate) fn date_part(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(DatePart { inner }))
}

/// Returns the wrapped function.
pub(crate) fn date_part_of(function: &ScalarUDF) -> Option<&Arc<ScalarUDF>> {
    Some(&function.inner().downcast_ref::<DatePart>()?.inner)
}

#[derive(Debug)]
struct Bounded;

impl FunctionRewrite for Bounded {
    fn name(&self) -> &str {
        "bounded_date_part"
    }

    fn rewrite(&self, expression: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match expression {
            Expr::ScalarFunction(mut call) if call.func.inner().is::<DatePartFunc>() => {
                call.func = date_part(call.func);
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// DataFusion's function, except for the rewriting of comparisons.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DatePart {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.inner().invoke_with_args(arguments)
    }

    fn preimage(
        &self,
        arguments: &[Expr],
        value: &Expr,
        context: &SimplifyContext,
    ) -> Result<PreimageResult> {
        let found = self.inner.inner().preimage(arguments, value, context)?;
        match &found {
            PreimageResult::Range { interval, .. }
                if interval.lower().is_null() || interval.upper().is_null() =>
            {
                Ok(PreimageResult::None)
            }
            _ => Ok(found),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn years_beyond_a_timestamp_are_compared_as_numbers() {
        let tables = Tables::new().table(
            "t",
            "(id INT, z TIMESTAMPTZ, s TIMESTAMP)",
            "VALUES (1, '2024-02-29 12:30:45+00', '2024-02-29 12:30:45'), (2, NULL, NULL)",
        );
        for column in ["z", "s"] {
            tables.check(&format!("SELECT id FROM t WHERE extract(year FROM {column}) > 3"), &["1"]);
            tables.check(&format!("SELECT id FROM t WHERE extract(year FROM {column}) < 3000"), &["1"]);
            tables.check(&format!("SELECT id FROM t WHERE date_part('year', {column}) <> 1000"), &["1"]);
            tables.check(&format!("SELECT id FROM t WHERE date_part('year', {column}) = 3"), &[]);
            tables.check(&format!("SELECT id FROM t WHERE extract(year FROM {column}) = 2024"), &["1"]);
            let distinct = format!("SELECT id FROM t WHERE extract(year FROM {column}) IS DISTINCT FROM 3");
            tables.check(&distinct, &["1", "2"]);
        }
    }
}
