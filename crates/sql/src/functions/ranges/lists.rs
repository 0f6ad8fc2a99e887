//! Functions between multiranges and arrays of ranges: those of `range_agg`, `range_intersect_agg` and `unnest`.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringViewBuilder};
use arrow::datatypes::{DataType, Field};

use super::set::Set;
use super::{SET, set};
use crate::error::Result;
use crate::functions::marks::Mark;
use crate::functions::marks::function::{Arguments, Kernel, MarkedFunction, Param, Returns};

pub(super) fn list(add: &mut dyn FnMut(MarkedFunction)) {
    let list = &[Param::Keys];
    add(MarkedFunction::new("range_agg_of", list, Returns::Of(Mark::multirange), Kernel::Text(union)));
    add(MarkedFunction::new("range_intersect_agg_of", list, Returns::Of(Some), Kernel::Text(intersection)));
    let ranges = Returns::ListOf(Mark::range);
    add(MarkedFunction::new("multirange_elements", &[SET], ranges, Kernel::Column(elements)));
}

/// Returns the elements of an array that aren't NULL.
fn texts(all: &Arguments, row: usize) -> Result<Vec<String>> {
    Ok(all.keys(0, row)?.unwrap_or_default().into_iter().flatten().collect())
}

fn union(all: &Arguments, row: usize) -> Result<Option<String>> {
    let texts = texts(all, row)?;
    let mut ranges = Vec::new();
    for text in &texts {
        ranges.extend(Set::of_canonical(text)?.ranges);
    }
    Ok((!texts.is_empty()).then(|| Set::of(ranges, true).text()))
}

fn intersection(all: &Arguments, row: usize) -> Result<Option<String>> {
    let texts = texts(all, row)?;
    let mut shared: Option<Set<'_>> = None;
    for text in &texts {
        let next = Set::of_canonical(text)?;
        shared = Some(match shared {
            Some(shared) => shared.intersection(&next),
            None => next,
        });
    }
    Ok(shared.map(|shared| shared.text()))
}

/// Returns the ranges of each multirange.
fn elements(all: &Arguments) -> Result<ArrayRef> {
    let field = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    let mut out = ListBuilder::new(StringViewBuilder::new()).with_field(field);
    for row in 0..all.rows {
        let Some(found) = set(all, 0, row)? else {
            out.append_null();
            continue;
        };
        for range in found.ranges {
            out.values().append_value(Set { ranges: vec![range], is_multirange: false }.text());
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}
