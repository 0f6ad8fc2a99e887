//! Places of the select list in grouping sets: `SELECT a, b … GROUP BY CUBE (1, 2)`. DataFusion resolves those of a plain GROUP BY.

use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Select, SelectItem, Value};

/// Puts the items of the select list in place of their numbers in ROLLUP, CUBE and GROUPING SETS.
pub(super) fn resolve(select: &mut Select) {
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return };
    for key in keys {
        let (Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets)) = key else { continue };
        for part in sets.iter_mut().flatten() {
            if let Some(item) = place(part).and_then(|at| select.projection.get(at))
                && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
            {
                *part = expr.clone();
            }
        }
    }
}

/// Returns the index of the item that a number means.
fn place(part: &Expr) -> Option<usize> {
    let Expr::Value(value) = part else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    number.parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    #[test]
    fn numbers_are_items_of_the_select_list() {
        let tables = Tables::new().table("t", "(a INT, b INT)", "VALUES (1, 2), (1, 3)");
        let totals = ["1|2|1", "1|3|1", "1|NULL|2", "NULL|NULL|2"];
        tables.check("SELECT a AS x, b, count(*) FROM t GROUP BY ROLLUP (1, 2)", &totals);
        tables.check("SELECT a, b, count(*) FROM t GROUP BY GROUPING SETS ((1, 2), (1), ())", &totals);
        tables.check("SELECT a + 1, count(*) FROM t GROUP BY CUBE (1)", &["2|2", "NULL|2"]);
    }
}
