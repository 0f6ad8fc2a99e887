//! The functions of JSON whose calls need no types of arguments, by name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::function::JsonFunction;
use super::{access, change, objects, path, sets, variant};
use crate::functions::Registry;

/// Lists the functions of a file.
type List = fn(&mut dyn FnMut(JsonFunction));

static LISTS: [List; 6] = [access::list, change::list, objects::list, path::list, sets::list, variant::list];

static FUNCTIONS: LazyLock<HashMap<&'static str, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut all = HashMap::new();
    for list in LISTS {
        list(&mut |function| {
            all.insert(function.name, Arc::new(function.udf()));
        });
    }
    all
});

/// Registers the functions.
pub(super) fn register(registry: &mut Registry<'_>) {
    FUNCTIONS.values().for_each(|function| registry.add(function.as_ref().clone()));
}

/// Builds a call of a function of this list; none if it has no such name.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Option<Expr> {
    let func = Arc::clone(FUNCTIONS.get(name)?);
    Some(Expr::ScalarFunction(ScalarFunction { func, args }))
}
