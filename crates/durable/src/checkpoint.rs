//! Checkpoints: what an engine keeps as of an entry of the journal, so that what came before need not be done again.
//!
//! A checkpoint is some files and one more that names them with their checksums. That one is written last, when all others
//! are on the disk, so a checkpoint is there whole or not at all. Of what can tell what has changed it names the files of
//! the checkpoints before, and has such a file of its own ([`chain`]). docs/formats.md draws them.

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

/// What the file begins with that names the others.
const MAGIC: &[u8; 8] = b"MSTREAMC";

/// The version of the format, and the oldest one that is read: in that each checkpoint has all that is kept.
const FORMAT: u32 = 2;
const FORMAT_MIN: u32 = 1;

/// How long what stands before the names is: magic, format, a checksum of the names.
const HEAD: usize = 16;

/// How that file is called behind its number.
const MANIFEST: &str = ".checkpoint";

/// What an engine keeps after an entry of its journal.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The entry.
    pub through: Sequence,
    /// The version of the program that wrote it. One that says none is of a version before there were plans.
    pub version: Option<String>,
    /// The last epoch, with all that was read of each source by then as its positions.
    pub cut: Cut,
    /// The entries that made the objects that are there, and set what is set, in their order.
    pub catalog: Vec<Entry>,
    /// Epochs that readers of relations have yet to take.
    pub logs: Vec<Entry>,
    /// The names under which statements of scripts were done.
    pub done: Vec<String>,
    /// All else.
    pub state: Tables,
}

/// The checkpoints of a data directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    /// By what it is known, on an object store, who may remove anything.
    claim: Option<Arc<Claim>>,
    known: Arc<Known>,
}

/// What is known of the checkpoints without looking.
#[derive(Debug, Default)]
struct Known {
    /// Those that were read or written here, and so are whole, with the files that they name.
    whole: Mutex<Named>,
    /// How many were begun.
    drafts: AtomicU64,
    /// What the newest one that was written here has in runs.
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
    /// What it is, as it is called in the checkpoint.
    name: String,
    file: String,
    sum: Sum,
    /// Of a table in runs, the checkpoint that wrote it.
    of: Option<Sequence>,
}

/// A file of a checkpoint, with how many rows it has where it is of a table.
type ReadPart = (Part, Option<usize>);

/// What was written of a checkpoint that isn't there yet.
pub struct Draft {
    through: Sequence,
    manifest: Vec<u8>,
    written: u64,
    parts: Vec<Part>,
    chains: Chains,
}

/// How large a checkpoint is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// What was written of it.
    pub written: u64,
    /// All that it names.
    pub named: u64,
}

/// The newest checkpoint that is whole, and those that aren't.
#[derive(Debug, Default)]
pub struct Found {
    /// None: there is none yet.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that were passed over, each with the reason.
    pub damaged: Vec<String>,
}

impl Checkpoints {
    /// Those of a directory.
    pub fn of(directory: &DataDirectory) -> Checkpoints {
        let (disk, claim) = (directory.checkpoints().clone(), directory.claim().cloned());
        Checkpoints { disk, claim, known: Arc::default() }
    }

    /// Writes all of a checkpoint but what makes it one. Where that fails nothing is left of it, as far as that can be.
    pub fn draft(&self, checkpoint: &Checkpoint) -> Result<Draft> {
        let stem = self.stem(checkpoint.through);
        self.try_draft(checkpoint, &stem).inspect_err(|_| {
            // In a folder of the system's, also the one that names the files, where a crash came in between.
            let of = |name: &String| match &self.claim {
                Some(_) => name.starts_with(&stem),
                None => number_in(name) == Some(checkpoint.through),
            };
            for name in self.names().unwrap_or_default().iter().filter(|name| of(name)) {
                let _ = self.disk.remove(name);
            }
        })
    }

    /// What the names of a checkpoint's files begin with. On an object store no two checkpoints that were begun have one of
    /// their files in common, whoever began them: what one process leaves out of account another one may still write.
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
            if batches.is_empty() {
                continue;
            }
            match chain {
                None => parts.push(self.write_table(name, &file(name), batches)?),
                Some((own, chain)) if chain.is_put_together() => chain.hold(own, batches),
                Some((own, chain)) => {
                    let part = self.write_table(name, &file(name), batches)?;
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

    /// Makes what was written a checkpoint.
    pub fn publish(&self, draft: Draft) -> Result<Size> {
        let name = manifest_name(draft.through);
        let mut files: BTreeSet<String> = draft.parts.iter().map(|part| part.file.clone()).collect();
        match self.write_bytes("manifest", name, &draft.manifest) {
            Ok(_) => draft.chains.publish(&mut self.known.chains()),
            // One of the same entry, of which nobody heard that it is there. The next one has everything.
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

    /// Removes what a crash has left of one that was being written.
    pub fn clear(&self) -> Result<()> {
        let mut kept = Named::new();
        for through in self.numbers()? {
            let files = match self.manifest(through) {
                Ok((_, parts)) => parts.into_iter().map(|part| part.file).collect(),
                // Nobody knows which files it names: they may be looked at.
                Err(Error::Corrupt { .. }) => return Ok(()),
                Err(Error::Disk { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            kept.insert(through, files);
        }
        // Who has claimed the prefix since begins none that comes before its own claim.
        let before = self.claim.as_ref().map(|claim| claim.number());
        self.remove_others(&kept, before)
    }

    /// The newest checkpoint that is whole.
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
                    found.damaged.push(format!("checkpoint {through} is passed over: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The entries that the checkpoints are of, ascending.
    pub fn numbers(&self) -> Result<Vec<Sequence>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| number_of_manifest(name)).collect())
    }

    /// Removes all checkpoints but the newest so many that are known to be whole, and what belongs to none. Once there are so
    /// many, the entry of the oldest: of the journal only what comes after it is ever read.
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
        // Who opens a prefix that was claimed by then goes on from the newest of these, or from a newer one. Who has opened
        // it before may go on from an older one: then nothing is removed.
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

    /// Removes all that belongs to none of these checkpoints, nor is named by one, of those before an entry where one is
    /// given.
    fn remove_others(&self, kept: &Named, before: Option<Sequence>) -> Result<()> {
        let numbers: BTreeSet<Sequence> = kept.keys().copied().collect();
        // What names the files goes first: without it they are no checkpoint.
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

    /// What is in one; an error where something of it isn't whole.
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
        write().map_err(|error| Error::disk("writing", &file, error))?;
        Ok(Part { name: name.to_string(), file, sum: Sum::of(bytes), of: None })
    }

    fn write_table(&self, name: &str, file: &str, batches: &[RecordBatch]) -> Result<Part> {
        let schema = batches
            .first()
            .map(RecordBatch::schema)
            .unwrap_or_else(|| arrow::datatypes::Schema::empty().into());
        let ending = table::ending(&schema);
        let file = format!("{file}.{ending}");
        let failed = |error| Error::disk("writing", &file, error);
        let mut growing = self.disk.create(&file).map_err(failed)?;
        let mut summed = Summed::new(growing.as_mut());
        match table::write(&mut summed, ending, &schema, batches) {
            Ok(()) => {}
            Err(arrow::error::ArrowError::IoError(_, error)) => return Err(failed(error)),
            Err(error) => return Err(error.into()),
        }
        let sum = summed.sum();
        growing.sync().map_err(failed)?;
        Ok(Part { name: name.to_string(), file, sum, of: None })
    }

    /// What a checkpoint says of itself, and its files.
    fn manifest(&self, through: Sequence) -> Result<(Checkpoint, Vec<Part>)> {
        let name = manifest_name(through);
        let bytes = self.disk.read(&name).map_err(|error| Error::disk("reading", &name, error))?;
        let corrupt = |reason: String| Error::Corrupt { name: name.clone(), offset: 0, reason };
        let json = check_manifest(&bytes).map_err(corrupt)?;
        let unknown = || corrupt("it names its parts in another way than this version does".into());
        let checkpoint = described(&json, through).ok_or_else(unknown)?;
        let parts = json.get("parts").and_then(Value::as_array).ok_or_else(unknown)?;
        let parts = parts.iter().map(decode_part).collect::<Option<Vec<Part>>>().ok_or_else(unknown)?;
        Ok((checkpoint, parts))
    }

    /// A checkpoint, and its files with the rows that those of tables have.
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

    /// The bytes of a file, which are those that were written.
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

/// What the name of a file ends with.
fn ending(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// How the file is called that names a checkpoint's others.
fn manifest_name(through: Sequence) -> String {
    format!("{:020}{MANIFEST}", through.0)
}

/// The number of the checkpoint whose others a file names.
pub(crate) fn number_of_manifest(name: &str) -> Option<Sequence> {
    frame::number_of(name.strip_suffix(MANIFEST)?)
}

/// The number of the checkpoint that a file belongs to, where it belongs to one.
fn number_in(name: &str) -> Option<Sequence> {
    let (number, rest) = name.split_at_checked(20)?;
    frame::number_of(number).filter(|_| rest.starts_with('-') || rest == MANIFEST)
}

/// What of a table's name may stand in that of a file.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    name.chars().map(plain).take(100).collect()
}

/// Entries in frames, numbered from 1.
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
        let framed = frame::framed(rest, Salt::NONE).ok_or("an entry in it isn't whole")?;
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
        return Err("it doesn't begin as a checkpoint does".into());
    }
    if !(FORMAT_MIN..=FORMAT).contains(&number(8)) {
        let read = format!("formats {FORMAT_MIN} to {FORMAT}");
        return Err(format!("it has format {}, but this version reads {read}", number(8)));
    }
    if crc32fast::hash(json) != number(12) {
        return Err("its checksum is another one".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// A checkpoint without what is in its files.
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
