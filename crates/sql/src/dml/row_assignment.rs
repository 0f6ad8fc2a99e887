//! `SET (a, b) = (1, 2)` and `SET (a, b) = (SELECT x, y FROM …)`: an assignment of several columns as one of each.

use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, GroupByExpr, ObjectName, Query, Select, SelectItem, SetExpr,
    TableAlias, TableAliasColumnDef, TableFactor,
};

use super::Scope;
use super::tree::{column, plain_from, quoted, select_of};
use crate::ast_rewrite::shorthand;
use crate::error::{Error, Result};

/// Returns the assignments of single columns. An error has the assignment that it is about.
pub(super) fn of_columns(
    scope: &Scope<'_>,
    all: Vec<Assignment>,
) -> Result<Vec<Assignment>, Box<(Error, Assignment)>> {
    let mut single = Vec::with_capacity(all.len());
    for assignment in all {
        let AssignmentTarget::Tuple(names) = &assignment.target else {
            single.push(assignment);
            continue;
        };
        let values =
            values(scope, names, &assignment.value).map_err(|error| Box::new((error, assignment.clone())))?;
        let pairs = names.iter().cloned().zip(values);
        single.extend(
            pairs.map(|(name, value)| Assignment { target: AssignmentTarget::ColumnName(name), value }),
        );
    }
    Ok(single)
}

/// Returns true if the row that a subquery returns may depend on its other columns.
fn chooses_rows(query: &Query, select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(items, _) if items.is_empty());
    let is_call =
        |item: &SelectItem| !matches!(item, SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::Value(_)));
    query.order_by.is_some()
        || query.limit_clause.is_some()
        || query.fetch.is_some()
        || select.distinct.is_some()
        || grouped
        || (select.from.is_empty() && select.projection.iter().any(is_call))
}

/// Returns a subquery with one of its items.
fn with_item(query: &Query, item: &SelectItem) -> Expr {
    let mut query = query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![item.clone()];
    }
    Expr::Subquery(Box::new(query))
}

/// Returns a column of the row that a subquery returns: `(SELECT c1 FROM (SELECT x, y …) AS r (c0, c1))`.
fn part_of_row(scope: &Scope<'_>, query: &Query, place: usize, count: usize) -> Result<Expr> {
    let mut tree = scope.parse("SELECT x FROM y")?;
    let name = |place: usize| format!("c{place}");
    let columns = (0..count).map(|place| TableAliasColumnDef::from_name(name(place))).collect();
    let alias = TableAlias { explicit: true, name: quoted("r"), columns, at: None };
    let select = select_of(&mut tree)?;
    select.projection = vec![SelectItem::UnnamedExpr(column(&quoted("r"), &name(place)))];
    select.from = vec![plain_from(TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query.clone()),
        alias: Some(alias),
        sample: None,
    })];
    Ok(Expr::Subquery(tree))
}

/// Returns a value for each column.
fn values(scope: &Scope<'_>, names: &[ObjectName], value: &Expr) -> Result<Vec<Expr>> {
    let values = match value {
        Expr::Tuple(values) => values.clone(),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => {
            shorthand::arguments(function).ok_or_else(|| Error::invalid("ROW takes plain values"))?
        }
        Expr::Subquery(query) => {
            let SetExpr::Select(select) = query.body.as_ref() else {
                return Err(Error::unsupported("SET (…) = (a subquery that is not one SELECT)"));
            };
            let is_plain = |item: &SelectItem| {
                matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
            };
            if !select.projection.iter().all(is_plain) {
                return Err(Error::unsupported("SET (…) = (SELECT *)").hint("Name the columns."));
            }
            let count = select.projection.len();
            match chooses_rows(query, select) {
                true => {
                    (0..count).map(|place| part_of_row(scope, query, place, count)).collect::<Result<_>>()?
                }
                false => select.projection.iter().map(|item| with_item(query, item)).collect(),
            }
        }
        Expr::Nested(value) if names.len() == 1 => vec![value.as_ref().clone()],
        _ => {
            return Err(Error::invalid("SET (…) = … needs values in parentheses or a subquery")
                .hint("Write SET (a, b) = (1, 2), or SET (a, b) = (SELECT x, y FROM …)."));
        }
    };
    match values.len() == names.len() {
        true => Ok(values),
        false => Err(Error::invalid(format!(
            "SET names {} columns, but there are {} values",
            names.len(),
            values.len()
        ))),
    }
}
