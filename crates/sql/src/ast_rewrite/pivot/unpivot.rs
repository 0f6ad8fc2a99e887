//! UNPIVOT: a row for each of the listed columns, by `stack`.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, ExprWithAlias, Ident, SelectItem, TableFactor, Value,
};

use super::super::scopes::folded;
use super::super::{call, generators, text};
use super::{Input, Rows, binary, column_in, named, quoted, refuse_duplicates, select};
use crate::error::{Error, Result};
use crate::sqlstate;

/// The most columns that UNPIVOT may list.
const LISTED_MAX: usize = 1_000;

/// The name of the rows that UNPIVOT makes of one row.
const PARTS: &str = "unpivoted columns";

/// The name of the input, if it has none.
const INPUT: &str = "unpivoted rows";

/// An UNPIVOT clause.
pub(super) struct Unpivot {
    /// The column of the names.
    pub(super) label: String,
    /// The columns of the values.
    pub(super) values: Vec<String>,
    /// The columns of the input that become rows.
    pub(super) listed: Vec<ExprWithAlias>,
    /// True if rows without a value stay.
    pub(super) has_nulls: bool,
}

impl Unpivot {
    /// Builds the query over this input.
    pub(super) fn rows(&self, input: Input) -> Result<Rows> {
        if self.listed.len() > LISTED_MAX {
            return Err(Error::invalid(format!(
                "UNPIVOT lists {} columns, but at most {LISTED_MAX} are allowed",
                self.listed.len()
            ))
            .code(sqlstate::STATEMENT_TOO_COMPLEX));
        }
        let count = Expr::value(Value::Number(self.listed.len().to_string(), false));
        let mut arguments = vec![count];
        let mut used = HashSet::new();
        for part in &self.listed {
            let columns = self.columns_of(&part.expr, &input)?;
            let label = part.alias.as_ref().map_or_else(|| columns.join("_"), folded);
            arguments.push(text(&label));
            arguments.extend(columns.iter().map(|column| Expr::Identifier(quoted(column))));
            used.extend(columns);
        }
        let mut names: Vec<String> =
            input.columns.iter().filter(|column| !used.contains(*column)).cloned().collect();
        let plain = |name: &String| SelectItem::UnnamedExpr(Expr::Identifier(quoted(name)));
        let mut items: Vec<SelectItem> = names.iter().map(plain).collect();
        let own: Vec<&String> = std::iter::once(&self.label).chain(&self.values).collect();
        let made = |name: &&String| SelectItem::ExprWithAlias { expr: part(name), alias: quoted(name) };
        items.extend(own.iter().map(made));
        names.extend(own.iter().map(|name| (*name).clone()));
        refuse_duplicates("UNPIVOT", &names)?;
        let has_value = self.values.iter().map(|value| Expr::IsNotNull(Box::new(part(value))));
        let has_value = has_value.reduce(|left, right| binary(left, BinaryOperator::Or, right));
        let Expr::Function(stack) = call("stack", arguments) else {
            return Err(Error::bug("a call that is none"));
        };
        let columns: Vec<Ident> = own.iter().map(|name| quoted(name)).collect();
        let query = select(with_name(input.table), items, |select| {
            generators::join(select, "stack", &stack, quoted(PARTS), columns);
            select.selection = has_value.filter(|_| !self.has_nulls);
        })?;
        Ok(Rows { query, names })
    }

    /// Returns the columns of the input that become the values of a row.
    fn columns_of(&self, listed: &Expr, input: &Input) -> Result<Vec<String>> {
        let columns: Vec<String> = match listed {
            Expr::CompoundIdentifier(names) => column_in(names, input).into_iter().collect(),
            other => columns_in(other)?.into_iter().map(folded).collect(),
        };
        if columns.len() != self.values.len() {
            let (values, has) = (self.values.len(), columns.len());
            return Err(Error::invalid(format!(
                "UNPIVOT returns {values} values a row, but {listed} in its IN has {has}"
            )));
        }
        match columns.iter().find(|column| !input.columns.contains(column)) {
            None => Ok(columns),
            Some(missing) => Err(Error::invalid(format!("column \"{missing}\" of UNPIVOT not found"))
                .hint(format!("There is {}.", input.columns.join(", ")))
                .code(sqlstate::UNDEFINED_COLUMN)),
        }
    }
}

/// Returns the names in `x` or `(x, y)`.
pub(super) fn columns_in(expression: &Expr) -> Result<Vec<&Ident>> {
    let parts = match expression {
        Expr::Tuple(parts) => parts.as_slice(),
        Expr::Nested(inner) => std::slice::from_ref(inner.as_ref()),
        single => std::slice::from_ref(single),
    };
    let names = parts.iter().map(|part| match part {
        Expr::Identifier(name) => Ok(name),
        other => Err(Error::invalid(format!("UNPIVOT takes names of columns, not {other}"))
            .hint("Compute it in a subquery in FROM, and name it there.")),
    });
    names.collect()
}

/// Names a subquery that has no name.
fn with_name(mut table: TableFactor) -> TableFactor {
    if let TableFactor::Derived { alias, .. } = &mut table
        && alias.is_none()
    {
        *alias = Some(named(INPUT));
    }
    table
}

/// Builds a column of the rows that UNPIVOT makes of one row.
fn part(name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![quoted(PARTS), quoted(name)])
}

#[cfg(test)]
mod tests {
    use crate::fixture::Tables;

    const SALES: &str = "(SELECT region, quarter, amount FROM sales)";

    fn tables() -> Tables {
        Tables::new()
            .table(
                "sales",
                "(region TEXT, quarter INT, amount INT)",
                "VALUES ('n', 1, 10), ('n', 1, 5), ('n', 2, 7), ('s', 1, 1), ('s', NULL, 2)",
            )
            .table("w", "(id INT, a INT, b INT, c TEXT)", "VALUES (1, 10, NULL, 'x'), (2, 20, 30, NULL)")
    }

    #[test]
    fn columns_become_rows() {
        let tables = tables();
        let all = ["1|x|a|10", "1|x|second|NULL", "2|NULL|a|20", "2|NULL|second|30"];
        let sql = "SELECT * FROM w UNPIVOT (v FOR k IN (a, b AS 'second'))";
        tables.check(sql, &[all[0], all[2], all[3]]);
        let query = tables.planner.query(sql, &tables).unwrap();
        let names: Vec<&str> = query.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["id", "c", "k", "v"]);
        tables.check(
            "SELECT * FROM w UNPIVOT EXCLUDE NULLS (v FOR k IN (a, b AS second))",
            &[all[0], all[2], all[3]],
        );
        tables.check("SELECT * FROM w UNPIVOT INCLUDE NULLS (v FOR k IN (a, w.b AS 'second')) AS u", &all);
        tables.check(
            "SELECT id, k, a FROM w UNPIVOT (a FOR k IN (a, b)) AS u WHERE a > 10",
            &["2|a|20", "2|b|30"],
        );
        tables.check(
            "SELECT id, k, x, y FROM w UNPIVOT ((x, y) FOR k IN ((a, b), (b, a) AS 'back'))",
            &["1|a_b|10|NULL", "1|back|NULL|10", "2|a_b|20|30", "2|back|30|20"],
        );
        tables.check(
            &format!(
                "SELECT * FROM {SALES} PIVOT (sum(amount) FOR quarter IN (1 AS q1, 2 AS q2)) UNPIVOT (total FOR quarter IN (q1, q2)) AS u"
            ),
            &["n|q1|15", "n|q2|7", "s|q1|1"],
        );
        tables.check(
            &format!(
                "WITH p AS (SELECT * FROM {SALES} PIVOT (sum(amount) FOR quarter IN (1, 2)) AS p) SELECT * FROM p UNPIVOT (total FOR quarter IN (\"1\", \"2\"))"
            ),
            &["n|1|15", "n|2|7", "s|1|1"],
        );
    }

    #[test]
    fn wrong_lists_are_explained() {
        let tables = tables();
        let fails = |clause: &str, error: &str| tables.fails(&format!("SELECT * FROM {clause}"), error);
        fails(
            "w UNPIVOT (v FOR k IN (a, z))",
            "column \"z\" of UNPIVOT not found\nHINT: There is id, a, b, c.",
        );
        fails(
            "w UNPIVOT (v FOR k IN (a + 1))",
            "UNPIVOT takes names of columns, not a + 1\nHINT: Compute it in a subquery in FROM, and name it there.",
        );
        fails(
            "w UNPIVOT (id FOR k IN (a, b))",
            "UNPIVOT returns two columns \"id\"\nHINT: Give one of them another name.",
        );
        fails("w UNPIVOT ((x, y) FOR k IN (a))", "UNPIVOT returns 2 values a row, but a in its IN has 1");
    }
}
