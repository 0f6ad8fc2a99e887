//! Translates GROUP BY, GROUPING SETS, ROLLUP and CUBE to the sets of keys that rows are grouped by.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Aggregate as AggregatePlan, Expr, GroupingSet as Sets};

use super::groups::{Grouping, GroupingSet};
use crate::{Driver, Error, Result};

/// Returns the grouping of `node`; `types` are those of its columns.
pub(super) fn grouping(node: &AggregatePlan, types: &[DataType], driver: &Driver) -> Result<Grouping> {
    let (keys, absent) = keys_of(node);
    let exprs = keys.iter().map(|key| driver.expression(key, &node.input)).collect::<Result<_>>()?;
    let mut sets: Vec<GroupingSet> = Vec::with_capacity(absent.len());
    for absent in absent {
        // The bits above those of the keys distinguish a repeated set from the one before.
        let ordinal = sets.iter().filter(|set| set.absent == absent).count() as u64;
        let data_type =
            types.get(keys.len()).ok_or_else(|| Error::Bug("grouping sets without an id".into()))?;
        let id = id(&absent, ordinal, data_type)?;
        sets.push(GroupingSet { absent, id });
    }
    Ok(Grouping { keys: exprs, sets })
}

/// Returns the keys by which a node groups its rows. If it has several grouping sets, also returns the keys
/// that each set lacks.
pub(crate) fn keys_of(node: &AggregatePlan) -> (Vec<Expr>, Vec<Vec<bool>>) {
    match &node.group_expr[..] {
        [Expr::GroupingSet(sets)] => expanded(sets),
        keys => (keys.to_vec(), Vec::new()),
    }
}

/// Returns all keys, and for each set those that it lacks.
fn expanded(sets: &Sets) -> (Vec<Expr>, Vec<Vec<bool>>) {
    match sets {
        Sets::GroupingSets(sets) => {
            let mut keys: Vec<Expr> = Vec::new();
            for key in sets.iter().flatten() {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
            let absent = sets.iter().map(|set| keys.iter().map(|key| !set.contains(key)).collect()).collect();
            (keys, absent)
        }
        Sets::Rollup(keys) => {
            let count = keys.len();
            (keys.clone(), (0..=count).map(|kept| (0..count).map(|key| key >= kept).collect()).collect())
        }
        Sets::Cube(keys) => {
            let count = keys.len();
            let absent = |set: u64| (0..count).map(|key| set >> (count - 1 - key) & 1 == 1).collect();
            (keys.clone(), (0..1 << count).map(absent).collect())
        }
    }
}

/// Returns DataFusion's grouping id: a bit for each key, set if the key is absent, the last key lowest. The
/// bits above hold the number of the set's occurrence.
fn id(absent: &[bool], ordinal: u64, data_type: &DataType) -> Result<ScalarValue> {
    let bits = absent.iter().fold(0, |bits, absent| bits << 1 | u64::from(*absent));
    let id = ScalarValue::UInt64(Some(bits | ordinal.checked_shl(absent.len() as u32).unwrap_or(0)));
    Ok(id.cast_to(data_type)?)
}
