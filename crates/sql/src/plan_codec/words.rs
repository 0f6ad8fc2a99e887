//! The words for enum values in stored plans.

use datafusion::common::{JoinConstraint, JoinType, NullEquality, NullHandling};
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::{Expr, Operator, WindowFrameUnits};

pub(super) const OPERATORS: &[Operator] = &[
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::Plus,
    Operator::Minus,
    Operator::Multiply,
    Operator::Divide,
    Operator::Modulo,
    Operator::And,
    Operator::Or,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
    Operator::RegexMatch,
    Operator::RegexIMatch,
    Operator::RegexNotMatch,
    Operator::RegexNotIMatch,
    Operator::LikeMatch,
    Operator::ILikeMatch,
    Operator::NotLikeMatch,
    Operator::NotILikeMatch,
    Operator::BitwiseAnd,
    Operator::BitwiseOr,
    Operator::BitwiseXor,
    Operator::BitwiseShiftRight,
    Operator::BitwiseShiftLeft,
    Operator::StringConcat,
    Operator::AtArrow,
    Operator::ArrowAt,
    Operator::Arrow,
    Operator::LongArrow,
    Operator::HashArrow,
    Operator::HashLongArrow,
    Operator::AtAt,
    Operator::IntegerDivide,
    Operator::HashMinus,
    Operator::AtQuestion,
    Operator::Question,
    Operator::QuestionAnd,
    Operator::QuestionPipe,
    Operator::Colon,
];

pub(super) const JOINS: &[(&str, JoinType)] = &[
    ("inner", JoinType::Inner),
    ("left", JoinType::Left),
    ("right", JoinType::Right),
    ("full", JoinType::Full),
    ("left_semi", JoinType::LeftSemi),
    ("right_semi", JoinType::RightSemi),
    ("left_anti", JoinType::LeftAnti),
    ("right_anti", JoinType::RightAnti),
    ("left_mark", JoinType::LeftMark),
    ("right_mark", JoinType::RightMark),
];

pub(super) const JOINED_BY: &[(&str, JoinConstraint)] =
    &[("on", JoinConstraint::On), ("using", JoinConstraint::Using)];

pub(super) const NULLS_ARE: &[(&str, NullEquality)] =
    &[("equal", NullEquality::NullEqualsNull), ("nothing", NullEquality::NullEqualsNothing)];

pub(super) const FRAMES: &[(&str, WindowFrameUnits)] = &[
    ("rows", WindowFrameUnits::Rows),
    ("range", WindowFrameUnits::Range),
    ("groups", WindowFrameUnits::Groups),
];

pub(super) const NULL_TREATMENTS: &[(&str, NullTreatment)] =
    &[("ignore", NullTreatment::IgnoreNulls), ("respect", NullTreatment::RespectNulls)];

pub(super) const UNNESTED_NULLS: &[(&str, NullHandling)] = &[
    ("preserve", NullHandling::Preserve),
    ("drop", NullHandling::Drop),
    ("expand", NullHandling::PreserveAndExpandEmpty),
];

/// Builds an expression from one operand.
type Unary = fn(Box<Expr>) -> Expr;

pub(super) const UNARY: &[(&str, Unary)] = &[
    ("not", Expr::Not),
    ("is_not_null", Expr::IsNotNull),
    ("is_null", Expr::IsNull),
    ("is_true", Expr::IsTrue),
    ("is_false", Expr::IsFalse),
    ("is_unknown", Expr::IsUnknown),
    ("is_not_true", Expr::IsNotTrue),
    ("is_not_false", Expr::IsNotFalse),
    ("is_not_unknown", Expr::IsNotUnknown),
    ("negative", Expr::Negative),
];

/// Returns the word for a value of such a table.
pub(super) fn word<T: PartialEq + std::fmt::Debug>(
    table: &[(&'static str, T)],
    value: &T,
) -> Result<&'static str, String> {
    let found = table.iter().find(|(_, known)| known == value);
    found.map(|(word, _)| *word).ok_or_else(|| format!("{value:?}"))
}

/// Returns the value for a word.
pub(super) fn named<T: Clone>(table: &[(&str, T)], word: &str) -> Result<T, String> {
    let found = table.iter().find(|(known, _)| *known == word);
    found.map(|(_, value)| value.clone()).ok_or_else(|| format!("'{word}' is unknown"))
}
