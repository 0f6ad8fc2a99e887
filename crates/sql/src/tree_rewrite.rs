//! Rewrites of plans and expressions that are compiled once.
//!
//! DataFusion's functions are generic over the closure: each use compiles the whole walk again, some 30 KiB of code. Here
//! they take the closure as a reference to a trait object.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Rewrites each node of a tree; a plan's with those of its subqueries.
pub(crate) trait TreeRewrite: Sized {
    /// Rewrites children before their parents.
    fn rewrite_up(self, f: impl FnMut(Self) -> Result<Transformed<Self>>) -> Result<Transformed<Self>>;

    /// Rewrites parents before their children.
    fn rewrite_down(self, f: impl FnMut(Self) -> Result<Transformed<Self>>) -> Result<Transformed<Self>>;
}

type Rewriter<'a, T> = &'a mut dyn FnMut(T) -> Result<Transformed<T>>;

impl TreeRewrite for Expr {
    fn rewrite_up(self, mut f: impl FnMut(Expr) -> Result<Transformed<Expr>>) -> Result<Transformed<Expr>> {
        self.transform_up(&mut f as Rewriter<'_, Expr>)
    }

    fn rewrite_down(self, mut f: impl FnMut(Expr) -> Result<Transformed<Expr>>) -> Result<Transformed<Expr>> {
        self.transform_down(&mut f as Rewriter<'_, Expr>)
    }
}

impl TreeRewrite for LogicalPlan {
    fn rewrite_up(
        self,
        mut f: impl FnMut(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
    ) -> Result<Transformed<LogicalPlan>> {
        self.transform_up_with_subqueries(&mut f as Rewriter<'_, LogicalPlan>)
    }

    fn rewrite_down(
        self,
        mut f: impl FnMut(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
    ) -> Result<Transformed<LogicalPlan>> {
        self.transform_down_with_subqueries(&mut f as Rewriter<'_, LogicalPlan>)
    }
}

/// Rewrites the expressions of one node.
pub(crate) trait ExpressionsRewrite {
    /// Rewrites each of the node's expressions as a whole.
    fn rewrite_expressions(
        self,
        f: impl FnMut(Expr) -> Result<Transformed<Expr>>,
    ) -> Result<Transformed<LogicalPlan>>;
}

impl ExpressionsRewrite for LogicalPlan {
    fn rewrite_expressions(
        self,
        mut f: impl FnMut(Expr) -> Result<Transformed<Expr>>,
    ) -> Result<Transformed<LogicalPlan>> {
        self.map_expressions(&mut f as Rewriter<'_, Expr>)
    }
}
