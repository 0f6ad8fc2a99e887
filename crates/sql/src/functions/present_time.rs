//! `now()` in microseconds.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions::datetime::now::NowFunc;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use super::Registry;

/// Replaces DataFusion's function, which returns nanoseconds.
pub(super) fn register(registry: &mut Registry<'_>) {
    if registry.unit != TimeUnit::Nanosecond {
        let around = |inner| ScalarUDF::from(PresentTime { inner });
        registry.replace("now", |function| function.inner().is::<NowFunc>(), around);
    }
}

/// DataFusion's function with another unit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PresentTime {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for PresentTime {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(PresentTime { inner: Arc::new(inner) }))
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.inner.return_type(found)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(arguments)?;
        Ok(Arc::new(Field::new(field.name(), in_microseconds(field.data_type()), field.is_nullable())))
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.inner.simplify(arguments, context)? {
            ExprSimplifyResult::Simplified(Expr::Literal(now, metadata)) => {
                ExprSimplifyResult::Simplified(Expr::Literal(microseconds(&now)?, metadata))
            }
            other => other,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

fn in_microseconds(found: &DataType) -> DataType {
    match found {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    }
}

fn microseconds(now: &ScalarValue) -> Result<ScalarValue> {
    now.cast_to(&in_microseconds(&now.data_type()))
}
