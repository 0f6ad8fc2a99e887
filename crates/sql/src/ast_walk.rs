//! Walks of syntax trees.
//!
//! The parser's `visit` is generic: each type of visitor has a copy of the code that walks a whole tree, some 300 KB. These
//! functions share one copy for visitors that end with the same type.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut, Visitor,
    VisitorMut,
};

/// Walks a tree.
#[allow(clippy::disallowed_methods)]
pub(crate) fn walk<B>(tree: &impl Visit, visitor: &mut dyn Visitor<Break = B>) -> ControlFlow<B> {
    tree.visit(&mut Shared(visitor))
}

/// Walks a tree and changes it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn walk_mut<B>(
    tree: &mut impl VisitMut,
    visitor: &mut dyn VisitorMut<Break = B>,
) -> ControlFlow<B> {
    tree.visit(&mut SharedMut(visitor))
}

/// Calls a function for each expression, outer ones first.
pub(crate) fn visit_expressions<B>(
    tree: &impl Visit,
    each: impl FnMut(&Expr) -> ControlFlow<B>,
) -> ControlFlow<B> {
    walk(tree, &mut Each(each))
}

/// Calls a function for each expression, inner ones first.
pub(crate) fn visit_expressions_mut<B>(
    tree: &mut impl VisitMut,
    each: impl FnMut(&mut Expr) -> ControlFlow<B>,
) -> ControlFlow<B> {
    walk_mut(tree, &mut Each(each))
}

struct Each<F>(F);

impl<B, F: FnMut(&Expr) -> ControlFlow<B>> Visitor for Each<F> {
    type Break = B;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<B> {
        (self.0)(expression)
    }
}

impl<B, F: FnMut(&mut Expr) -> ControlFlow<B>> VisitorMut for Each<F> {
    type Break = B;

    fn post_visit_expr(&mut self, expression: &mut Expr) -> ControlFlow<B> {
        (self.0)(expression)
    }
}

struct Shared<'a, B>(&'a mut dyn Visitor<Break = B>);

struct SharedMut<'a, B>(&'a mut dyn VisitorMut<Break = B>);

macro_rules! forward {
    ($($method:ident($node:ty)),*) => {$(
        fn $method(&mut self, node: $node) -> ControlFlow<B> {
            self.0.$method(node)
        }
    )*};
}

impl<B> Visitor for Shared<'_, B> {
    type Break = B;

    forward!(
        pre_visit_query(&Query),
        post_visit_query(&Query),
        pre_visit_select(&Select),
        post_visit_select(&Select),
        pre_visit_relation(&ObjectName),
        post_visit_relation(&ObjectName),
        pre_visit_table_factor(&TableFactor),
        post_visit_table_factor(&TableFactor),
        pre_visit_expr(&Expr),
        post_visit_expr(&Expr),
        pre_visit_statement(&Statement),
        post_visit_statement(&Statement),
        pre_visit_value(&ValueWithSpan),
        post_visit_value(&ValueWithSpan)
    );
}

impl<B> VisitorMut for SharedMut<'_, B> {
    type Break = B;

    forward!(
        pre_visit_query(&mut Query),
        post_visit_query(&mut Query),
        pre_visit_select(&mut Select),
        post_visit_select(&mut Select),
        pre_visit_relation(&mut ObjectName),
        post_visit_relation(&mut ObjectName),
        pre_visit_table_factor(&mut TableFactor),
        post_visit_table_factor(&mut TableFactor),
        pre_visit_expr(&mut Expr),
        post_visit_expr(&mut Expr),
        pre_visit_statement(&mut Statement),
        post_visit_statement(&mut Statement),
        pre_visit_value(&mut ValueWithSpan),
        post_visit_value(&mut ValueWithSpan)
    );
}
