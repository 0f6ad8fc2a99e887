//! Collects rows, and folds them in order once all are present.
//!
//! Rows are ordered by the call's ORDER BY, then by the arguments, so the result doesn't depend on the
//! input's split.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortColumn, SortOptions, concat, filter, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::super::fold::States;
use super::Machine;

/// The collected rows of all groups.
pub(super) struct OrderedRows {
    machine: Machine,
    fields: Fields,
    /// Options of the sort keys after the arguments.
    options: Vec<SortOptions>,
    distinct: bool,
    chunks: Vec<StructArray>,
    /// The group of each row.
    groups: Vec<usize>,
    count: usize,
}

/// Returns the columns of a row: the arguments and the sort keys.
pub(super) fn fields(inputs: &[DataType], keys: impl IntoIterator<Item = DataType>) -> Fields {
    let types = inputs.iter().cloned().chain(keys);
    types.enumerate().map(|(place, data_type)| Field::new(place.to_string(), data_type, true)).collect()
}

/// Returns the type of a list of such rows.
pub(super) fn list_type(fields: &Fields) -> DataType {
    DataType::List(item(fields))
}

fn item(fields: &Fields) -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), true))
}

/// Returns the rows for which a filter is true.
pub(super) fn filtered(
    values: &[ArrayRef],
    groups: &[usize],
    mask: Option<&BooleanArray>,
) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
    let Some(mask) = mask else { return Ok((values.to_vec(), groups.to_vec())) };
    let passes = |row: usize| mask.is_valid(row) && mask.value(row);
    let kept = groups.iter().enumerate().filter(|(row, _)| passes(*row)).map(|(_, group)| *group);
    let values = values.iter().map(|value| filter(value, mask)).collect::<Result<_, _>>()?;
    Ok((values, kept.collect()))
}

impl OrderedRows {
    pub(super) fn new(
        machine: Machine,
        keys: Vec<DataType>,
        options: Vec<SortOptions>,
        distinct: bool,
    ) -> OrderedRows {
        let fields = fields(&machine.inputs, keys);
        let (chunks, groups) = Default::default();
        OrderedRows { machine, fields, options, distinct, chunks, groups, count: 0 }
    }

    fn push(&mut self, columns: Vec<ArrayRef>, groups: Vec<usize>) -> Result<()> {
        if !groups.is_empty() {
            self.chunks.push(StructArray::try_new(self.fields.clone(), columns, None)?);
            self.groups.extend(groups);
        }
        Ok(())
    }

    /// Takes the rows of the first groups. Also returns the number of those groups.
    fn take(&mut self, emit_to: EmitTo) -> Result<(Vec<ArrayRef>, Vec<usize>, usize)> {
        let chunks = std::mem::take(&mut self.chunks);
        let mut columns = Vec::with_capacity(self.fields.len());
        for (place, field) in self.fields.iter().enumerate() {
            let parts: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.column(place).as_ref()).collect();
            columns.push(match parts.is_empty() {
                true => arrow::array::new_empty_array(field.data_type()),
                false => concat(&parts)?,
            });
        }
        let groups = std::mem::take(&mut self.groups);
        let all = std::mem::take(&mut self.count);
        let count = match emit_to {
            EmitTo::All => return Ok((columns, groups, all)),
            EmitTo::First(count) => count.min(all),
        };
        let stays = BooleanArray::from_iter(groups.iter().map(|group| Some(*group >= count)));
        let (rest, rest_groups) = filtered(&columns, &groups, Some(&stays))?;
        self.push(rest, rest_groups.into_iter().map(|group| group - count).collect())?;
        self.count = all - count;
        let goes = BooleanArray::from_iter(groups.iter().map(|group| Some(*group < count)));
        let (columns, groups) = filtered(&columns, &groups, Some(&goes))?;
        Ok((columns, groups, count))
    }

    /// Returns the rows sorted by group, then by the sort keys.
    fn sorted(&self, columns: &[ArrayRef], groups: &[usize]) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let arguments = self.machine.inputs.len();
        let by_group: ArrayRef =
            Arc::new(UInt32Array::from_iter_values(groups.iter().map(|group| *group as u32)));
        let mut keys = vec![SortColumn { values: by_group, options: None }];
        let ordered = columns[arguments..].iter().zip(&self.options);
        keys.extend(
            ordered.map(|(key, options)| SortColumn { values: key.clone(), options: Some(*options) }),
        );
        // Arrow sorts neither maps nor unions: these stay in their input order.
        let sortable =
            |column: &&ArrayRef| !matches!(column.data_type(), DataType::Map(..) | DataType::Union(..));
        let last = Some(SortOptions { descending: false, nulls_first: false });
        let columns_left = columns[..arguments].iter().filter(sortable);
        keys.extend(columns_left.map(|column| SortColumn { values: column.clone(), options: last }));
        let order = lexsort_to_indices(&keys, None)?;
        let groups = order.values().iter().map(|row| groups[*row as usize]).collect();
        let columns = columns[..arguments].iter().map(|column| take(column, &order, None));
        Ok((columns.collect::<Result<_, _>>()?, groups))
    }

    /// Marks each sorted row that differs from the row before it.
    fn new_rows(columns: &[ArrayRef], groups: &[usize]) -> Result<BooleanArray> {
        let compare = columns
            .iter()
            .map(|column| arrow::array::make_comparator(column, column, SortOptions::default()))
            .collect::<Result<Vec<_>, _>>()?;
        let differs = |row: usize| {
            row == 0
                || groups[row] != groups[row - 1]
                || compare.iter().any(|compare| compare(row, row - 1).is_ne())
        };
        Ok(BooleanArray::from_iter((0..groups.len()).map(|row| Some(differs(row)))))
    }
}

impl GroupsAccumulator for OrderedRows {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.count = self.count.max(count);
        let (values, groups) = filtered(values, groups, filter)?;
        self.push(values, groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (columns, groups, count) = self.take(emit_to)?;
        let (mut columns, mut groups) = self.sorted(&columns, &groups)?;
        if self.distinct {
            let new = OrderedRows::new_rows(&columns, &groups)?;
            (columns, groups) = filtered(&columns, &groups, Some(&new))?;
        }
        let values = self.machine.initial.to_array_of_size(count)?;
        let mut states = States { values, begun: vec![false; count] };
        self.machine.step.fold(&mut states, &columns, &groups)?;
        self.machine.results(states.values)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (columns, groups, count) = self.take(emit_to)?;
        let mut order: Vec<u32> = (0..groups.len() as u32).collect();
        order.sort_by_key(|row| groups[*row as usize]);
        let order = UInt32Array::from(order);
        let columns = columns.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?;
        let rows = match self.fields.is_empty() {
            true => StructArray::new_empty_fields(groups.len(), None),
            false => StructArray::try_new(self.fields.clone(), columns, None)?,
        };
        let mut sizes = vec![0; count];
        groups.iter().for_each(|group| sizes[*group] += 1);
        let offsets = OffsetBuffer::from_lengths(sizes);
        Ok(vec![Arc::new(ListArray::try_new(item(&self.fields), offsets, Arc::new(rows), None)?)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.count = self.count.max(count);
        let lists = values[0].as_list::<i32>();
        let (mut rows, mut of) = (Vec::new(), Vec::new());
        for (list, group) in groups.iter().enumerate().filter(|(list, _)| lists.is_valid(*list)) {
            let range = lists.value_offsets()[list] as u32..lists.value_offsets()[list + 1] as u32;
            of.extend(range.clone().map(|_| *group));
            rows.extend(range);
        }
        let rows = take(lists.values(), &UInt32Array::from(rows), None)?;
        self.push(rows.as_struct().columns().to_vec(), of)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let count = values.first().map_or(0, |value| value.len());
        let keys = self.fields[self.machine.inputs.len()..].iter().map(|field| field.data_type().clone());
        let mut fresh =
            OrderedRows::new(self.machine.clone(), keys.collect(), self.options.clone(), self.distinct);
        fresh.update_batch(values, &(0..count).collect::<Vec<_>>(), filter, count)?;
        fresh.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.get_array_memory_size()).sum();
        chunks + self.groups.capacity() * size_of::<usize>()
    }
}
