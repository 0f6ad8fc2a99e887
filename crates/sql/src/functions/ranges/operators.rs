//! Plans the operators of ranges and multiranges.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use millstream_delta::sql_type;

use crate::error::Error;
use crate::expression_type::type_of;
use crate::functions::json::operators::{column_in, shown, typed};
use crate::functions::marks::Mark;
use crate::functions::marks::catalog::call;
use crate::functions::marks::expressions::is_literal;
use crate::functions::marks::function::is_text;
use crate::functions::marks::shape::Shape;
use crate::functions::marks::subtype::Subtype;
use crate::functions::read_text::{Kind, ReadText};
use crate::sqlstate;

/// The planner. It must be asked before DataFusion's, and before those of arrays and network addresses.
#[derive(Debug)]
pub(crate) struct RangeOperators;

/// An operand.
struct Operand {
    mark: Option<Mark>,
    data_type: DataType,
    is_literal: bool,
}

impl ExprPlanner for RangeOperators {
    fn plan_binary_op(
        &self,
        written: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let columns = |column: &Column| column_in(schema, column);
        let operand = |side: &Expr| Operand {
            mark: Shape::mark(side, &columns),
            data_type: type_of(side, schema),
            is_literal: is_literal(side),
        };
        let kind = Operation::of(&written.op);
        let Some(kind) = kind else { return Ok(PlannerResult::Original(written)) };
        let (left, right) = (operand(&written.left), operand(&written.right));
        let is_range = |operand: &Operand| operand.mark.is_some_and(Mark::is_range);
        let are_unmarked = !is_range(&left) && !is_range(&right);
        let found = match are_unmarked {
            true => kind.unmarked(&left, &right),
            false => kind.function(&left, &right),
        };
        let is_own = matches!(&written.op, BinaryOperator::Custom(symbol) if OWN.contains(&symbol.as_str()));
        let name = match found {
            None if are_unmarked && !is_own => return Ok(PlannerResult::Original(written)),
            None => return Err(unknown(&written, &left, &right)),
            Some(_) if kind == Operation::Compared => return Ok(PlannerResult::Original(written)),
            Some(name) => name,
        };
        let label = format!("{} {} {}", shown(&written.left), written.op, shown(&written.right));
        let RawBinaryExpr { op, left: one, right: other } = written;
        let of_type = |value: Expr, mark: Option<Mark>| match mark {
            Some(mark) if is_literal(&value) => ReadText::call(Kind::Marked(mark), false, typed(value)),
            _ => typed(value),
        };
        let args = vec![of_type(one.clone(), right.mark), of_type(other.clone(), left.mark)];
        Ok(match call(name, args) {
            Some(planned) => PlannerResult::Planned(planned.alias(label)),
            None => PlannerResult::Original(RawBinaryExpr { op, left: one, right: other }),
        })
    }
}

/// The operators that only ranges have.
const OWN: [&str; 3] = ["&<", "&>", "-|-"];

/// The kinds of operators, by the operands that they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Contains,
    Contained,
    /// A predicate of ranges or multiranges.
    Placed(&'static str),
    /// An operator of two ranges, or of two multiranges.
    Computed(&'static str),
    Compared,
}

impl Operation {
    fn of(op: &BinaryOperator) -> Option<Operation> {
        use BinaryOperator::*;
        Some(match op {
            AtArrow => Operation::Contains,
            ArrowAt => Operation::Contained,
            PGOverlap => Operation::Placed("range_overlaps"),
            PGBitwiseShiftLeft => Operation::Placed("range_before"),
            PGBitwiseShiftRight => Operation::Placed("range_after"),
            Custom(symbol) => Operation::Placed(match symbol.as_str() {
                "&<" => "range_overleft",
                "&>" => "range_overright",
                "-|-" => "range_adjacent",
                _ => return None,
            }),
            Plus => Operation::Computed("range_union"),
            Multiply => Operation::Computed("range_intersect"),
            Minus => Operation::Computed("range_minus"),
            Eq | NotEq | Lt | LtEq | Gt | GtEq => Operation::Compared,
            _ => return None,
        })
    }

    /// Returns the function for operands of which one is a range; none if there is none.
    fn function(self, left: &Operand, right: &Operand) -> Option<&'static str> {
        let subtypes = (left.subtype(), right.subtype());
        let is_one_type = match (left.mark, right.mark) {
            (Some(one), Some(other)) => one == other,
            _ => left.is_literal || right.is_literal,
        };
        let is_one_subtype = match subtypes {
            (Some(one), Some(other)) => one == other,
            _ => left.is_literal || right.is_literal,
        };
        let holds = |set: Option<Subtype>, value: &Operand| {
            value.mark.is_none() && set.is_some_and(|subtype| subtype.accepts(&value.data_type))
        };
        match self {
            Operation::Contains if is_one_subtype => Some("range_contains"),
            Operation::Contains if holds(subtypes.0, right) => Some("range_contains_elem"),
            Operation::Contained if is_one_subtype => Some("range_contained"),
            Operation::Contained if holds(subtypes.1, left) => Some("elem_contained_by_range"),
            Operation::Placed(name) if is_one_subtype => Some(name),
            Operation::Computed(name) if is_one_type => Some(name),
            Operation::Compared if is_one_type => Some(""),
            _ => None,
        }
    }
}

impl Operation {
    /// Returns the function for operands without marks, if one can be a column that a subquery computes. The rule in
    /// `rules/marked_types.rs` reads the literals then.
    fn unmarked(self, left: &Operand, right: &Operand) -> Option<&'static str> {
        let is_other = |operand: &Operand| operand.data_type.is_numeric() || operand.data_type.is_temporal();
        let has_text = left.is_text() || right.is_text();
        let are_texts = has_text && [left, right].iter().all(|side| side.is_text() || side.is_literal);
        match self {
            Operation::Contains if left.is_text() && is_other(right) => Some("range_contains_elem"),
            Operation::Contained if right.is_text() && is_other(left) => Some("elem_contained_by_range"),
            Operation::Placed("range_before" | "range_after") => None,
            Operation::Placed(name) if are_texts => Some(name),
            Operation::Computed("range_minus") => None,
            Operation::Computed(name) if are_texts => Some(name),
            _ => None,
        }
    }
}

impl Operand {
    /// True for text without a mark that isn't a literal.
    fn is_text(&self) -> bool {
        self.mark.is_none() && !self.is_literal && is_text(&self.data_type)
    }

    fn subtype(&self) -> Option<Subtype> {
        self.mark.and_then(Subtype::of)
    }

    fn type_name(&self) -> String {
        match self.mark {
            Some(mark) => mark.name().into(),
            None => sql_type(&self.data_type).to_lowercase(),
        }
    }
}

fn unknown(written: &RawBinaryExpr, left: &Operand, right: &Operand) -> datafusion::error::DataFusionError {
    let (left, op, right) = (left.type_name(), &written.op, right.type_name());
    Error::invalid(format!("operator does not exist: {left} {op} {right}"))
        .hint("Cast an operand, so that both are ranges of one type, or a range and a value of its bounds' type.")
        .code(sqlstate::UNDEFINED_FUNCTION)
        .into()
}
