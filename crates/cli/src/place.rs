//! The place named by `--data`.

use std::path::{Path, PathBuf};

use millstream::{EngineBuilder, Inspection, StorePrefix};
use millstream_s3::{Bucket, SCHEME};

use crate::stop::Stop;

/// A directory, or a prefix of a bucket.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A prefix of an object store.
    Store {
        /// The address.
        url: String,
        /// Settings beside those of the environment.
        options: Vec<(String, String)>,
        /// True if the prefix must already hold data. For directories, the command line checks this itself.
        must_exist: bool,
    },
    /// Another place, whose sources pass over records that were lost.
    WithoutLostRecords(Box<Place>),
}

impl Place {
    /// Parses a word of the command line.
    pub fn of(word: PathBuf, options: Vec<(String, String)>, must_exist: bool) -> Result<Place, Stop> {
        let text = word.to_str().unwrap_or_default();
        if text.starts_with(SCHEME) {
            return Ok(Place::Store { url: text.to_owned(), options, must_exist });
        }
        if !options.is_empty() {
            let message = "--data-option is for an object store: --data s3://BUCKET/PREFIX";
            return Err(Stop::Usage(message.to_owned()));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Place::Directory(path.into()));
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(Stop::Usage(format!(
                "--data can't be of '{scheme}://': name a directory, or s3://BUCKET/PREFIX"
            ))),
            None => match with_one_slash(text) {
                Some(scheme) => Err(Stop::Usage(format!(
                    "--data is '{text}', where an address has two slashes: write s3://BUCKET/PREFIX, or ./{text} for a \
                     directory below one that is called '{scheme}:'"
                ))),
                None => Ok(Place::Directory(word)),
            },
        }
    }

    /// Adds the place to an engine builder.
    pub fn add_to(self, builder: EngineBuilder) -> Result<EngineBuilder, Stop> {
        match self {
            Place::Directory(path) => Ok(builder.data(path)),
            Place::Store { url, options, must_exist } => {
                let builder = builder.data_store(prefix(&url, &options)?);
                Ok(if must_exist { builder.must_exist() } else { builder })
            }
            Place::WithoutLostRecords(place) => Ok(place.add_to(builder)?.skip_lost_records()),
        }
    }

    /// Returns the path, if it is a directory of this machine.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Place::Directory(path) => Some(path),
            Place::Store { .. } => None,
            Place::WithoutLostRecords(place) => place.directory(),
        }
    }

    /// Returns the place for messages.
    pub fn shown(&self) -> &Path {
        match self {
            Place::Directory(path) => path,
            Place::Store { url, .. } => Path::new(url),
            Place::WithoutLostRecords(place) => place.shown(),
        }
    }

    /// Inspects the data there.
    pub fn inspect(&self) -> Result<Inspection, Stop> {
        let found = match self {
            Place::WithoutLostRecords(place) => return place.inspect(),
            Place::Directory(path) => millstream::inspect(path),
            Place::Store { url, options, .. } => millstream::inspect_store(&prefix(url, options)?),
        };
        found.map_err(|error| Stop::external(error.to_string()))
    }
}

/// Returns the scheme of a mistyped address such as `s3:/bucket`. A single letter is a drive.
fn with_one_slash(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(":/")?;
    (scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(scheme)
}

fn prefix(url: &str, options: &[(String, String)]) -> Result<StorePrefix, Stop> {
    let bucket = Bucket::open(url, options).map_err(|error| Stop::Usage(error.to_string()))?;
    Ok(StorePrefix::new(bucket.store, &bucket.prefix, bucket.url))
}
