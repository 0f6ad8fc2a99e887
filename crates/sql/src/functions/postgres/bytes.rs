//! The length of BYTEA values: DataFusion's functions take them for text in UTF-8.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::functions::string::octet_length::OctetLengthFunc;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};

use crate::error::Error;
use crate::functions::Registry;
use crate::functions::scalar::Scalar;

/// Registers the functions.
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    registry.add_rewrite(Arc::new(Lengths));
    registry.replace("octet_length", |function| function.inner().is::<OctetLengthFunc>(), |_| octet_length());
}

/// Returns `octet_length` of bytes, or of a text in UTF-8.
fn octet_length() -> ScalarUDF {
    let typed = |arguments: &[DataType]| match arguments {
        [_] => Ok(DataType::Int32),
        _ => Err(Error::invalid("octet_length takes one argument").into()),
    };
    Scalar::any("octet_length", typed, |columns| {
        let bytes = match columns[0].data_type() {
            data_type if data_type.is_binary() => columns[0].clone(),
            _ => cast(&columns[0], &DataType::LargeUtf8)?,
        };
        lengths(&bytes)
    })
}

fn lengths(column: &ArrayRef) -> Result<ArrayRef> {
    let bytes = cast(column, &DataType::LargeBinary)?;
    let bytes = bytes.as_binary::<i64>();
    let lengths = bytes.iter().map(|bytes| bytes.map(|bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX)));
    Ok(Arc::new(lengths.collect::<Int32Array>()))
}

pub(super) fn length() -> ScalarUDF {
    Scalar::any("bytea_length", |_| Ok(DataType::Int32), |columns| lengths(&columns[0]))
}

/// Rewrites `length(bytes)`.
#[derive(Debug)]
struct Lengths;

impl FunctionRewrite for Lengths {
    fn name(&self) -> &str {
        "lengths_of_bytes"
    }

    fn rewrite(&self, expression: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::ScalarFunction(call) = &expression else { return Ok(Transformed::no(expression)) };
        if call.func.name() != "character_length" {
            return Ok(Transformed::no(expression));
        }
        match &call.args[..] {
            [bytes] if bytes.get_type(schema).is_ok_and(|found| found.is_binary()) => {
                Ok(Transformed::yes(length().call(vec![bytes.clone()])))
            }
            _ => Ok(Transformed::no(expression)),
        }
    }
}
