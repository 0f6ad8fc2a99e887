//! Rewrites `(a, b) IN (SELECT x, y …)`: EXISTS for an equal row, NULL if a row may be equal. Rewrites `(a, b) < (SELECT x, y …)`
//! and `(a, b) < (c, d)` to comparisons of values.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::postgres::bare;
use super::shorthand;
use crate::ast_walk::walk_mut;
use crate::error::{Error, Result};
use crate::tokens::DIALECT;

/// Placeholders for the compared values and for the subquery in the pattern. No query uses these names.
const VALUE: &str = "__value_";
const ROWS: &str = "__rows";

/// The most values of rows that are compared: planning takes time by the square of their number.
const VALUES_MAX: usize = 256;

/// Rewrites IN with a subquery in place.
pub(super) fn rewrite_expression(expression: &mut Expr) -> Result<()> {
    let Expr::InSubquery { expr, subquery, negated } = expression else { return Ok(()) };
    select_values(subquery)?;
    if let Some(values) = row(expr) {
        *expression = within(values, subquery.clone(), *negated)?;
    }
    Ok(())
}

/// Rewrites comparisons of rows to comparisons of their values.
///
/// | written | planned as |
/// | --- | --- |
/// | `(a, b) = (c, d)` | `a = c AND b = d` |
/// | `(a, b) <> (c, d)` | `a <> c OR b <> d` |
/// | `(a, b) < (c, d)` | `a < c OR a = c AND b < d` |
/// | `(a, b) < (SELECT x, y …)` | `(SELECT a < x OR a = x AND b < y FROM (…))` |
pub(super) fn compare(expression: &mut Expr) -> Result<()> {
    let Expr::BinaryOp { left, op, right } = expression else { return Ok(()) };
    if !is_comparison(op) {
        return Ok(());
    }
    let Some(values) = values_of(left) else { return Ok(()) };
    if let Some(others) = values_of(right) {
        *expression = Expr::Nested(Box::new(compared(op, values, others)?));
        return Ok(());
    }
    let Expr::Subquery(subquery) = bare(right) else { return Ok(()) };
    let columns = (0..values.len())
        .map(|at| Expr::CompoundIdentifier(vec![Ident::new(ROWS), Ident::new(format!("__c{at}"))]));
    let compared = compared(op, values.clone(), columns.collect())?;
    let mut pattern = pattern(&format!("SELECT {VALUE}0 FROM {ROWS}"))?;
    let fill = &mut Fill { values: vec![compared], columns: values.len(), subquery: subquery.clone() };
    let _ = walk_mut(&mut pattern, fill);
    *expression = Expr::Subquery(pattern);
    Ok(())
}

fn is_comparison(operator: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Returns the values of `(a, b)` or `ROW(a, b)`.
fn values_of(expression: &Expr) -> Option<Vec<Expr>> {
    let values = match expression {
        Expr::Tuple(values) => Some(values.clone()),
        Expr::Function(row) if row.name.to_string().eq_ignore_ascii_case("row") => shorthand::arguments(row),
        _ => None,
    };
    values.filter(|values| values.len() > 1)
}

/// Returns how often the operands of a comparison of rows are planned.
pub(crate) fn times(operator: &BinaryOperator, left: &Expr) -> u64 {
    1 + u64::from(is_comparison(operator) && values_of(left).is_some())
}

fn compared(operator: &BinaryOperator, left: Vec<Expr>, right: Vec<Expr>) -> Result<Expr> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    if left.len() != right.len() {
        return Err(Error::invalid("unequal number of entries in row expressions"));
    }
    if left.len() > VALUES_MAX {
        let found = left.len();
        return Err(Error::unsupported(format!("a comparison of rows of {found} values"))
            .hint(format!("Rows of up to {VALUES_MAX} values can be compared.")));
    }
    let binary = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    };
    let each = |op: &BinaryOperator, (left, right): (Expr, Expr)| {
        binary(Expr::Nested(Box::new(left)), op.clone(), Expr::Nested(Box::new(right)))
    };
    let mut pairs = left.into_iter().zip(right).rev();
    let Some(last) = pairs.next() else { return Err(Error::bug("a row without values")) };
    let strict = match operator {
        LtEq => Lt,
        GtEq => Gt,
        other => other.clone(),
    };
    let last = each(operator, last);
    Ok(pairs.fold(last, |rest, pair| match operator {
        Eq => binary(each(&Eq, pair), And, rest),
        NotEq => binary(each(&NotEq, pair), Or, rest),
        _ => {
            let equal = binary(each(&Eq, pair.clone()), And, Expr::Nested(Box::new(rest)));
            binary(each(&strict, pair), Or, equal)
        }
    }))
}

/// Parses a query.
fn pattern(text: &str) -> Result<Box<Query>> {
    Parser::new(&DIALECT)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_query())
        .map_err(|error| Error::bug(format!("a pattern isn't SQL: {error}")))
}

/// Rewrites `ROW(a, b) IS [NOT] NULL`: all fields are NULL, or none is.
pub(super) fn test_fields(expression: &mut Expr) {
    let (tested, is_null) = match expression {
        Expr::IsNull(tested) => (tested, true),
        Expr::IsNotNull(tested) => (tested, false),
        _ => return,
    };
    let fields = match tested.as_ref() {
        Expr::Tuple(values) => Some(values.clone()),
        Expr::Function(row) if row.name.to_string().eq_ignore_ascii_case("row") => shorthand::arguments(row),
        _ => None,
    };
    let Some(fields) = fields.filter(|fields| fields.len() > 1) else { return };
    let test = |field: Expr| {
        let field = Box::new(field);
        if is_null { Expr::IsNull(field) } else { Expr::IsNotNull(field) }
    };
    let both = |left: Expr, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    };
    if let Some(all) = fields.into_iter().map(test).reduce(both) {
        *expression = Expr::Nested(Box::new(all));
    }
}

/// Builds the expression for `(values) IN (subquery)`.
fn within(values: Vec<Expr>, subquery: Box<Query>, negated: bool) -> Result<Expr> {
    let equal: Vec<String> = (0..values.len()).map(|at| format!("{ROWS}.__c{at} = {VALUE}{at}")).collect();
    let equal = equal.join(" AND ");
    let rows = |condition: String| format!("EXISTS (SELECT 1 FROM {ROWS} WHERE {condition})");
    let text = format!(
        "{} (CASE WHEN {} THEN true WHEN {} THEN NULL ELSE false END)",
        if negated { "NOT" } else { "" },
        rows(equal.clone()),
        rows(format!("({equal}) IS NULL")),
    );
    let mut pattern = Parser::new(&DIALECT)
        .try_with_sql(&text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| Error::bug(format!("a pattern isn't SQL: {error}")))?;
    let _ = walk_mut(&mut pattern, &mut Fill { columns: values.len(), values, subquery });
    Ok(pattern)
}

/// Wraps VALUES under IN in a SELECT, since DataFusion requires its list of columns.
fn select_values(subquery: &mut Box<Query>) -> Result<()> {
    if !matches!(subquery.body.as_ref(), SetExpr::Values(_)) {
        return Ok(());
    }
    let mut pattern = pattern(&format!("SELECT * FROM {ROWS}"))?;
    let _ = walk_mut(&mut pattern, &mut Fill { values: Vec::new(), columns: 0, subquery: subquery.clone() });
    *subquery = pattern;
    Ok(())
}

struct Fill {
    values: Vec<Expr>,
    /// The number of columns that the subquery gets names for.
    columns: usize,
    subquery: Box<Query>,
}

impl VisitorMut for Fill {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Table { name, .. } if name.to_string() == ROWS) {
            let column = |at| TableAliasColumnDef { name: Ident::new(format!("__c{at}")), data_type: None };
            *factor = TableFactor::Derived {
                lateral: false,
                subquery: self.subquery.clone(),
                alias: Some(TableAlias {
                    explicit: true,
                    name: Ident::new(ROWS),
                    columns: (0..self.columns).map(column).collect(),
                    at: None,
                }),
                sample: None,
            };
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expression
            && let Some(at) = name.value.strip_prefix(VALUE)
            && let Some(value) = at.parse::<usize>().ok().and_then(|at| self.values.get(at))
        {
            *expression = Expr::Nested(Box::new(value.clone()));
        }
        ControlFlow::Continue(())
    }
}

/// Returns the values of a row expression.
fn row(expression: &mut Expr) -> Option<Vec<Expr>> {
    match expression {
        Expr::Tuple(values) => Some(std::mem::take(values)),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}
