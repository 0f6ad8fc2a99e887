//! A bucket of S3, or of what speaks as S3 does, as the place of a data directory.
//!
//! ```
//! let options = [("region".to_string(), "eu-west-1".to_string())];
//! let bucket = millstream_s3::Bucket::open("s3://shop/state", &options)?;
//! assert_eq!((bucket.prefix.as_str(), bucket.url.as_str()), ("state", "s3://shop/state"));
//! # Ok::<(), millstream_s3::Error>(())
//! ```
//!
//! It is a crate of its own since it brings a client of HTTP with TLS (rustls over ring, for which a C compiler is enough),
//! which nobody needs who keeps a directory on a disk: only the binary adds it.
//!
//! Deliberately absent: what is written there (that is in `crates/durable`), and other stores: the library takes any that
//! object_store can speak with.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

/// What an address of a bucket begins with.
pub const SCHEME: &str = "s3://";

/// A bucket, and where in it.
#[derive(Clone)]
pub struct Bucket {
    /// The bucket.
    pub store: Arc<dyn ObjectStore>,
    /// What the names of all objects begin with; empty: nothing.
    pub prefix: String,
    /// The address, which has no secrets in it.
    pub url: String,
}

/// Why a bucket can't be spoken with. Whether it is there is known when something is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error(
        "'{0}' is no address of a bucket: s3://BUCKET/PREFIX was expected; settings go into the environment or options"
    )]
    Address(String),
    /// There is no such option.
    #[error(
        "there is no option '{0}' of S3: region, endpoint and others of the crate object_store are known"
    )]
    Option(String),
    /// The options don't go together, or a value is none.
    #[error("'{url}' can't be opened: {reason}")]
    Settings {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl Bucket {
    /// The bucket of an address `s3://BUCKET/PREFIX`, under what the environment (`AWS_…`) and then the options say, by
    /// the names that the crate object_store has for them.
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
        // Who names an endpoint without TLS has said what that means.
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

/// What is throttled or times out is tried again for some seconds; then whoever asked says that the store is away, and goes
/// on trying.
fn retry() -> RetryConfig {
    let (init_backoff, max_backoff) = (Duration::from_millis(50), Duration::from_secs(2));
    RetryConfig {
        backoff: BackoffConfig { init_backoff, max_backoff, base: 2. },
        max_retries: 6,
        retry_timeout: Duration::from_secs(20),
    }
}

/// An address without what may be a name and a password in it.
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
            assert!(error(url, &[]).contains("is no address of a bucket"), "{url}");
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
