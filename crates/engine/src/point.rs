//! The rows of its relations that a query can need at most, as determined by column values.
//!
//! A filter directly over a scan that compares columns with constants limits the rows to read. A relation
//! that can look up rows by these values returns only those; others return all rows. The filter itself stays
//! in the plan.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, TableScan};
use millstream_flow::{Wanted, keys_wanted};
use millstream_sql::{RelationTable, Result};

use crate::event::Asked;

/// The maximum number of values of one column.
const VALUES_MAX: usize = 1000;

/// The filters over one relation, one for each scan.
#[derive(Default)]
struct Said {
    scans: usize,
    filters: Vec<BTreeMap<usize, Vec<ScalarValue>>>,
}

/// Returns the relations that a plan scans, each once, with the rows that it can need.
pub(crate) fn asked(plan: &LogicalPlan) -> Result<Vec<Asked>> {
    let mut all: BTreeMap<String, Said> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                if let Some(name) = name_of(scan) {
                    if !names.contains(&name) {
                        names.push(name.clone());
                    }
                    all.entry(name).or_default().scans += 1;
                }
            }
            LogicalPlan::Filter(filter) => {
                if let Some(scan) = scan_of(&filter.input)
                    && let Some(name) = name_of(scan)
                {
                    all.entry(name).or_default().filters.push(values(&filter.predicate, scan));
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let wanted = |name: &String| all.get(name).map_or_else(Wanted::new, |said| said.wanted());
    Ok(names.iter().map(|name| Asked { name: name.as_str().into(), wanted: wanted(name) }).collect())
}

/// Returns the key values that find these rows; none if there are too many, or several rows of a composite
/// key.
pub(crate) fn keys_of(rows: &RecordBatch, key: &[usize]) -> Wanted {
    let wanted: Wanted = key.iter().map(|place| (*place, rows.column(*place).clone())).collect();
    let found = rows.num_rows() > 0 && (key.len() == 1 || rows.num_rows() == 1);
    let found = found && keys_wanted(&wanted, key.iter().copied()).is_some_and(|keys| keys.is_ok());
    if found { wanted } else { Wanted::new() }
}

/// Returns how often a plan scans a relation.
pub(crate) fn scans_of(plan: &LogicalPlan, relation: &str) -> Result<usize> {
    let mut scans = 0;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && name_of(scan).is_some_and(|name| name == relation)
        {
            scans += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(scans)
}

/// Returns the scan below, if there are only aliases in between.
fn scan_of(plan: &LogicalPlan) -> Option<&TableScan> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan),
        LogicalPlan::SubqueryAlias(alias) => scan_of(&alias.input),
        _ => None,
    }
}

fn name_of(scan: &TableScan) -> Option<String> {
    let provider = millstream_sql::relation_of(scan)?;
    Some(provider.downcast_ref::<RelationTable>()?.name().to_string())
}

/// Returns, by column, the values for which a condition over a scan can be true.
fn values(predicate: &Expr, scan: &TableScan) -> BTreeMap<usize, Vec<ScalarValue>> {
    let mut all: BTreeMap<usize, Vec<ScalarValue>> = BTreeMap::new();
    for part in split_conjunction(predicate) {
        let Some((column, values)) = equal(part, scan) else { continue };
        let fewer = all.get(&column).is_none_or(|known| values.len() < known.len());
        if fewer && values.len() <= VALUES_MAX {
            all.insert(column, values);
        }
    }
    all
}

/// Returns a column and the values it must have for the expression to be true.
fn equal(expr: &Expr, scan: &TableScan) -> Option<(usize, Vec<ScalarValue>)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (column, value) = match (left.as_ref(), right.as_ref()) {
                (column, Expr::Literal(value, _)) | (Expr::Literal(value, _), column) => (column, value),
                _ => return None,
            };
            fitting(column, std::iter::once(value), scan)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((one, mut values), (other, more)) = (equal(left, scan)?, equal(right, scan)?);
            values.extend(more);
            (one == other && values.len() <= VALUES_MAX).then_some((one, values))
        }
        Expr::InList(list) if !list.negated => {
            let literals = list.list.iter().map(|item| match item {
                Expr::Literal(value, _) => Some(value),
                _ => None,
            });
            let literals: Vec<&ScalarValue> = literals.collect::<Option<_>>()?;
            fitting(&list.expr, literals.into_iter(), scan)
        }
        _ => None,
    }
}

/// Converts values to the type of a column, which may be widened by a cast. Drops values that the column
/// can't have; NULL equals nothing.
fn fitting<'a>(
    column: &Expr,
    values: impl Iterator<Item = &'a ScalarValue>,
    scan: &TableScan,
) -> Option<(usize, Vec<ScalarValue>)> {
    let (column, widened) = match column {
        Expr::Column(column) => (column, None),
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Column(column) => (column, Some(cast.field.data_type())),
            _ => return None,
        },
        _ => return None,
    };
    let schema = scan.source.schema();
    let place = schema.index_of(&column.name).ok()?;
    let own = schema.field(place).data_type();
    if widened.is_some_and(|widened| !widens(own, widened)) {
        return None;
    }
    let mut all = Vec::new();
    for value in values.filter(|value| !value.is_null()) {
        match value.data_type() {
            same if same == *own => all.push(value.clone()),
            text if is_text(&text) && is_text(own) => all.push(value.cast_to(own).ok()?),
            // A number outside the column's type equals none of its values.
            number if number.is_integer() && own.is_integer() => all.extend(value.cast_to(own).ok()),
            _ => return None,
        }
    }
    Some((place, all))
}

/// Returns true if every value of a type has the same value in the other type.
fn widens(from: &DataType, to: &DataType) -> bool {
    let wider = || from.primitive_width() < to.primitive_width();
    from == to
        || (is_text(from) && is_text(to))
        || (from.is_signed_integer() && to.is_signed_integer() && wider())
        || (from.is_unsigned_integer() && to.is_integer() && wider())
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

impl Said {
    /// Returns the rows that all scans need together: values of columns that every filter has.
    fn wanted(&self) -> Wanted {
        let Some((first, others)) = self.filters.split_first() else { return Wanted::new() };
        if self.filters.len() < self.scans {
            return Wanted::new();
        }
        let columns = first.iter().filter_map(|(column, values)| {
            let mut values = values.clone();
            for other in others {
                values.extend(other.get(column)?.iter().cloned());
            }
            let data_type = values.first()?.data_type();
            if !values.iter().all(|value| value.data_type() == data_type) {
                return None;
            }
            Some((*column, ScalarValue::iter_to_array(values).ok()?))
        });
        columns.collect()
    }
}
