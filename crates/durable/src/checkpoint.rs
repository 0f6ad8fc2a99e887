//! Checkpoints: the state of an engine as of an entry of the journal, so that recovery skips all entries
//! before it.
//!
//! A checkpoint consists of some files, and a manifest that names them with their checksums. The manifest is
//! written last, when all other files are durable, so a checkpoint is complete or absent. Incremental state
//! is in the files of earlier checkpoints plus one file of changes ([`chain`]). docs/formats.md describes the
//! files.

mod chain;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use millstream_delta::Cut;
use millstream_state::{Runs, Tables};
use serde_json::{Map, Value, json};

use crate::claim::Claim;
use crate::cuts;
use crate::disk::Disk;
use crate::entry::Entry;
use crate::frame::{self, Salt, Sequence};
use crate::inspect::{InspectedCheckpoint, InspectedPart, plans};
use crate::table::{self, Sum, Summed};
use crate::{DataDirectory, Error, Result, protocol};
use chain::Chains;

/// The first bytes of a manifest.
const MAGIC: &[u8; 8] = b"MSTREAMC";

/// The version of the format, and the oldest readable one. In that one each checkpoint holds the complete
/// state.
const FORMAT: u32 = 2;
const FORMAT_MIN: u32 = 1;

/// The length of a manifest's head: magic, format, a checksum of the names.
const HEAD: usize = 16;

/// The suffix of a manifest's name, after the number.
const MANIFEST: &str = ".checkpoint";

/// The state of an engine after an entry of its journal.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The entry.
    pub through: Sequence,
    /// The version of the program that wrote it. `None` means a version before plans were stored.
    pub version: Option<String>,
    /// The last epoch. Its positions are the total positions of all sources.
    pub cut: Cut,
    /// The entries that created the existing objects and changed settings, in order.
    pub catalog: Vec<Entry>,
    /// Epochs that readers of relations have not taken yet.
    pub logs: Vec<Entry>,
    /// The names of the script statements that took effect.
    pub done: Vec<String>,
    /// All other state.
    pub state: Tables,
}

/// The checkpoints of a data directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    /// The claim on an object store, which decides if files may be removed.
    claim: Option<Arc<Claim>>,
    known: Arc<Known>,
}

/// Cached knowledge of the checkpoints.
#[derive(Debug, Default)]
struct Known {
    /// The checkpoints read or written by this process, which are therefore whole, with the files that they
    /// name.
    whole: Mutex<Named>,
    /// The number of drafts begun.
    drafts: AtomicU64,
    /// The chains of runs of the newest checkpoint that this process wrote.
    chains: Mutex<Chains>,
}

/// Checkpoints with the files that they name.
type Named = BTreeMap<Sequence, BTreeSet<String>>;

impl Known {
    fn whole(&self) -> MutexGuard<'_, Named> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chains(&self) -> MutexGuard<'_, Chains> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug)]
struct Part {
    /// The name of the content within the checkpoint.
    name: String,
    file: String,
    sum: Sum,
    /// The checkpoint that wrote the file, if it belongs to a table in runs.
    of: Option<Sequence>,
}

/// A file of a checkpoint, with the number of rows if it holds a table.
type ReadPart = (Part, Option<usize>);

/// The written files of a checkpoint that is not published yet.
pub struct Draft {
    through: Sequence,
    manifest: Vec<u8>,
    written: u64,
    parts: Vec<Part>,
    chains: Chains,
}

/// The size of a checkpoint in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The bytes written for it.
    pub written: u64,
    /// The bytes of all files that it names.
    pub named: u64,
}

/// The newest whole checkpoint, and the damaged ones.
#[derive(Debug, Default)]
pub struct Found {
    /// `None` if there is none yet.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that were skipped, each with the reason.
    pub damaged: Vec<String>,
}

impl Checkpoints {
    /// Returns the checkpoints of a directory.
    pub fn of(directory: &DataDirectory) -> Checkpoints {
        let (disk, claim) = (directory.checkpoints().clone(), directory.claim().cloned());
        Checkpoints { disk, claim, known: Arc::default() }
    }

    /// Writes all files of a checkpoint except its manifest. After an error, removes the written files as far
    /// as possible.
    pub fn draft(&self, checkpoint: &Checkpoint) -> Result<Draft> {
        let stem = self.stem(checkpoint.through);
        self.try_draft(checkpoint, &stem).inspect_err(|_| {
            // In a local folder also a manifest of this number, which an earlier process may have left at a
            // crash.
            let of = |name: &String| match &self.claim {
                Some(_) => name.starts_with(&stem),
                None => number_in(name) == Some(checkpoint.through),
            };
            for name in self.names().unwrap_or_default().iter().filter(|name| of(name)) {
                let _ = self.disk.remove(name);
            }
        })
    }

    /// Returns the prefix of the names of a checkpoint's files. On an object store no two drafts share a
    /// name, whichever process wrote them: one process may discard a draft while another is still writing its
    /// own.
    fn stem(&self, through: Sequence) -> String {
        let number = format!("{:020}-", through.0);
        match &self.claim {
            Some(claim) => {
                let draft = self.known.drafts.fetch_add(1, Ordering::Relaxed);
                format!("{number}{}.{draft}-", claim.number())
            }
            None => number,
        }
    }

    fn try_draft(&self, checkpoint: &Checkpoint, stem: &str) -> Result<Draft> {
        let mut parts = Vec::new();
        let entries = entries(&checkpoint.catalog)?;
        parts.push(self.write_bytes("catalog", format!("{stem}catalog.entries"), &entries)?);
        let logs = self::entries(&checkpoint.logs)?;
        parts.push(self.write_bytes("logs", format!("{stem}logs.entries"), &logs)?);
        let (mut chains, mut written, mut files) = (Chains::default(), 0, 0..);
        let mut file = |name: &str| format!("{stem}{}-{}", files.next().unwrap_or(0u64), file_name(name));
        for (name, batches, of) in checkpoint.state.parts() {
            let chain = match of {
                Some((own, run)) => Some((own, chains.of(run, name, own, &self.known.chains())?)),
                None => None,
            };
            let batches = batches.get().map_err(|error| Error::Unsaved { name: name.into(), error })?;
            if batches.is_empty() {
                continue;
            }
            match chain {
                None => parts.push(self.write_table(name, &file(name), &batches)?),
                Some((own, chain)) if chain.is_put_together() => chain.hold(own, batches.into_owned()),
                Some((own, chain)) => {
                    let part = self.write_table(name, &file(name), &batches)?;
                    written += part.sum.bytes;
                    chain.push(own, Part { of: Some(checkpoint.through), ..part });
                }
            }
        }
        for (lineage, pieces) in chains.together() {
            if let Some(chain) = chains.chain(lineage) {
                written += self.put_together(checkpoint.through, chain, pieces, &mut file)?;
            }
        }
        written += parts.iter().map(|part| part.sum.bytes).sum::<u64>();
        parts.extend(chains.parts());
        let manifest = manifest(checkpoint, &parts);
        Ok(Draft { through: checkpoint.through, manifest, written, parts, chains })
    }

    /// Publishes a draft as a checkpoint.
    pub fn publish(&self, draft: Draft) -> Result<Size> {
        let name = manifest_name(draft.through);
        let mut files: BTreeSet<String> = draft.parts.iter().map(|part| part.file.clone()).collect();
        match self.write_bytes("manifest", name, &draft.manifest) {
            Ok(_) => draft.chains.publish(&mut self.known.chains()),
            // A checkpoint of the same entry exists, whose put was never acknowledged. The next one holds the
            // complete state.
            Err(Error::Disk { error, .. })
                if self.claim.is_some() && error.kind() == std::io::ErrorKind::AlreadyExists =>
            {
                let (_, parts) = self.read_parts(draft.through)?;
                files = parts.into_iter().map(|(part, _)| part.file).collect();
                draft.chains.give_up();
                std::mem::take(&mut *self.known.chains()).give_up();
            }
            Err(error) => return Err(error),
        }
        self.known.whole().insert(draft.through, files);
        let manifest = draft.manifest.len() as u64;
        let named: u64 = draft.parts.iter().map(|part| part.sum.bytes).sum();
        Ok(Size { written: draft.written + manifest, named: named + manifest })
    }

    /// Removes the remains of a checkpoint that a crash interrupted.
    pub fn clear(&self) -> Result<()> {
        let mut kept = Named::new();
        for through in self.numbers()? {
            let files = match self.manifest(through) {
                Ok((_, parts)) => parts.into_iter().map(|part| part.file).collect(),
                // The files that it names are unknown. All files stay for inspection.
                Err(Error::Corrupt { .. }) => return Ok(()),
                Err(Error::Disk { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            kept.insert(through, files);
        }
        // A process that claimed the prefix since writes no checkpoint before its own claim.
        let before = self.claim.as_ref().map(|claim| claim.number());
        self.remove_others(&kept, before)
    }

    /// Returns the newest whole checkpoint.
    pub fn newest(&self) -> Result<Found> {
        let mut found = Found::default();
        for through in self.numbers()?.into_iter().rev() {
            match self.read_parts(through) {
                Ok((checkpoint, parts)) => {
                    let files = parts.into_iter().map(|(part, _)| part.file).collect();
                    self.known.whole().insert(through, files);
                    found.checkpoint = Some(checkpoint);
                    break;
                }
                Err(error @ (Error::Corrupt { .. } | Error::Arrow(_))) => {
                    found.damaged.push(format!("checkpoint {through} is skipped: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Returns the entries of all checkpoints, ascending.
    pub fn numbers(&self) -> Result<Vec<Sequence>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| number_of_manifest(name)).collect())
    }

    /// Removes all checkpoints except the newest `count` known to be whole, and files of no checkpoint. Once
    /// there are `count`, returns the entry of the oldest: no start reads the journal up to that entry.
    pub fn retain(&self, count: usize) -> Result<Option<Sequence>> {
        let kept: Named = {
            let whole = self.known.whole();
            let numbers = protocol::kept(&whole.keys().copied().collect(), count);
            whole
                .iter()
                .filter(|(number, _)| numbers.contains(number))
                .map(|(n, files)| (*n, files.clone()))
                .collect()
        };
        // A process that opens the prefix after this claim starts from the newest of these checkpoints or a
        // newer one. A process that has claimed it already may start from an older one; then nothing is
        // removed.
        if let Some(claim) = &self.claim
            && !claim.holds().map_err(|error| Error::disk("looking after", "the claim", error))?
        {
            return Ok(None);
        }
        let newest = kept.keys().next_back().copied();
        self.remove_others(&kept, self.claim.as_ref().and(newest))?;
        self.known.whole().retain(|number, _| kept.contains_key(number));
        Ok(protocol::covered(&kept.into_keys().collect(), count))
    }

    /// Removes all files that neither belong to one of these checkpoints nor are named by one. With `before`,
    /// removes only files of checkpoints before that entry.
    fn remove_others(&self, kept: &Named, before: Option<Sequence>) -> Result<()> {
        let numbers: BTreeSet<Sequence> = kept.keys().copied().collect();
        // The manifest goes first: without it the files are no checkpoint.
        let gone = |name: &&String| {
            number_in(name).is_some_and(|number| protocol::is_left_over(number, &numbers, before))
                && !kept.values().any(|files| files.contains(*name))
        };
        let names = self.names()?;
        let (manifests, files): (Vec<&String>, Vec<&String>) =
            names.iter().filter(gone).partition(|name| name.ends_with(MANIFEST));
        for name in manifests.into_iter().chain(files) {
            self.disk.remove(name).map_err(|error| Error::disk("removing", name, error))?;
        }
        Ok(())
    }

    /// Describes the content of a checkpoint; fails if part of it is damaged.
    pub(crate) fn inspect(&self, through: Sequence) -> Result<InspectedCheckpoint> {
        let (checkpoint, parts) = self.read_parts(through)?;
        let inspected = |(Part { name, sum, of, .. }, rows): ReadPart| InspectedPart {
            name,
            bytes: sum.bytes,
            rows,
            of: of.filter(|of| *of != through),
        };
        let parts = parts.into_iter().map(inspected).collect();
        let plans = checkpoint.catalog.iter().flat_map(plans).collect();
        Ok(InspectedCheckpoint { through, epoch: Some(checkpoint.cut.epoch), parts, plans, damage: None })
    }

    fn names(&self) -> Result<Vec<String>> {
        self.disk.list().map_err(|error| Error::disk("listing", "checkpoints", error))
    }

    fn write_bytes(&self, name: &str, file: String, bytes: &[u8]) -> Result<Part> {
        let write = || {
            let mut growing = self.disk.create(&file)?;
            growing.append(bytes)?;
            growing.sync()
        };
        write().map_err(|error| Error::disk("writing", &self.disk.shown(&file), error))?;
        Ok(Part { name: name.to_string(), file, sum: Sum::of(bytes), of: None })
    }

    fn write_table(&self, name: &str, file: &str, batches: &[RecordBatch]) -> Result<Part> {
        let schema = batches
            .first()
            .map(RecordBatch::schema)
            .unwrap_or_else(|| arrow::datatypes::Schema::empty().into());
        let ending = table::ending(&schema);
        let file = format!("{file}.{ending}");
        let failed = |error| Error::disk("writing", &self.disk.shown(&file), error);
        let mut growing = self.disk.create(&file).map_err(failed)?;
        let mut summed = Summed::new(growing.as_mut());
        if let Err(error) = table::write(&mut summed, ending, &schema, batches) {
            return Err(summed.failed().map_or_else(|| error.into(), failed));
        }
        let sum = summed.sum();
        growing.sync().map_err(failed)?;
        Ok(Part { name: name.to_string(), file, sum, of: None })
    }

    /// Reads a manifest: the checkpoint without the content of its files, and the files.
    fn manifest(&self, through: Sequence) -> Result<(Checkpoint, Vec<Part>)> {
        let name = manifest_name(through);
        let bytes = self.disk.read(&name).map_err(|error| Error::disk("reading", &name, error))?;
        let corrupt = |reason: String| Error::Corrupt { name: name.clone(), offset: 0, reason };
        let json = check_manifest(&bytes).map_err(corrupt)?;
        let unknown = || corrupt("its parts have names that this version doesn't know".into());
        let checkpoint = described(&json, through).ok_or_else(unknown)?;
        let parts = json.get("parts").and_then(Value::as_array).ok_or_else(unknown)?;
        let parts = parts.iter().map(decode_part).collect::<Option<Vec<Part>>>().ok_or_else(unknown)?;
        Ok((checkpoint, parts))
    }

    /// Reads a checkpoint and its files, with the number of rows of each table's file.
    fn read_parts(&self, through: Sequence) -> Result<(Checkpoint, Vec<ReadPart>)> {
        let (mut checkpoint, named) = self.manifest(through)?;
        let (mut runs, mut parts) = (Runs::default(), Vec::with_capacity(named.len()));
        for part in named {
            let rows = self.read_part(&part, &mut checkpoint, &mut runs)?;
            parts.push((part, rows));
        }
        let merged = runs.merge_into(&mut checkpoint.state);
        let name = manifest_name(through);
        merged.map_err(|error| Error::Corrupt { name, offset: 0, reason: error.to_string() })?;
        Ok((checkpoint, parts))
    }

    /// Reads a file and checks its checksum.
    fn read_whole(&self, part: &Part) -> Result<Vec<u8>> {
        let Part { file, sum, .. } = part;
        let corrupt = |reason: String| Error::Corrupt { name: file.clone(), offset: 0, reason };
        let bytes = match self.disk.read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(corrupt("it is missing".into()));
            }
            read => read.map_err(|error| Error::disk("reading", file, error))?,
        };
        let found = Sum::of(&bytes);
        if found != *sum {
            return Err(corrupt(format!(
                "{} bytes with checksum {:08x} were written, {} with {:08x} are there",
                sum.bytes, sum.crc, found.bytes, found.crc
            )));
        }
        Ok(bytes)
    }

    fn read_part(&self, part: &Part, to: &mut Checkpoint, runs: &mut Runs) -> Result<Option<usize>> {
        let Part { name, file, of, .. } = part;
        let corrupt = |reason: String| Error::Corrupt { name: file.clone(), offset: 0, reason };
        let bytes = self.read_whole(part)?;
        let ending = ending(file);
        if ending == "entries" {
            let entries = read_entries(&bytes).map_err(corrupt)?;
            if name == "catalog" {
                to.catalog = entries
            } else {
                to.logs = entries
            }
            return Ok(None);
        }
        let batches = table::read(bytes, ending)?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        match of {
            Some(of) => runs.put(name, of.0, batches),
            None => to.state.put(name, batches),
        }
        Ok(Some(rows))
    }
}

/// Returns the extension of a file's name.
fn ending(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// Returns the name of a checkpoint's manifest.
fn manifest_name(through: Sequence) -> String {
    format!("{:020}{MANIFEST}", through.0)
}

/// Returns the number of the checkpoint whose manifest this is.
pub(crate) fn number_of_manifest(name: &str) -> Option<Sequence> {
    frame::number_of(name.strip_suffix(MANIFEST)?)
}

/// Returns the number of the checkpoint that a file belongs to, if any.
fn number_in(name: &str) -> Option<Sequence> {
    let (number, rest) = name.split_at_checked(20)?;
    frame::number_of(number).filter(|_| rest.starts_with('-') || rest == MANIFEST)
}

/// Returns a table's name without the characters that file names may not contain.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    name.chars().map(plain).take(100).collect()
}

/// Encodes entries in frames, numbered from 1.
fn entries(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (entry, number) in entries.iter().zip(1..) {
        let framed = frame::frame(Sequence(number), &entry.encode()?, Salt::NONE);
        bytes.extend(framed.map_err(|error| Error::disk("writing", "entries", error))?);
    }
    Ok(bytes)
}

fn read_entries(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let (mut all, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let framed = frame::framed(rest, Salt::NONE).ok_or("an entry in it is incomplete")?;
        all.push(Entry::decode(&framed.body()?)?);
        rest = &rest[framed.length..];
    }
    Ok(all)
}

fn manifest(checkpoint: &Checkpoint, parts: &[Part]) -> Vec<u8> {
    let part = |part: &Part| match part.of {
        Some(of) => json!([part.name, part.file, part.sum.bytes, part.sum.crc, of.0]),
        None => json!([part.name, part.file, part.sum.bytes, part.sum.crc]),
    };
    let parts = parts.iter().map(part);
    let numbers: Map<String, Value> =
        checkpoint.state.numbers().map(|(name, number)| (name.to_string(), number.into())).collect();
    let texts: Map<String, Value> =
        checkpoint.state.texts().map(|(name, text)| (name.to_string(), text.into())).collect();
    let json = json!({
        "through": checkpoint.through.0,
        "version": checkpoint.version,
        "cut": cuts::encode(&checkpoint.cut),
        "done": checkpoint.done,
        "parts": parts.collect::<Vec<_>>(),
        "numbers": numbers,
        "texts": texts,
    });
    let json = json.to_string();
    let mut bytes = Vec::with_capacity(HEAD + json.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(json.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

fn check_manifest(bytes: &[u8]) -> Result<Value, String> {
    let (head, json) = bytes.split_at_checked(HEAD).ok_or("it isn't whole")?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if &head[..8] != MAGIC {
        return Err("it doesn't begin with the header of a checkpoint".into());
    }
    if !(FORMAT_MIN..=FORMAT).contains(&number(8)) {
        let read = format!("formats {FORMAT_MIN} to {FORMAT}");
        return Err(format!("it has format {}, but this version reads {read}", number(8)));
    }
    if crc32fast::hash(json) != number(12) {
        return Err("its checksum doesn't match".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// Decodes the manifest of a checkpoint, without the content of its files.
fn described(json: &Value, through: Sequence) -> Option<Checkpoint> {
    (json.get("through")?.as_u64()? == through.0).then_some(())?;
    let mut state = Tables::default();
    for (name, number) in json.get("numbers")?.as_object()? {
        state.put_number(name, number.as_i64()?);
    }
    for (name, text) in json.get("texts")?.as_object()? {
        state.put_text_if(name, Some(text.as_str()?));
    }
    let done = cuts::list(json.get("done")?, |name| name.as_str().map(str::to_string))?;
    let cut = cuts::decode(json.get("cut")?)?;
    let version = json.get("version").and_then(Value::as_str).map(str::to_string);
    Some(Checkpoint { through, version, cut, catalog: Vec::new(), logs: Vec::new(), done, state })
}

fn decode_part(part: &Value) -> Option<Part> {
    let text = |at: usize| part.get(at)?.as_str().map(str::to_string);
    let sum = Sum { bytes: part.get(2)?.as_u64()?, crc: u32::try_from(part.get(3)?.as_u64()?).ok()? };
    let of = match part.get(4) {
        Some(of) => Some(Sequence(of.as_u64()?)),
        None => None,
    };
    Some(Part { name: text(0)?, file: text(1)?, sum, of })
}
