//! Changes the expressions of a SELECT, also within its subqueries, which may give a name another meaning.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, TableFactor, VisitorMut};

use super::whole_rows::{Columns, column_names};
use crate::ast_walk::{visit_expressions, walk_mut};

/// Changes an expression. The function tells if a subquery around it gives a name another meaning.
pub(super) type Change<'a> = dyn FnMut(&mut Expr, &dyn Fn(&Ident) -> bool) + 'a;

/// Changes all expressions of a SELECT.
pub(super) fn change(select: &mut Select, of_relation: &Columns<'_>, change: &mut Change<'_>) {
    let _ = walk_mut(select, &mut Scopes { of_relation, change, defined: Vec::new() });
}

/// True if an expression refers to columns.
pub(super) fn has_columns(expression: &Expr) -> bool {
    visit_expressions(expression, |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// The visitor.
struct Scopes<'s, 'c> {
    of_relation: &'s Columns<'s>,
    change: &'s mut Change<'c>,
    /// The names that the subqueries around define, from outside to inside. The first one is the SELECT itself.
    defined: Vec<Vec<String>>,
}

impl VisitorMut for Scopes<'_, '_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let names = match self.defined.is_empty() {
            true => Vec::new(),
            false => factors(select).flat_map(|factor| defined(factor, self.of_relation)).collect(),
        };
        self.defined.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.defined.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<()> {
        let defined = &self.defined;
        let hides = |name: &Ident| {
            let name = folded(name);
            defined.iter().any(|names| names.contains(&name))
        };
        (self.change)(expression, &hides);
        ControlFlow::Continue(())
    }
}

/// Returns the relations of FROM.
pub(super) fn factors(select: &Select) -> impl Iterator<Item = &TableFactor> {
    select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
}

/// Returns the names that a relation of FROM defines: its own, and those of its columns.
fn defined(factor: &TableFactor, of_relation: &Columns<'_>) -> Vec<String> {
    let mut names = column_names(factor, of_relation).unwrap_or_default();
    names.extend(own_name(factor));
    names
}

/// Returns the name of a relation of FROM.
pub(super) fn own_name(factor: &TableFactor) -> Option<String> {
    let (name, alias) = match factor {
        TableFactor::Table { name, alias, .. } | TableFactor::Function { name, alias, .. } => {
            (name.0.last().and_then(|part| part.as_ident()), alias)
        }
        TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => (None, alias),
        _ => return None,
    };
    alias.as_ref().map(|alias| folded(&alias.name)).or_else(|| name.map(folded))
}

/// Returns a name as it is looked up.
pub(super) fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}
