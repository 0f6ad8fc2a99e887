//! `pg_sleep(seconds)`. It waits without a thread, so other sessions go on, and a cancelled statement ends at once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use millstream_sql::Error;

/// The longest wait, in seconds: some 30 years.
const LONGEST: f64 = 1e9;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    signature: Signature,
}

/// Registers the function.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    let sleep = Sleep { signature: Signature::exact(vec![DataType::Float64], Volatility::Volatile) };
    registry.register_udf(AsyncScalarUDF::new(Arc::new(sleep)).into_scalar_udf().into())?;
    Ok(())
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::unsupported("pg_sleep here").hint("A SELECT that runs once calls it.").into())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = call.number_rows;
        let Some(seconds) = call.args.into_iter().next() else {
            return Err(Error::bug("pg_sleep has no argument").into());
        };
        let seconds: ArrayRef = seconds.into_array(rows)?;
        let seconds = seconds.as_primitive::<Float64Type>();
        let total: f64 = seconds.iter().flatten().filter(|each| *each > 0.0).sum();
        tokio::time::sleep(Duration::from_secs_f64(total.min(LONGEST))).await;
        let void = seconds.iter().map(|each| each.map(|_| ""));
        Ok(ColumnarValue::Array(Arc::new(void.collect::<StringViewArray>())))
    }
}
