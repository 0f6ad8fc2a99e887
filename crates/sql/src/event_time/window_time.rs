//! Flink's column `window_time` of windows: the last millisecond of the window.
//!
//! TUMBLE, HOP, CUMULATE and SESSION have no such column. In a SELECT from one of them, the name stands for
//! `window_end - INTERVAL '1 millisecond'`, which closes with the window.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, SelectItem, TableFactor, TableWithJoins};

use super::foreign_syntax::{parsed, visit_all};
use super::{Kind, WINDOW_END, kind};
use crate::ast_walk::visit_expressions_mut;
use crate::error::Result;
use crate::hidden_columns::fold;

const WINDOW_TIME: &str = "window_time";

/// Rewrites the column in a SELECT and its sort keys.
pub(super) fn rewrite(select: &mut Select, ordered: &mut [&mut Expr]) -> Result<()> {
    let mut windows = Vec::new();
    for from in &select.from {
        windows_of(from, &mut windows);
    }
    if windows.is_empty() {
        return Ok(());
    }
    let means = |expr: &Expr| means_time(expr, &windows);
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && means(expr).is_some()
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(WINDOW_TIME) };
        }
    }
    let replace = |expr: &mut Expr| -> Result<()> {
        if let Some(end) = means(expr) {
            *expr = parsed(&format!("({end} - INTERVAL '1 millisecond')"))?;
        }
        Ok(())
    };
    if let Some(condition) = &mut select.selection {
        let replaced = visit_expressions_mut(condition, |expr| match replace(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
        if let ControlFlow::Break(error) = replaced {
            return Err(error);
        }
    }
    visit_all(select, ordered, replace)
}

/// Adds the windows of a FROM item: the names by which each can be qualified, if it has one.
fn windows_of(from: &TableWithJoins, windows: &mut Vec<Option<String>>) {
    let factors = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
    for factor in factors {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => windows_of(table_with_joins, windows),
            TableFactor::Table { name, alias, args: Some(_), .. }
                if kind(name).is_some_and(|kind| kind != Kind::GapFill) =>
            {
                windows.push(alias.as_ref().map(|alias| fold(&alias.name)));
            }
            _ => {}
        }
    }
}

/// Returns the end of the window whose time an expression means.
fn means_time(expr: &Expr, windows: &[Option<String>]) -> Option<String> {
    match expr {
        Expr::Identifier(name) if fold(name) == WINDOW_TIME => Some(format!("\"{WINDOW_END}\"")),
        Expr::CompoundIdentifier(names) => match &names[..] {
            [of, name] if fold(name) == WINDOW_TIME && windows.contains(&Some(fold(of))) => {
                Some(format!("{of}.\"{WINDOW_END}\""))
            }
            _ => None,
        },
        _ => None,
    }
}
