//! The trait of schema registries, which give the schemas of messages.

use async_trait::async_trait;

use crate::Result;

/// A schema as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// Its id, which messages begin with.
    pub id: u32,
    /// Its language: AVRO, JSON or PROTOBUF.
    pub kind: String,
    /// Its text.
    pub text: String,
    /// The texts of schemas whose named types it uses, each after those that it uses itself.
    pub references: Vec<String>,
}

/// A registry of schemas. A registry that can't be reached, or that refuses to answer, is [`crate::Error::External`].
#[async_trait]
pub trait SchemaRegistry: Send + Sync + std::fmt::Debug {
    /// Returns the schema with an id; `None` if the registry answers that it has none.
    async fn schema(&self, id: u32) -> Result<Option<RegisteredSchema>>;
    /// Returns the latest schema of a subject; `None` if the registry answers that it has none.
    async fn latest(&self, subject: &str) -> Result<Option<RegisteredSchema>>;
    /// Adds a schema in a language, such as AVRO, to a subject unless it is there. Returns its id.
    async fn register(&self, subject: &str, kind: &str, schema: &str) -> Result<u32>;
}
