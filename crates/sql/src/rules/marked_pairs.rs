//! Refuses columns of two types stored as text that a set operation or an equality would match by their texts alone:
//! `SELECT i FROM t UNION SELECT c FROM t`, `JOIN … USING (i)`, for an INET `i` and a CIDR `c`.

use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::Error;
use crate::functions::marks::columns::{is_null, shape_at};
use crate::functions::marks::shape::Shape;
use crate::sqlstate;

/// Fails if a node matches columns of different types.
pub(super) fn check(node: &LogicalPlan) -> Result<()> {
    match node {
        LogicalPlan::Union(union) => {
            for at in 0..node.schema().fields().len() {
                let given = union.inputs.iter().filter(|input| !is_null(input, at));
                let mut shapes = given.map(|input| shape_at(input, at));
                let Some(first) = shapes.next() else { continue };
                if let Some(other) = shapes.find(|other| differ(&first, other)) {
                    return Err(mismatch("UNION", &first, &other));
                }
            }
            Ok(())
        }
        LogicalPlan::Join(join) => {
            for (left, right) in &join.on {
                if let (Expr::Column(left), Expr::Column(right)) = (left, right) {
                    let (lefts, rights) = (join.left.schema(), join.right.schema());
                    let places = lefts.maybe_index_of_column(left).zip(rights.maybe_index_of_column(right));
                    let Some((left, right)) = places else { continue };
                    refuse_different("=", &shape_at(&join.left, left), &shape_at(&join.right, right))?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Fails if two columns are of different types, both stored as text.
pub(super) fn refuse_different(what: &str, left: &Shape, right: &Shape) -> Result<()> {
    let are_marked = matches!((left, right), (Shape::Marked(_), Shape::Marked(_)));
    if are_marked && differ(left, right) { Err(mismatch(what, left, right)) } else { Ok(()) }
}

/// Returns true if the texts of two columns mean different things.
fn differ(left: &Shape, right: &Shape) -> bool {
    let is_strict = |shape: &Shape| matches!(shape, Shape::Marked(mark) if !mark.is_json());
    // Bit strings of both types have the same texts.
    let is_bits = |shape: &Shape| matches!(shape, Shape::Marked(mark) if mark.is_bits());
    left != right && !(is_bits(left) && is_bits(right)) && (is_strict(left) || is_strict(right))
}

fn mismatch(what: &str, left: &Shape, right: &Shape) -> DataFusionError {
    let name = |shape: &Shape| match shape {
        Shape::Marked(mark) => mark.name().to_string(),
        _ => "text".into(),
    };
    Error::invalid(format!("{what} types {} and {} cannot be matched", name(left), name(right)))
        .hint("Cast one of them, as in x::INET or x::TEXT.")
        .code(sqlstate::DATATYPE_MISMATCH)
        .into()
}
