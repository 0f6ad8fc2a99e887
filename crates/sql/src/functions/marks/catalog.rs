//! The functions over marked values whose calls need no types of arguments, by name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::enums;
use super::function::MarkedFunction;
use crate::functions::{Registry, bits, geometry, json, network, ranges, text_search, xml};

/// Lists functions.
type List = fn(&mut dyn FnMut(MarkedFunction));

static LISTS: [List; 7] = [
    json::list,
    network::list,
    ranges::list,
    text_search::list,
    geometry::list,
    bits::list,
    xml::postgres::list,
];

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
pub(in crate::functions) fn register(registry: &mut Registry<'_>) {
    FUNCTIONS.values().for_each(|function| registry.add(function.as_ref().clone()));
    enums::register(registry);
}

/// Returns a function of this list.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    FUNCTIONS.get(name).cloned().or_else(|| enums::function(name))
}

/// True for a function of this list, and false for another one of the same name.
pub(crate) fn is_listed(function: &ScalarUDF) -> bool {
    function.inner().is::<MarkedFunction>()
}

/// Builds a call of a function of this list; none if it has no such name.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Option<Expr> {
    Some(Expr::ScalarFunction(ScalarFunction { func: function(name)?, args }))
}
