//! `SET (a, b) = (1, 2)` and `SET (a, b) = (SELECT x, y FROM …)`: an assignment of several columns as one of each.

use datafusion::sql::sqlparser::ast::{Assignment, AssignmentTarget, Expr, ObjectName, SelectItem, SetExpr};

use crate::ast_rewrite::shorthand;
use crate::error::{Error, Result};

/// Returns the assignments of single columns. An error has the assignment that it is about.
pub(super) fn of_columns(all: Vec<Assignment>) -> Result<Vec<Assignment>, Box<(Error, Assignment)>> {
    let mut single = Vec::with_capacity(all.len());
    for assignment in all {
        let AssignmentTarget::Tuple(names) = &assignment.target else {
            single.push(assignment);
            continue;
        };
        let values =
            values(names, &assignment.value).map_err(|error| Box::new((error, assignment.clone())))?;
        let pairs = names.iter().cloned().zip(values);
        single.extend(
            pairs.map(|(name, value)| Assignment { target: AssignmentTarget::ColumnName(name), value }),
        );
    }
    Ok(single)
}

/// Returns a value for each column.
fn values(names: &[ObjectName], value: &Expr) -> Result<Vec<Expr>> {
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
            let part = |item: &SelectItem| {
                let mut query = query.clone();
                if let SetExpr::Select(select) = query.body.as_mut() {
                    select.projection = vec![item.clone()];
                }
                Expr::Subquery(query)
            };
            select.projection.iter().map(part).collect()
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
