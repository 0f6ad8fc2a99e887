//! Arrays that own no more memory than their values need.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, BinaryViewArray, GenericByteViewArray, MutableArrayData, RecordBatch,
    StringViewArray, make_array,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{ByteViewType, DataType};
use arrow::error::ArrowError;

/// The unused memory that an array may hold, besides as much as it needs, before a copy pays off.
const SLACK_BYTES: usize = 4096;

/// Returns the same rows. Copies columns that reference much more memory than they show: three rows of a
/// filter may reference a text buffer of many megabytes.
pub fn compact(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().map(compact_array).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
}

fn compact_array(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(views) = array.as_any().downcast_ref::<StringViewArray>() {
        return compact_views(views, array);
    }
    if let Some(views) = array.as_any().downcast_ref::<BinaryViewArray>() {
        return compact_views(views, array);
    }
    if contains_views(array.data_type()) {
        return compact_children(array);
    }
    let data = array.to_data();
    // Union and run-end encoded arrays can't compute the memory they need; they stay as they are.
    let Ok(needed) = data.get_slice_memory_size() else { return Ok(array.clone()) };
    if data.get_buffer_memory_size() <= 2 * needed + SLACK_BYTES {
        return Ok(array.clone());
    }
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
}

fn compact_views<T: ByteViewType>(
    views: &GenericByteViewArray<T>,
    array: &ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let held: usize = views.data_buffers().iter().map(Buffer::capacity).sum();
    // True also if the values are spread over so many buffers that reads become slow.
    let wastes_values = held > 2 * views.total_buffer_bytes_used() + SLACK_BYTES
        || views.data_buffers().len() > 8 + views.len() / 512;
    let own = views.views();
    let wastes_views = own.inner().capacity() > 2 * size_of_val(&own[..]) + SLACK_BYTES;
    if !wastes_values && !wastes_views {
        return Ok(array.clone());
    }
    let compacted = if wastes_values { views.gc() } else { views.clone() };
    let (own, values, nulls) = compacted.into_parts();
    // A slice without long values keeps all its views, even when its values are gathered.
    let own = ScalarBuffer::from(own.to_vec());
    Ok(Arc::new(GenericByteViewArray::<T>::try_new(own, values, nulls)?))
}

fn contains_views(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => contains_views(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| contains_views(field.data_type())),
        _ => false,
    }
}

fn compact_children(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let data = array.to_data();
    let children = data
        .child_data()
        .iter()
        .map(|child| Ok(compact_array(&make_array(child.clone()))?.to_data()))
        .collect::<Result<Vec<ArrayData>, ArrowError>>()?;
    Ok(make_array(data.into_builder().child_data(children).build()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Field, Schema};

    #[test]
    fn a_slice_of_views_does_not_keep_all_of_them() {
        let all: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..10_000).map(|i| i.to_string())));
        let rows = RecordBatch::try_from_iter([("text", all.slice(5, 3))]).unwrap();
        let small = compact(&rows).unwrap();
        assert!(small.get_array_memory_size() < 2000, "{}", small.get_array_memory_size());
        assert_eq!(small, rows);
    }

    #[test]
    fn a_few_rows_of_a_large_block_let_the_block_go() {
        let text: StringViewArray =
            (0..10_000).map(|n| Some(format!("a line of the text, number {n}"))).collect();
        let numbers = Int64Array::from_iter_values(0..10_000);
        let schema = Arc::new(Schema::new(vec![
            Field::new("t", DataType::Utf8View, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(text), Arc::new(numbers)]).unwrap();
        let few = rows.slice(5000, 3);
        let small = compact(&few).unwrap();
        assert_eq!(small, few);
        assert!(small.get_array_memory_size() < 2000, "{}", small.get_array_memory_size());
        assert_eq!(small.column(0).as_string_view().value(2), "a line of the text, number 5002");
        let whole = compact(&rows).unwrap();
        assert!(Arc::ptr_eq(whole.column(0), rows.column(0)), "nothing is copied where nothing is wasted");
    }

    #[test]
    fn views_inside_lists_are_compacted_too() {
        let mut builder = arrow::array::ListBuilder::new(arrow::array::StringViewBuilder::new());
        for n in 0..5000 {
            builder.values().append_value(format!("a word that is longer than a view, {n}"));
            builder.append(true);
        }
        let lists = builder.finish();
        let field = Field::new("l", lists.data_type().clone(), true);
        let all = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(lists)]).unwrap();
        let few =
            arrow::compute::take_record_batch(&all, &arrow::array::UInt32Array::from(vec![7, 4000])).unwrap();
        let small = compact(&few).unwrap();
        assert_eq!(small, few);
        assert!(small.get_array_memory_size() < 3000, "{}", small.get_array_memory_size());
    }
}
