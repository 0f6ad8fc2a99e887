//! The file layout of columns: buffer by buffer as in memory, each aligned to 64 bytes.
//!
//! Only the original batch gives the bytes a meaning, so nothing else can read them, and every type is
//! restored exactly.

use arrow::array::{ArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::error::ArrowError;
use bytes::Bytes;

/// The alignment that kernels expect for values of any type; Arrow's own files use it, too.
const ALIGNMENT: usize = 64;

/// Returns the bytes of some batches.
pub(super) fn lay_out(batches: &[&RecordBatch]) -> Vec<u8> {
    let columns = || batches.iter().flat_map(|batch| batch.columns());
    let mut size = 0;
    columns().for_each(|column| each_buffer(&column.to_data(), &mut |buffer| size += padded(buffer.len())));
    // An empty file can't be mapped.
    let mut bytes = Vec::with_capacity(size.max(ALIGNMENT));
    columns().for_each(|column| {
        each_buffer(&column.to_data(), &mut |buffer| {
            bytes.extend_from_slice(buffer);
            bytes.resize(padded(bytes.len()), 0);
        });
    });
    bytes.resize(bytes.len().max(ALIGNMENT), 0);
    bytes
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

/// Calls `show` with all buffers of an array, in the order in which [`Reader`] takes them.
fn each_buffer(data: &ArrayData, show: &mut dyn FnMut(&[u8])) {
    data.buffers().iter().for_each(|buffer| show(buffer));
    if let Some(nulls) = data.nulls() {
        show(nulls.buffer());
    }
    data.child_data().iter().for_each(|child| each_buffer(child, show));
}

/// Reads batches from such bytes, one after another.
pub(super) struct Reader {
    bytes: Bytes,
    position: usize,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Reader {
        Reader { bytes, position: 0 }
    }

    /// Returns the number of bytes read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Reads the next batch; `like` is the original, whose columns it replaces.
    pub(super) fn batch(&mut self, like: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = like.columns().iter().map(|column| Ok(make_array(self.array(&column.to_data())?)));
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(like.num_rows()));
        RecordBatch::try_new_with_options(like.schema(), columns, &options)
    }

    fn array(&mut self, like: &ArrayData) -> Result<ArrayData, ArrowError> {
        let buffers = like.buffers().iter().map(|buffer| self.buffer(buffer.len())).collect();
        let nulls = like.nulls().map(|nulls| {
            let bits = self.buffer(nulls.buffer().len());
            NullBuffer::new(BooleanBuffer::new(bits, nulls.offset(), nulls.len()))
        });
        let children = like.child_data().iter().map(|child| self.array(child)).collect::<Result<_, _>>()?;
        like.clone().into_builder().buffers(buffers).nulls(nulls).child_data(children).build()
    }

    fn buffer(&mut self, len: usize) -> Buffer {
        let buffer = self.bytes.slice(self.position..self.position + len);
        self.position += padded(len);
        // An empty slice has no meaningful address.
        if buffer.is_empty() { Buffer::default() } else { Buffer::from(buffer) }
    }
}
