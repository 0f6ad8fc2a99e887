//! DataFusion's functions that also have a form for marked values: `trunc` of a hardware address, `lower` of a range, `length` of a
//! TSVECTOR or a path.
//!
//! The types of a call's arguments are known when it is planned, but not when its name is looked up. So the planner gets
//! [`Overloaded`] for the name, and the rule in `rules/marked_types.rs` replaces each call by one of the two functions.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::Mark;
use super::catalog::function;
use super::function::is_text;
use crate::functions::either::coerced;
use crate::functions::{bits, geometry, network, ranges, text_search, xml};

/// The names.
const NAMES: [&str; 12] = [
    "trunc",
    "lower",
    "upper",
    "character_length",
    "substr",
    "overlay",
    "strpos",
    "bit_length",
    "octet_length",
    "bit_count",
    "get_bit",
    "set_bit",
];

/// Returns the function that a call means if its arguments have these types: some names have several.
pub(crate) fn overload(name: &str, marks: &[Option<Mark>]) -> Option<&'static str> {
    let first = marks.first().copied().flatten();
    let of_first = |mark: Mark| {
        let address = network::overload(name, mark);
        address.or_else(|| ranges::overload(name, mark)).or_else(|| geometry::overload(name, mark))
    };
    first
        .and_then(of_first)
        .or_else(|| text_search::overload(name, marks))
        .or_else(|| bits::overload(name, marks))
        .or_else(|| xml::postgres::overload(name, marks))
}

/// A function as statements name it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Overloaded {
    /// DataFusion's function.
    pub(crate) plain: Arc<ScalarUDF>,
    signature: Signature,
}

/// Returns the function that a statement's call means.
pub(crate) fn written_instead(registered: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    if !NAMES.contains(&registered.name()) {
        return registered;
    }
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(Overloaded { plain: registered, signature }))
}

impl Overloaded {
    /// Returns the function for arguments of these types.
    pub(crate) fn resolved(&self, marks: &[Option<Mark>]) -> Arc<ScalarUDF> {
        let marked = overload(self.plain.name(), marks).and_then(function);
        marked.unwrap_or_else(|| Arc::clone(&self.plain))
    }
}

impl ScalarUDFImpl for Overloaded {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.plain.inner().schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        if found.first().is_some_and(is_text) {
            return Ok(found.to_vec());
        }
        coerced(found, self.plain.as_ref())
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.plain.return_type(found)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let mut marks: Vec<Option<Mark>> = arguments.arg_fields.iter().map(|field| Mark::of(field)).collect();
        // A literal spells bytes. Another text can only be a bit string whose type isn't found yet.
        if self.name() == "set_bit"
            && let [first, ..] = arguments.arg_fields
            && is_text(first.data_type())
            && arguments.scalar_arguments.first().is_some_and(Option::is_none)
        {
            marks[0] = marks[0].or(Some(Mark::Bit));
        }
        self.resolved(&marks).return_field_from_args(arguments)
    }

    /// Constant arguments of table functions are evaluated without the rule.
    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.plain.invoke_with_args(arguments)
    }
}
