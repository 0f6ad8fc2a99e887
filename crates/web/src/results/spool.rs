//! The rows of a result: the first ones in memory, then all in a file, in blocks that can be read alone.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_server::TextRows;

use crate::results::BYTES_MAX;

/// Rows of a block. A part of a result is read in whole blocks.
const BLOCK_ROWS: usize = 8192;

/// Bytes of a block, about.
const BLOCK_BYTES: usize = 4 << 20;

/// Bytes of a result that stay in memory.
const MEMORY_BYTES: usize = 1 << 20;

/// The place of a block in the file.
#[derive(Clone, Copy, Debug)]
struct Block {
    offset: u64,
    bytes: usize,
    /// The number of rows before it.
    first: usize,
}

/// The rows of a result.
pub(crate) struct Spool {
    schema: SchemaRef,
    texts: TextRows,
    /// Rows that are not in the file.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    file: Option<Mutex<File>>,
    blocks: Vec<Block>,
    file_bytes: u64,
    rows: usize,
    /// Bytes of the files of all results.
    all_bytes: Arc<AtomicU64>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("rows", &self.rows)
            .field("bytes", &self.file_bytes)
            .finish_non_exhaustive()
    }
}

impl Spool {
    pub(crate) fn new(schema: &SchemaRef, all_bytes: Arc<AtomicU64>) -> Spool {
        Spool {
            schema: schema.clone(),
            texts: TextRows::new(schema),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
            file: None,
            blocks: Vec::new(),
            file_bytes: 0,
            rows: 0,
            all_bytes,
        }
    }

    /// Returns the number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn texts(&self) -> &TextRows {
        &self.texts
    }

    /// Adds rows. Returns false if there is no room for them; then none is added.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<bool, String> {
        let bytes_a_row = bytes_of(batch) / batch.num_rows().max(1);
        let length = (BLOCK_BYTES / bytes_a_row.max(1)).clamp(1, BLOCK_ROWS);
        let mut place = 0;
        while place < batch.num_rows() {
            let is_full = self.pending_rows >= BLOCK_ROWS || self.pending_bytes >= BLOCK_BYTES;
            let is_large = self.file.is_none() && self.pending_bytes >= MEMORY_BYTES;
            if is_full || is_large {
                if self.all_bytes.load(Ordering::Relaxed) >= BYTES_MAX {
                    return Ok(false);
                }
                self.write()?;
            }
            let piece = compact(&batch.slice(place, length.min(batch.num_rows() - place)))?;
            place += piece.num_rows();
            self.rows += piece.num_rows();
            self.pending_rows += piece.num_rows();
            self.pending_bytes += bytes_of(&piece);
            self.pending.push(piece);
        }
        Ok(true)
    }

    /// Ends the result.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        if self.file.is_some() && self.pending_rows > 0 { self.write() } else { Ok(()) }
    }

    /// Writes the pending rows as a block.
    fn write(&mut self) -> Result<(), String> {
        let block = concat_batches(&self.schema, &self.pending).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let written = StreamWriter::try_new(&mut bytes, &self.schema)
            .and_then(|mut writer| writer.write(&block).and_then(|()| writer.finish()));
        written.map_err(|error| error.to_string())?;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = tempfile::tempfile().map_err(|error| no_file(&error))?;
                self.file.insert(Mutex::new(file))
            }
        };
        let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.file_bytes)).map_err(|error| no_file(&error))?;
        file.write_all(&bytes).map_err(|error| no_file(&error))?;
        let first = self.rows - self.pending_rows;
        self.blocks.push(Block { offset: self.file_bytes, bytes: bytes.len(), first });
        self.file_bytes += bytes.len() as u64;
        self.all_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.pending.clear();
        (self.pending_rows, self.pending_bytes) = (0, 0);
        Ok(())
    }

    /// Returns the batches of a part of the result: the first with the number of its rows to skip.
    fn part(&self, from: usize) -> (usize, usize) {
        let at = self.blocks.partition_point(|block| block.first <= from).saturating_sub(1);
        (at, self.blocks.get(at).map_or(from, |block| from - block.first))
    }

    fn block(&self, at: usize) -> Result<Vec<RecordBatch>, String> {
        let (Some(file), Some(block)) = (&self.file, self.blocks.get(at)) else {
            return Ok(self.pending.clone());
        };
        let mut bytes = vec![0; block.bytes];
        {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(block.offset)).map_err(|error| no_file(&error))?;
            file.read_exact(&mut bytes).map_err(|error| no_file(&error))?;
        }
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
        reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    /// Calls `take` with the values of `count` rows from a row on, until it returns false.
    pub(crate) fn read(
        &self,
        from: usize,
        count: usize,
        take: &mut dyn FnMut(Vec<Option<String>>) -> bool,
    ) -> Result<(), String> {
        if from >= self.rows {
            return Ok(());
        }
        let (mut at, mut skipped) = self.part(from);
        let mut left = count.min(self.rows - from);
        while left > 0 {
            for batch in self.block(at)? {
                let begin = skipped.min(batch.num_rows());
                skipped -= begin;
                // Few rows become text at a time: their values may be long.
                let wanted = left.min(batch.num_rows() - begin);
                for place in (begin..begin + wanted).step_by(64) {
                    let piece = batch.slice(place, 64.min(begin + wanted - place));
                    for row in self.texts.rows(&piece).map_err(|error| error.to_string())? {
                        if !take(row) {
                            return Ok(());
                        }
                    }
                }
                left -= wanted;
            }
            at += 1;
        }
        Ok(())
    }

    /// Calls `take` with all batches.
    pub(crate) fn each(
        &self,
        take: &mut dyn FnMut(&RecordBatch) -> Result<(), String>,
    ) -> Result<(), String> {
        for at in 0..self.blocks.len().max(1) {
            self.block(at)?.iter().try_for_each(&mut *take)?;
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.file_bytes, Ordering::Relaxed);
    }
}

fn no_file(error: &std::io::Error) -> String {
    let folder = std::env::temp_dir();
    format!(
        "the result can't be kept in a file below {}: {error}; TMPDIR names another folder",
        folder.display()
    )
}

/// Returns the bytes of the values of a batch, which may share its buffers with others.
fn bytes_of(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => 16 * column.len() + column.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => 16 * column.len() + column.as_binary_view().total_buffer_bytes_used(),
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    };
    batch.columns().iter().map(bytes).sum()
}

/// Returns rows without the texts of other rows that their batch shares.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let columns = batch.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    });
    // A result may have rows without columns.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)
        .map_err(|error| error.to_string())
}
