//! Draws aggregates.

use super::ast::{Aggregate, Expr, Node, Order};
use super::draw::{DIRECTIONS, Draw, Scope};
use super::family::Family;

/// The signature of an aggregate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// The family of the result; `None`: that of the first argument, which must be ordered.
    pub(super) result: Option<Family>,
    /// The families of the arguments; `None`: that of the result.
    pub(super) arguments: &'static [Option<Family>],
    /// True if the order of rows matters.
    pub(super) ordered: bool,
    /// True if DISTINCT makes sense.
    pub(super) distinct: bool,
}

const fn plain(name: &'static str, result: Family, arguments: &'static [Option<Family>]) -> Function {
    Function { name, result: Some(result), arguments, ordered: false, distinct: true }
}

const fn same(name: &'static str, ordered: bool) -> Function {
    Function { name, result: None, arguments: &[None], ordered, distinct: !ordered }
}

const fn ordered(name: &'static str, result: Family, arguments: &'static [Option<Family>]) -> Function {
    Function { name, result: Some(result), arguments, ordered: true, distinct: false }
}

const INTEGER: Option<Family> = Some(Family::Integer);
const DECIMAL: Option<Family> = Some(Family::Decimal);
const FLOAT: Option<Family> = Some(Family::Float);
const TEXT: Option<Family> = Some(Family::Text);
const BOOLEAN: Option<Family> = Some(Family::Boolean);

/// The aggregates to draw from.
const FUNCTIONS: &[Function] = &[
    plain("count", Family::Integer, &[]),
    plain("count", Family::Integer, &[INTEGER]),
    plain("count", Family::Integer, &[TEXT]),
    plain("count", Family::Integer, &[FLOAT]),
    plain("count", Family::Integer, &[BOOLEAN]),
    plain("sum", Family::Integer, &[INTEGER]),
    plain("sum", Family::Decimal, &[DECIMAL]),
    plain("sum", Family::Float, &[FLOAT]),
    plain("avg", Family::Float, &[INTEGER]),
    plain("avg", Family::Decimal, &[DECIMAL]),
    plain("avg", Family::Float, &[FLOAT]),
    plain("bool_and", Family::Boolean, &[BOOLEAN]),
    plain("bool_or", Family::Boolean, &[BOOLEAN]),
    plain("bit_and", Family::Integer, &[INTEGER]),
    plain("bit_or", Family::Integer, &[INTEGER]),
    plain("bit_xor", Family::Integer, &[INTEGER]),
    plain("median", Family::Float, &[FLOAT]),
    plain("median", Family::Integer, &[INTEGER]),
    plain("percentile_cont", Family::Float, &[FLOAT]),
    plain("var_samp", Family::Float, &[FLOAT]),
    plain("var_pop", Family::Float, &[INTEGER]),
    plain("stddev_samp", Family::Float, &[FLOAT]),
    plain("stddev_pop", Family::Float, &[INTEGER]),
    plain("covar_samp", Family::Float, &[FLOAT, FLOAT]),
    plain("covar_pop", Family::Float, &[INTEGER, FLOAT]),
    plain("corr", Family::Float, &[FLOAT, FLOAT]),
    plain("regr_slope", Family::Float, &[FLOAT, FLOAT]),
    plain("regr_intercept", Family::Float, &[FLOAT, INTEGER]),
    plain("regr_r2", Family::Float, &[FLOAT, FLOAT]),
    plain("regr_count", Family::Integer, &[FLOAT, FLOAT]),
    plain("regr_avgx", Family::Float, &[FLOAT, FLOAT]),
    plain("regr_sxx", Family::Float, &[FLOAT, FLOAT]),
    plain("regr_sxy", Family::Float, &[FLOAT, FLOAT]),
    ordered("array_agg", Family::Integers, &[INTEGER]),
    ordered("array_agg", Family::Texts, &[TEXT]),
    ordered("string_agg", Family::Text, &[TEXT]),
    ordered("nth_value", Family::Integer, &[INTEGER]),
    ordered("nth_value", Family::Text, &[TEXT]),
    same("min", false),
    same("max", false),
    same("min", false),
    same("max", false),
    same("first_value", true),
    same("last_value", true),
    same("any_value", false),
];

impl Draw<'_> {
    /// Draws an aggregate that returns `family`, if there is one; in a group, or over a window.
    pub(super) fn aggregate(&mut self, scope: &Scope, family: Family, in_group: bool) -> Option<Expr> {
        let call = self.call(scope, family, in_group)?;
        Some(Expr { family, node: Node::Aggregate(Box::new(call)) })
    }

    /// Draws the call of an aggregate.
    pub(super) fn call(&mut self, scope: &Scope, family: Family, in_group: bool) -> Option<Aggregate> {
        let fits = |function: &&Function| {
            let gives = function.result.map_or(family.is_ordered(), |result| result == family);
            let placed = in_group || function.name != "percentile_cont";
            gives && placed
        };
        let found: Vec<&Function> = FUNCTIONS.iter().filter(fits).collect();
        let function = *self.dice.choose(&found)?;
        let inner = Scope { outer: Vec::new(), subqueries: false, ..scope.clone() };
        let mut arguments = Vec::new();
        for argument in function.arguments {
            let depth = if self.dice.chance(70) { 0 } else { 1 };
            arguments.push(self.expr(&inner, argument.unwrap_or(family), depth));
        }
        let mut call = Aggregate {
            function: function.name,
            arguments,
            distinct: false,
            order: Vec::new(),
            within: Vec::new(),
            filter: None,
        };
        match function.name {
            "string_agg" => call.arguments.push(Expr::literal(Family::Text, "','")),
            "nth_value" => call.arguments.push(Expr::literal(Family::Integer, "2")),
            "percentile_cont" => {
                let expr = std::mem::replace(&mut call.arguments[0], Expr::literal(Family::Float, "0.3"));
                call.within.push(Order { expr, suffix: self.dice.pick(&["", " DESC"]) });
            }
            _ => {}
        }
        if in_group {
            self.decorate(&mut call, &inner, function);
        }
        // Over a window these are functions of another kind.
        let filtered = in_group || !["first_value", "last_value", "nth_value"].contains(&function.name);
        if filtered && self.dice.chance(20) {
            call.filter = Some(self.condition(&inner, 1));
        }
        Some(call)
    }

    /// Adds DISTINCT and ORDER BY.
    fn decorate(&mut self, call: &mut Aggregate, scope: &Scope, function: Function) {
        let takes = function.distinct && call.arguments.len() == 1 && call.within.is_empty();
        call.distinct = takes && self.dice.chance(25);
        if function.ordered && !call.distinct && self.dice.chance(70) {
            for _ in 0..1 + self.dice.below(2) {
                // A number would refer to a column of the SELECT.
                if let Some(expr) = self.dice.choose(&scope.leaves)
                    && !matches!(expr.node, Node::Literal(_))
                {
                    call.order.push(Order { expr, suffix: self.dice.pick(DIRECTIONS) });
                }
            }
        }
    }
}
