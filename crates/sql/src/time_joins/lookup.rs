//! Lookup joins, `FOR SYSTEM_TIME AS OF PROCTIME()`: each row of the left side looks up the right side on
//! arrival.
//!
//! A batch query plans it as an ordinary join, with a function in the condition that always returns true. The
//! function tells a continuous query that later changes of the right side must not change earlier results. It
//! takes a column of each side, so no rule of the optimizer moves it out of the join.

use std::sync::{Arc, LazyLock};

use arrow::array::BooleanArray;
use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, ScalarUDF};

use crate::error::Error;
use crate::functions::scalar::{Kernel, Scalar, Typed};

/// The name of the function, which is in no registry.
pub const LOOKED_UP: &str = "looked_up";

/// The function.
pub(crate) fn looked_up() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let typed: Typed = |_| Ok(DataType::Boolean);
        let kernel: Kernel = |columns| {
            let rows = columns.first().map_or(0, |column| column.len());
            Ok(Arc::new(BooleanArray::from(vec![true; rows])))
        };
        Arc::new(Scalar::any(LOOKED_UP, typed, kernel))
    });
    Arc::clone(&FUNCTION)
}

/// Plans the join of two sides by these conditions.
pub(super) fn plan(
    left: LogicalPlan,
    right: LogicalPlan,
    keeps_left: bool,
    mut on: Vec<Expr>,
) -> PlanResult<LogicalPlan> {
    let mut columns = Vec::with_capacity(2);
    for side in [&left, &right] {
        if side.schema().fields().is_empty() {
            return Err(
                Error::unsupported("FOR SYSTEM_TIME AS OF PROCTIME() with a side without columns").into()
            );
        }
        columns.push(Expr::Column(Column::from(side.schema().qualified_field(0))));
    }
    on.push(looked_up().call(columns));
    let kind = if keeps_left { JoinType::Left } else { JoinType::Inner };
    LogicalPlanBuilder::from(left).join_on(right, kind, on)?.build()
}

/// True if a condition contains the function.
pub(crate) fn is_in(condition: Option<&Expr>) -> bool {
    let found = |condition: &Expr| {
        condition
            .exists(|expr| Ok(matches!(expr, Expr::ScalarFunction(call) if call.func.name() == LOOKED_UP)))
    };
    condition.is_some_and(|condition| found(condition).unwrap_or(false))
}
