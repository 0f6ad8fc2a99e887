//! An S3 bucket, or a bucket of a compatible store, as the place of a data directory.
//!
//! ```
//! let options = [("region".to_string(), "eu-west-1".to_string())];
//! let bucket = millstream_s3::Bucket::open("s3://shop/state", &options)?;
//! assert_eq!((bucket.prefix.as_str(), bucket.url.as_str()), ("state", "s3://shop/state"));
//! # Ok::<(), millstream_s3::Error>(())
//! ```
//!
//! A crate of its own, because it needs an HTTP client with TLS (rustls over ring, which needs only a C
//! compiler). A user with a data directory on disk needs none of that, so only the binary adds this crate.
//!
//! Deliberately absent: the format of the data (see `crates/durable`), and other stores: the library
//! accepts any store that object_store supports.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

/// The scheme of bucket addresses.
pub const SCHEME: &str = "s3://";

/// A bucket and a prefix in it.
#[derive(Clone)]
pub struct Bucket {
    /// The bucket.
    pub store: Arc<dyn ObjectStore>,
    /// The prefix of all object names; may be empty.
    pub prefix: String,
    /// The address, without secrets.
    pub url: String,
}

/// An invalid address or setting. A missing bucket is noticed only by the first request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is invalid.
    #[error(
        "'{0}' is not the address of a bucket: s3://BUCKET/PREFIX was expected; settings go into the \
         environment or options"
    )]
    Address(String),
    /// The option is unknown.
    #[error(
        "there is no option '{0}' of S3: region, endpoint and others of the crate object_store are known"
    )]
    Option(String),
    /// The options conflict, or a value is invalid.
    #[error("'{url}' can't be opened: {reason}")]
    Settings {
        /// The address.
        url: String,
        /// The cause.
        reason: String,
    },
}

impl Bucket {
    /// Opens the bucket of an address `s3://BUCKET/PREFIX`. Settings come from the environment (`AWS_…`)
    /// and then from the options, by the names of the crate object_store.
    pub fn open(url: &str, options: &[(String, String)]) -> Result<Bucket, Error> {
        let address = || Error::Address(without_user(url));
        let rest = url.strip_prefix(SCHEME).ok_or_else(address)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || rest.contains(['?', '#', '@', ':']) {
            return Err(address());
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry());
        for (name, value) in options {
            let key = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase());
            builder = builder.with_config(key.map_err(|_| Error::Option(name.clone()))?, value);
        }
        // An explicit `http://` endpoint permits connections without TLS.
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        let store = builder.build();
        let store =
            store.map_err(|error| Error::Settings { url: url.to_string(), reason: error.to_string() })?;
        let prefix = prefix.trim_matches('/').to_string();
        Ok(Bucket { store: Arc::new(store), prefix, url: url.trim_end_matches('/').to_string() })
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Returns the retry policy: throttled and timed-out requests are retried for some seconds. Then the caller
/// reports that the store is unreachable, and keeps trying.
fn retry() -> RetryConfig {
    let (init_backoff, max_backoff) = (Duration::from_millis(50), Duration::from_secs(2));
    RetryConfig {
        backoff: BackoffConfig { init_backoff, max_backoff, base: 2. },
        max_retries: 6,
        retry_timeout: Duration::from_secs(20),
    }
}

/// Returns an address without the part that may hold a name and a password.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.split(['?', '#']).next().unwrap_or_default().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str, options: &[(&str, &str)]) -> String {
        let options: Vec<_> =
            options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Bucket::open(url, &options).unwrap_err().to_string()
    }

    #[test]
    fn addresses_are_read() {
        for (url, prefix) in [("s3://b", ""), ("s3://b/", ""), ("s3://b/a/c/", "a/c")] {
            let bucket = Bucket::open(url, &[]).unwrap();
            assert_eq!((bucket.prefix.as_str(), bucket.url.as_str()), (prefix, url.trim_end_matches('/')));
        }
        for url in ["s3://", "s3:///a", "gs://b/a", "s3://b?region=x", "b/a"] {
            assert!(error(url, &[]).contains("is not the address of a bucket"), "{url}");
        }
    }

    #[test]
    fn options_are_known_and_secrets_are_not_told() {
        assert!(error("s3://b", &[("regoin", "x")]).contains("no option 'regoin'"));
        let told = error("s3://ann:secret@b/a", &[]);
        assert!(!told.contains("secret") && told.contains("s3://…@b/a"), "{told}");
        let options = [("access_key_id", "ann"), ("secret_access_key", "hidden")];
        let options = options.map(|(name, value)| (name.to_string(), value.to_string()));
        let bucket = Bucket::open("s3://b", &options).unwrap();
        // One without the other is no key.
        assert!(!error("s3://b", &[("secret_access_key", "hidden")]).contains("hidden"));
        assert!(!format!("{bucket:?}").contains("hidden"));
    }
}
