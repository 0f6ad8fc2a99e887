//! Plans calls of functions of XML by the types of their arguments.
//!
//! | written, for a column `x` of type XML and a column `t` of type TEXT | planned as |
//! | --- | --- |
//! | `xmlconcat(x, '<a/>')` | `xmlconcat(x, read_xml('<a/>'))` |
//! | `xmlelement(NAME a, xpath('/b', x))` | `xmlelement('a', xml_plain(…))`: the elements are XML |
//! | `xmlconcat(t)`, `xmlagg(t)` | an error, as in PostgreSQL |

use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::ScalarFunction;

use crate::error::Error;
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::{function, is_listed};
use crate::functions::marks::expressions::{Columns, is_literal};
use crate::functions::marks::shape::Shape;
use crate::functions::read_text::{Kind, ReadText};
use crate::functions::xml::postgres::takes_xml;
use crate::sqlstate;

/// Reads literals among a call's arguments. Returns true if the call changed; fails if an argument has another type than XML.
pub(super) fn prepare(call: &mut ScalarFunction, columns: &Columns<'_>) -> Result<bool> {
    if !is_listed(&call.func) {
        return Ok(false);
    }
    let name = call.func.name().to_string();
    let is_list_of_xml =
        |part: &Expr| Shape::of(part, columns) == Shape::List(Box::new(Shape::Marked(Mark::Xml)));
    match (name.as_str(), call.args.as_slice()) {
        ("xml_content", [value]) if is_list_of_xml(value) => {
            call.func = function("xml_plain").unwrap_or_else(|| call.func.clone());
            return Ok(true);
        }
        ("xml_agg_of", [values]) if !is_list_of_xml(values) && !is_of_nulls(values) => {
            return Err(Error::invalid("function xmlagg(text) does not exist")
                .hint("Cast them, as in xmlagg(x::XML).")
                .code(sqlstate::UNDEFINED_FUNCTION)
                .into());
        }
        _ => {}
    }
    let mut changed = false;
    for (at, argument) in call.args.iter_mut().enumerate() {
        let Some(what) = takes_xml(&name, at) else { continue };
        match Shape::of(argument, columns) {
            Shape::Marked(Mark::Xml) => {}
            Shape::Plain if is_literal(argument) => {
                if !matches!(argument, Expr::Literal(value, _) if value.is_null()) {
                    *argument = ReadText::call(Kind::Marked(Mark::Xml), false, std::mem::take(argument));
                    changed = true;
                }
            }
            found => {
                let found = match found {
                    Shape::Marked(mark) => mark.name(),
                    _ => "text",
                };
                return Err(Error::invalid(format!("argument of {what} must be type xml, not type {found}"))
                    .hint("Cast it, as in x::XML.")
                    .code(sqlstate::DATATYPE_MISMATCH)
                    .into());
            }
        }
    }
    Ok(changed)
}

/// True for an aggregate of NULL.
fn is_of_nulls(values: &Expr) -> bool {
    match values {
        Expr::AggregateFunction(call) => {
            matches!(call.params.args.first(), Some(Expr::Literal(value, _)) if value.is_null())
        }
        _ => false,
    }
}
