//! A folder of an object store as a [`Disk`]: a file is an object, which exists once the file is synced.

use std::io;

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};

use super::{Put, Store};
use crate::disk::{Disk, Growing};

/// Larger files are uploaded in parts while they are written, so that they need not fit in memory.
const PART_BYTES: usize = 8 << 20;

/// Number of objects read at once: a store answers slowly, compared with a disk.
const AT_ONCE: usize = 16;

/// A folder of an object store.
#[derive(Clone, Debug)]
pub(crate) struct StoreDisk {
    store: Store,
    folder: &'static str,
}

impl StoreDisk {
    pub(crate) fn new(store: Store, folder: &'static str) -> StoreDisk {
        StoreDisk { store, folder }
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

impl Disk for StoreDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.store.list(self.folder)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.store.read(&self.name(name)).map(|bytes| bytes.into())
    }

    fn read_some(&self, names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
        let names = names.iter().take(AT_ONCE).map(|name| self.name(name)).collect();
        Ok(self.store.read_all(names)?.into_iter().map(Vec::from).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        let name = self.name(name);
        Ok(Box::new(StoreFile {
            store: self.store.clone(),
            name,
            bytes: Vec::new(),
            upload: None,
            put: false,
        }))
    }

    fn sync(&self, _name: &str) -> io::Result<()> {
        // A readable object is durable already.
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.store.remove(&self.name(name))
    }
}

/// A file being written. A file of more than one part is an upload, which is no object yet.
struct StoreFile {
    store: Store,
    name: String,
    /// The bytes not sent yet.
    bytes: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    /// True if the file is an object by now; nothing can be appended to it.
    put: bool,
}

impl std::fmt::Debug for StoreFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl StoreFile {
    fn is_put(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::Unsupported,
            format!("'{}' is put: nothing can be changed in it", self.name),
        )
    }

    /// Sends the buffered bytes as the next part.
    fn send(&mut self) -> io::Result<()> {
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => {
                let path = self.store.path(&self.name);
                self.store.wait(|store| async move { store.put_multipart(&path).await })?
            }
        };
        let part = PutPayload::from(std::mem::take(&mut self.bytes));
        let sent = self.store.wait(|_| async move {
            let mut upload = upload;
            match upload.put_part(part).await {
                Ok(()) => Ok(Ok(upload)),
                Err(error) => Ok(Err((upload, error))),
            }
        })?;
        match sent {
            Ok(upload) => self.upload = Some(upload),
            Err((upload, error)) => {
                self.upload = Some(upload);
                return Err(super::io_error(error));
            }
        }
        Ok(())
    }
}

impl Growing for StoreFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.put {
            return Err(self.is_put());
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= PART_BYTES { self.send() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.put {
            return Ok(());
        }
        if self.upload.is_none() {
            let bytes = Bytes::from(std::mem::take(&mut self.bytes));
            return match self.store.put_new_surely(&self.name, &bytes)? {
                Put::Done => {
                    self.put = true;
                    Ok(())
                }
                Put::Taken(_) => {
                    let text = format!("there is another object '{}'", self.name);
                    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
                }
            };
        }
        if !self.bytes.is_empty() {
            self.send()?;
        }
        if let Some(mut upload) = self.upload.take() {
            self.store.wait(|_| async move { upload.complete().await })?;
            self.put = true;
        }
        Ok(())
    }

    fn shorten(&mut self, _length: u64) -> io::Result<()> {
        Err(self.is_put())
    }
}

impl Drop for StoreFile {
    /// Aborts an unfinished upload, so that it leaves nothing behind if the store can be reached.
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            let _ = self.store.wait(|_| async move { upload.abort().await });
        }
    }
}
