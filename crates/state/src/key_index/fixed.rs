//! Keys of fixed-width columns, packed into a few words.

use std::hash::Hasher;
use std::ops::Range;

use arrow::array::{Array, ArrayData, ArrayRef, BooleanArray, BooleanBuilder, make_array};
use arrow::buffer::{MutableBuffer, NullBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use arrow::error::ArrowError;
use millstream_delta::{canonical_f16, canonical_f32, canonical_f64};

use super::slots::Slots;
use super::table::SlotTable;
use super::{Found, NO_SLOT, WINDOW_ROWS, hasher};
use crate::{Paged, Result, Spillable, Spilling};

/// The location of a column in a key.
#[derive(Clone, Debug)]
struct Place {
    data_type: DataType,
    width: usize,
    word: usize,
    shift: u32,
}

/// The locations of the columns in a key, and of its NULL bits.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    places: Vec<Place>,
    /// The word and the first bit of the NULL bits, one per column. `None` for a single column, whose NULL
    /// has a slot of its own.
    mask: Option<(usize, u32)>,
    pub(super) words: usize,
}

/// Returns the size in bytes of values of this type; `None` if it varies, or if the type must be encoded.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::Null | DataType::FixedSizeBinary(_) => None,
        _ => data_type.primitive_width(),
    }
}

impl Layout {
    /// Returns the layout of keys of these types; `None` if not all are of fixed width, or if they are too
    /// large.
    pub(super) fn of(types: &[DataType]) -> Option<Layout> {
        let widths = types.iter().map(width).collect::<Option<Vec<_>>>()?;
        // In descending order of width, no value crosses a word boundary.
        let mut order: Vec<usize> = (0..types.len()).collect();
        order.sort_by_key(|column| std::cmp::Reverse(widths[*column]));
        let mut places = vec![None; types.len()];
        let mut bytes = 0;
        for column in order {
            let (word, shift) = (bytes / 8, (bytes % 8 * 8) as u32);
            places[column] =
                Some(Place { data_type: types[column].clone(), width: widths[column], word, shift });
            bytes += widths[column];
        }
        let places = places.into_iter().collect::<Option<Vec<_>>>()?;
        let mut mask = None;
        if types.len() > 1 {
            let mask_bytes = types.len().div_ceil(8);
            if bytes % 8 + mask_bytes > 8 {
                bytes = bytes.next_multiple_of(8);
            }
            mask = Some((bytes / 8, (bytes % 8 * 8) as u32));
            bytes += mask_bytes;
        }
        let words = (1..=4).find(|words| bytes <= *words * 8)?;
        (types.len() <= 32).then_some(Layout { places, mask, words })
    }

    /// Packs some rows; `keys` has one key per row of `range`.
    fn pack<const N: usize>(&self, columns: &[ArrayData], range: Range<usize>, keys: &mut [[u64; N]]) {
        keys.fill([0; N]);
        for (number, (place, data)) in self.places.iter().zip(columns).enumerate() {
            let mark = self.mask.map(|(word, first)| (word, 1u64 << (first + number as u32)));
            let nulls = data.nulls().filter(|nulls| nulls.null_count() > 0);
            let nulls = nulls.map(|nulls| nulls.slice(range.start, range.len()));
            let mut filling = Filling { keys, place, mark, nulls };
            let rows = range.clone();
            match (&place.data_type, place.width) {
                (DataType::Boolean, _) => {
                    let bits = BooleanArray::from(data.clone());
                    filling.words(rows.map(|row| u64::from(bits.value(row))));
                }
                (DataType::Float16, _) => {
                    filling.words(of::<u16>(data, rows).map(|v| canonical_f16(*v).into()))
                }
                (DataType::Float32, _) => {
                    filling.words(of::<f32>(data, rows).map(|v| canonical_f32(*v).into()))
                }
                (DataType::Float64, _) => filling.words(of::<f64>(data, rows).map(|v| canonical_f64(*v))),
                (_, 1) => filling.words(of::<u8>(data, rows).map(|v| u64::from(*v))),
                (_, 2) => filling.words(of::<u16>(data, rows).map(|v| u64::from(*v))),
                (_, 4) => filling.words(of::<u32>(data, rows).map(|v| u64::from(*v))),
                (_, 8) => filling.words(of::<u64>(data, rows).copied()),
                (_, wide) => {
                    let (words, each) = (data.buffers()[0].typed_data::<u64>(), wide / 8);
                    let at = (data.offset() + rows.start) * each;
                    filling.wide(words[at..at + rows.len() * each].chunks_exact(each));
                }
            }
        }
    }

    /// Unpacks the columns of these keys. `null` marks the NULL keys if there is one column.
    fn unpack<const N: usize>(&self, keys: &[[u64; N]], null: Option<NullBuffer>) -> Result<Vec<ArrayRef>> {
        let columns = self.places.iter().enumerate().map(|(number, place)| {
            let nulls = match self.mask {
                None => null.clone(),
                Some((word, first)) => {
                    let valid =
                        keys.iter().map(|key| key[word] & (1 << (first + number as u32)) == 0).collect();
                    Some(valid).filter(|nulls: &NullBuffer| nulls.null_count() > 0)
                }
            };
            place.array(keys, nulls)
        });
        Ok(columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?)
    }
}

impl Place {
    fn array<const N: usize>(
        &self,
        keys: &[[u64; N]],
        nulls: Option<NullBuffer>,
    ) -> std::result::Result<ArrayRef, ArrowError> {
        if self.data_type == DataType::Boolean {
            let mut values = BooleanBuilder::with_capacity(keys.len());
            keys.iter().for_each(|key| values.append_value((key[self.word] >> self.shift) & 1 == 1));
            let data = values.finish().into_data().into_builder().nulls(nulls).build()?;
            return Ok(make_array(data));
        }
        let mut buffer = MutableBuffer::with_capacity(keys.len() * self.width);
        let word = |key: &[u64; N]| key[self.word] >> self.shift;
        match self.width {
            1 => keys.iter().for_each(|key| buffer.push(word(key) as u8)),
            2 => keys.iter().for_each(|key| buffer.push(word(key) as u16)),
            4 => keys.iter().for_each(|key| buffer.push(word(key) as u32)),
            8 => keys.iter().for_each(|key| buffer.push(word(key))),
            wide => {
                keys.iter().for_each(|key| buffer.extend_from_slice(&key[self.word..self.word + wide / 8]))
            }
        }
        let data =
            ArrayData::builder(self.data_type.clone()).len(keys.len()).add_buffer(buffer.into()).nulls(nulls);
        Ok(make_array(data.build()?))
    }
}

/// Returns the values of some rows.
fn of<T: ArrowNativeType>(data: &ArrayData, rows: Range<usize>) -> std::slice::Iter<'_, T> {
    data.buffer::<T>(0)[rows].iter()
}

/// Writes a column into keys.
struct Filling<'a, const N: usize> {
    keys: &'a mut [[u64; N]],
    place: &'a Place,
    /// The word and the bit that mark a NULL of the column.
    mark: Option<(usize, u64)>,
    nulls: Option<NullBuffer>,
}

impl<const N: usize> Filling<'_, N> {
    /// Writes values that lie within a word.
    #[inline(always)]
    fn words(&mut self, values: impl Iterator<Item = u64>) {
        let Place { word, shift, .. } = *self.place;
        match &self.nulls {
            None => self.keys.iter_mut().zip(values).for_each(|(key, value)| key[word] |= value << shift),
            Some(nulls) => {
                for ((key, value), valid) in self.keys.iter_mut().zip(values).zip(nulls) {
                    if valid {
                        key[word] |= value << shift;
                    }
                }
            }
        }
        self.mark_nulls();
    }

    /// Writes values of several words.
    fn wide<'a>(&mut self, values: impl Iterator<Item = &'a [u64]>) {
        let word = self.place.word;
        for (row, (key, value)) in self.keys.iter_mut().zip(values).enumerate() {
            if self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                key[word..word + value.len()].copy_from_slice(value);
            }
        }
        self.mark_nulls();
    }

    fn mark_nulls(&mut self) {
        if let (Some(nulls), Some((word, bit))) = (&self.nulls, self.mark) {
            let null = self.keys.iter_mut().zip(nulls).filter(|(_, valid)| !valid);
            null.for_each(|(key, _)| key[word] |= bit);
        }
    }
}

/// Keys of `N` words.
#[derive(Clone, Debug)]
pub(super) struct FixedKeys<const N: usize> {
    layout: Layout,
    table: SlotTable,
    by_slot: Paged<[u64; N]>,
    null_slot: Option<u32>,
    slots: Slots,
}

/// The keys of some rows and their hashes.
struct Window<const N: usize> {
    keys: Vec<[u64; N]>,
    hashes: Vec<u32>,
}

impl<const N: usize> FixedKeys<N> {
    pub(super) fn new(layout: Layout) -> FixedKeys<N> {
        FixedKeys {
            layout,
            table: SlotTable::default(),
            by_slot: Paged::default(),
            null_slot: None,
            slots: Slots::default(),
        }
    }

    /// Returns the keys by slot, which can't be looked up. They read the same memory.
    pub(super) fn share(&self) -> FixedKeys<N> {
        FixedKeys {
            layout: self.layout.clone(),
            table: SlotTable::default(),
            by_slot: self.by_slot.share(),
            null_slot: self.null_slot,
            slots: self.slots.clone(),
        }
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    fn hash(key: &[u64; N]) -> u32 {
        let mut hasher = hasher();
        key.iter().for_each(|word| hasher.write_u64(*word));
        hasher.finish() as u32
    }

    fn window(&self, data: &[ArrayData], range: Range<usize>, window: &mut Window<N>) {
        window.keys.resize(range.len(), [0; N]);
        self.layout.pack(data, range, &mut window.keys);
        window.hashes.clear();
        window.hashes.extend(window.keys.iter().map(Self::hash));
    }

    /// Returns the NULL rows, if the NULL bits are not part of the key.
    fn nulls<'a>(&self, columns: &'a [ArrayRef]) -> Option<&'a NullBuffer> {
        columns[0].nulls().filter(|nulls| self.layout.mask.is_none() && nulls.null_count() > 0)
    }

    /// Returns the slot of a key, if the slot found first by its hash is another key's.
    fn slot_of(&self, key: &[u64; N], hash: u32) -> Option<u32> {
        self.table.find(hash, |slot| self.by_slot[slot as usize] == *key)
    }

    pub(super) fn insert(&mut self, columns: &[ArrayRef], found: &mut Found) -> Result<()> {
        let data: Vec<ArrayData> = columns.iter().map(|column| column.to_data()).collect();
        let (rows, nulls) = (columns[0].len(), self.nulls(columns));
        let mut window = Window { keys: Vec::new(), hashes: Vec::new() };
        for start in (0..rows).step_by(WINDOW_ROWS.get()) {
            let range = start..rows.min(start + WINDOW_ROWS.get());
            self.window(&data, range.clone(), &mut window);
            let first = found.slots.len();
            found.slots.resize(first + range.len(), NO_SLOT);
            self.table.first(&window.hashes, &mut found.slots[first..]);
            for (row, (key, hash)) in range.zip(window.keys.iter().zip(&window.hashes)) {
                let slot = &mut found.slots[first + row - start];
                if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                    *slot = self.insert_null(&mut found.new);
                } else if *slot == NO_SLOT || self.by_slot[*slot as usize] != *key {
                    *slot = self.insert_one(key, *hash, &mut found.new);
                }
            }
        }
        self.slots.check()
    }

    fn insert_null(&mut self, new: &mut Vec<u32>) -> u32 {
        *self.null_slot.get_or_insert_with(|| {
            let slot = self.slots.take();
            new.push(slot);
            slot
        })
    }

    #[inline(never)]
    fn insert_one(&mut self, key: &[u64; N], hash: u32, new: &mut Vec<u32>) -> u32 {
        // An earlier row of the batch may have inserted the same key.
        if let Some(slot) = self.slot_of(key, hash) {
            return slot;
        }
        let slot = self.slots.take();
        new.push(slot);
        self.table.insert(hash, slot);
        if slot as usize >= self.by_slot.len() {
            self.by_slot.resize(slot as usize + 1, [0; N]);
        }
        self.by_slot[slot as usize] = *key;
        slot
    }

    pub(super) fn find(&self, columns: &[ArrayRef], out: &mut Vec<u32>) {
        let data: Vec<ArrayData> = columns.iter().map(|column| column.to_data()).collect();
        let (rows, nulls) = (columns[0].len(), self.nulls(columns));
        let mut window = Window { keys: Vec::new(), hashes: Vec::new() };
        for start in (0..rows).step_by(WINDOW_ROWS.get()) {
            let range = start..rows.min(start + WINDOW_ROWS.get());
            self.window(&data, range.clone(), &mut window);
            let first = out.len();
            out.resize(first + range.len(), NO_SLOT);
            self.table.first(&window.hashes, &mut out[first..]);
            for (row, (key, hash)) in range.zip(window.keys.iter().zip(&window.hashes)) {
                let slot = &mut out[first + row - start];
                if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                    *slot = self.null_slot.unwrap_or(NO_SLOT);
                } else if *slot != NO_SLOT && self.by_slot[*slot as usize] != *key {
                    *slot = self.slot_of(key, *hash).unwrap_or(NO_SLOT);
                }
            }
        }
    }

    pub(super) fn free(&mut self, slot: u32) {
        if self.null_slot == Some(slot) {
            self.null_slot = None;
        } else {
            self.table.remove(Self::hash(&self.by_slot[slot as usize]), slot);
        }
        self.slots.put(slot);
    }

    pub(super) fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let end = self.by_slot.len();
        let key = |slot: &u32| if (*slot as usize) < end { self.by_slot[*slot as usize] } else { [0; N] };
        let keys: Vec<[u64; N]> = slots.iter().map(key).collect();
        let null = self.null_slot.filter(|_| self.layout.mask.is_none());
        let nulls = null.map(|null| slots.iter().map(|slot| *slot != null).collect::<NullBuffer>());
        self.layout.unpack(&keys, nulls.filter(|nulls| nulls.null_count() > 0))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.by_slot.memory_bytes() + self.slots.memory_bytes()
    }
}

impl<const N: usize> Spillable for FixedKeys<N> {
    fn spill(&mut self, spilling: &mut Spilling<'_>) {
        self.table.spill(spilling);
        self.by_slot.spill(spilling);
    }

    fn spilled_bytes(&self) -> usize {
        self.table.spilled_bytes() + self.by_slot.spilled_bytes()
    }
}
